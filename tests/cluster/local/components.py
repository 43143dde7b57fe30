"""What runs in a local cluster: each component's command line and how it is asked whether it is well."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import configs, containerd, health
from .layout import NODE_IP, POD_RANGE, SERVICE_RANGE, Layout

_ETCD = "http://127.0.0.1:2379"
_ETCD_METRICS = "http://127.0.0.1:2381"


@dataclass(frozen=True)
class Component:
    """A program inside the cluster's namespaces. `check` is called there, and raises while the program is not well."""

    name: str
    argv: list[str]
    check: Callable[[], None]


def foundations(layout: Layout, binaries: Path) -> list[Component]:
    """What the API server and the kubelet stand on."""
    return [
        Component(
            "containerd",
            containerd.argv(layout, layout.config / "containerd.toml"),
            lambda: health.accepts(layout.containerd_socket),
        ),
        Component(
            "etcd",
            [
                f"{binaries}/etcd",
                f"--data-dir={layout.root}/etcd",
                f"--listen-client-urls={_ETCD}",
                f"--advertise-client-urls={_ETCD}",
                f"--listen-metrics-urls={_ETCD_METRICS}",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--log-level=warn",
                "--unsafe-no-fsync",  # nothing here has to survive a power cut
            ],
            lambda: health.ok(f"{_ETCD_METRICS}/readyz"),
        ),
    ]


def api_server(layout: Layout, binaries: Path) -> Component:
    pki = layout.pki
    argv = [
        f"{binaries}/kube-apiserver",
        f"--etcd-servers={_ETCD}",
        f"--advertise-address={NODE_IP}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--client-ca-file={pki}/ca.crt",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",  # the node's name can't be looked up
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/service-accounts.pub",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--requestheader-client-ca-file={pki}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
    ]
    return Component("kube-apiserver", argv, lambda: health.ok(f"https://{NODE_IP}:6443/readyz"))


def everything(layout: Layout, binaries: Path) -> list[Component]:
    """All of them, in the order in which they start."""
    return [*foundations(layout, binaries), api_server(layout, binaries), *managers_and_node(layout, binaries)]


def managers_and_node(layout: Layout, binaries: Path) -> list[Component]:
    """What works through the API server."""
    return [
        _controller_manager(layout, binaries),
        _scheduler(layout, binaries),
        Component(
            "kubelet",
            [
                f"{binaries}/kubelet",
                f"--config={layout.config}/kubelet.json",
                f"--kubeconfig={configs.kubeconfig_of(layout, 'kubelet')}",
                f"--hostname-override={layout.node}",
                f"--node-ip={NODE_IP}",
            ],
            lambda: health.ok("http://127.0.0.1:10248/healthz"),
        ),
        Component(
            "kube-proxy",
            [f"{binaries}/kube-proxy", f"--config={layout.config}/kube-proxy.json"],
            lambda: health.ok("http://127.0.0.1:10256/healthz"),
        ),
        Component(
            "coredns",
            [f"{binaries}/coredns", "-conf", f"{layout.config}/Corefile"],
            lambda: health.ok("http://127.0.0.1:8181/ready"),
        ),
    ]


def _controller_manager(layout: Layout, binaries: Path) -> Component:
    pki = layout.pki
    argv = [
        f"{binaries}/kube-controller-manager",
        *_kubeconfig_flags(configs.kubeconfig_of(layout, "controller-manager")),
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        "--use-service-account-credentials",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        f"--cluster-cidr={POD_RANGE}",
        f"--flex-volume-plugin-dir={layout.root}/volume-plugins",  # it makes the directory, elsewhere otherwise
    ]
    return Component("kube-controller-manager", argv, lambda: health.ok("https://127.0.0.1:10257/healthz"))


def _scheduler(layout: Layout, binaries: Path) -> Component:
    argv = [f"{binaries}/kube-scheduler", *_kubeconfig_flags(configs.kubeconfig_of(layout, "scheduler"))]
    return Component("kube-scheduler", argv, lambda: health.ok("https://127.0.0.1:10259/healthz"))


def _kubeconfig_flags(kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",  # there is only one, so nothing to wait for
    ]


def forward_argv(binaries: Path, socket: int, network: Path) -> list[str]:
    """The bridge between the machine and the API server; it runs outside the cluster's network."""
    return [f"{binaries}/forward", f"-socket={socket}", f"-netns={network}", f"-target={NODE_IP}:6443"]
