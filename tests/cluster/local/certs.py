"""Keys and certificates: one authority for the whole cluster, made anew each time it starts."""

from collections.abc import Sequence
from pathlib import Path

from tests.cluster.commands import run

from .layout import KUBERNETES_SERVICE_IP, NODE_IP, Layout

_DAYS = "365"


def make_all(layout: Layout) -> None:
    pki = layout.pki
    pki.mkdir(mode=0o700)
    _make(pki, "ca", "/CN=serin-cluster", ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"])
    api_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    api_names = [f"DNS:{name}" for name in ("localhost", *api_names)]
    api_names += [f"IP:{ip}" for ip in ("127.0.0.1", NODE_IP, KUBERNETES_SERVICE_IP)]
    _make(pki, "apiserver", "/CN=kube-apiserver", _server(*api_names), signed=True)
    _make(pki, "kubelet-server", f"/CN={layout.node}", _server(f"DNS:{layout.node}", f"IP:{NODE_IP}"), signed=True)
    clients = {
        "admin": "/O=system:masters/CN=serin-admin",
        "apiserver-kubelet-client": "/O=system:masters/CN=kube-apiserver-kubelet-client",
        "controller-manager": "/CN=system:kube-controller-manager",
        "scheduler": "/CN=system:kube-scheduler",
        "kubelet": f"/O=system:nodes/CN=system:node:{layout.node}",
        "kube-proxy": "/CN=system:kube-proxy",
        "coredns": "/CN=system:coredns",
        "front-proxy": "/CN=front-proxy-client",
    }
    for name, subject in clients.items():
        _make(pki, name, subject, ["extendedKeyUsage=clientAuth"], signed=True)
    run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-out", str(pki / "service-accounts.key")])  # fmt: skip
    run(["openssl", "pkey", "-in", str(pki / "service-accounts.key"), "-pubout",
         "-out", str(pki / "service-accounts.pub")])  # fmt: skip


def _server(*names: str) -> list[str]:
    return ["extendedKeyUsage=serverAuth", f"subjectAltName={','.join(names)}"]


def _make(pki: Path, name: str, subject: str, extensions: Sequence[str], *, signed: bool = False) -> None:
    # A configuration of our own, because the machine's would add extensions that clash with these.
    config = "\n".join(("[req]", "distinguished_name=dn", "x509_extensions=ext", "[dn]", "[ext]", *extensions))
    authority = ["-CA", str(pki / "ca.crt"), "-CAkey", str(pki / "ca.key")] if signed else []
    run(
        ["openssl", "req", "-x509", "-config", "/dev/stdin", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", _DAYS, "-subj", subject, *authority,
         "-keyout", str(pki / f"{name}.key"), "-out", str(pki / f"{name}.crt")],
        stdin=config,
    )  # fmt: skip
