"""Cluster DNS: CoreDNS runs beside the other components, and a Service leads pods to it."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

from .api import Api
from .layout import DNS_SERVICE_IP, NODE_IP

_PORTS = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]


def apply(api: Api) -> None:
    for path, manifest in _manifests():
        api.apply(path, manifest)


def answers(name: str = "kubernetes.default.svc.cluster.local") -> bool:
    """Whether the DNS Service knows a name, asked as a pod would. To be called inside the cluster's network."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = struct.pack(">HHHHHH", 0x5E41, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1.0)
        sock.connect((DNS_SERVICE_IP, 53))
        sock.send(question)
        reply = sock.recv(512)
    flags, _, answers_given = struct.unpack(">HHH", reply[2:8])
    return bool(flags & 0x000F == 0 and answers_given > 0)


def _manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    yield (
        f"{rbac}/clusterroles/system:coredns",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
    )
    yield (
        f"{rbac}/clusterrolebindings/system:coredns",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
        },
    )
    yield (
        "/api/v1/namespaces/kube-system/services/kube-dns",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": DNS_SERVICE_IP, "ports": _PORTS},
        },
    )
    yield (
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "ports": _PORTS,
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        },
    )
