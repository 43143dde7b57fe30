"""The addresses and paths of a local cluster."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.report import Failure

STATE = Path("/var/lib/serin-cluster")

# The range reserved for benchmarks between networks (RFC 2544): no real host has such an address. Loopback would
# not do, because the API server refuses it for endpoints. Every cluster has the same addresses, each in a network
# namespace of its own.
NODE_IP = "198.18.0.1"
POD_RANGE = "198.18.128.0/17"
SERVICE_RANGE = "198.19.0.0/16"
KUBERNETES_SERVICE_IP = "198.19.0.1"
DNS_SERVICE_IP = "198.19.0.10"
API_SERVER = f"https://{NODE_IP}:6443"

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True)
class Layout:
    """Where one cluster keeps its things: all of them under one directory."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Failure(f"{self.name!r} can't name a cluster: up to 30 of a-z, 0-9 and -, neither first nor last a -")

    @property
    def root(self) -> Path:
        return STATE / self.name

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def pids(self) -> Path:
        return self.root / "pids"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def images(self) -> Path:
        """One file for each image loaded into the cluster, holding its id."""
        return self.root / "images"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def port_file(self) -> Path:
        """Holds the port at which the machine's processes reach the API server."""
        return self.root / "port"

    @property
    def network_file(self) -> Path:
        """Holds the identity of the network namespace, known even after the process that made it is gone."""
        return self.root / "network"

    @property
    def node(self) -> str:
        return f"{self.name}-node"

    @property
    def private(self) -> dict[Path, Path]:
        """Paths fixed in the programs, and what the cluster sees there in its own mount namespace."""
        fixed = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers", "/run/containerd")
        return {Path(path): self.root / "private" / path.strip("/").replace("/", "-") for path in fixed}


def clusters() -> list[str]:
    """The names of the clusters that have left anything in the state directory."""
    return sorted(path.name for path in STATE.iterdir() if path.is_dir()) if STATE.is_dir() else []
