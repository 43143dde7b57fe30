"""The configuration files that the components read. JSON where Kubernetes takes YAML: it is a subset."""

import base64
import json
from pathlib import Path

from .cgroups import CgroupTree
from .layout import API_SERVER, DNS_SERVICE_IP, NODE_IP, POD_RANGE, Layout


def kubeconfig(layout: Layout, user: str, server: str = API_SERVER) -> str:
    """A kubeconfig with everything inside, so that a copy of the file works anywhere on the machine."""

    def data(file: str) -> str:
        return base64.b64encode((layout.pki / file).read_bytes()).decode()

    context = {"cluster": layout.name, "user": user}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": layout.name, "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}
            ],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate-data": data(f"{user}.crt"), "client-key-data": data(f"{user}.key")},
                }
            ],
            "contexts": [{"name": layout.name, "context": context}],
            "current-context": layout.name,
        },
        indent=2,
    )


def write_component_kubeconfigs(layout: Layout) -> None:
    for user in ("controller-manager", "scheduler", "kubelet", "kube-proxy", "coredns"):
        write_private(kubeconfig_of(layout, user), kubeconfig(layout, user))


def kubeconfig_of(layout: Layout, user: str) -> Path:
    return layout.config / f"{user}.kubeconfig"


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner may read: it holds a key."""
    path.touch(mode=0o600)
    path.write_text(content)


def write_kubelet(layout: Layout) -> Path:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": CgroupTree(layout.name).kubelet_root,
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "resolvConf": "",  # there is no world outside to look names up in
        "makeIPTablesUtilChains": False,
        "maxPods": 110,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # Images come from no registry, so one that is removed to save disk is gone.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
    }
    return _write(layout.config / "kubelet.json", config)


def write_kube_proxy(layout: Layout) -> Path:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "hostnameOverride": layout.node,
        "clientConnection": {"kubeconfig": str(kubeconfig_of(layout, "kube-proxy"))},
        # Zero leaves the kernel's settings alone: they can't be written in a network namespace.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return _write(layout.config / "kube-proxy.json", config)


def write_corefile(layout: Layout) -> Path:
    """The Corefile that kubeadm writes, less what asks the world outside."""
    path = layout.config / "Corefile"
    path.write_text(f"""\
.:53 {{
    bind {NODE_IP}
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig_of(layout, "coredns")}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus 127.0.0.1:9153
    cache 30 {{
        disable success cluster.local
        disable denial cluster.local
    }}
    reload
    loadbalance
}}
""")
    return path


def _write(path: Path, config: object) -> Path:
    path.write_text(json.dumps(config, indent=2))
    return path
