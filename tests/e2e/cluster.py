"""The cluster that the environment names: all that the suite knows of it is KUBECONFIG, kubectl and helm."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from demo.environment import Cluster, CommandError

Manifest = dict[str, Any]


def from_environment() -> Cluster:
    """The cluster of $KUBECONFIG, with kubectl and helm from PATH. Raises RuntimeError saying what is missing."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        raise RuntimeError("KUBECONFIG is not set: run `make e2e`, which brings a cluster up")
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is not on PATH: run `make e2e`, which puts it there")
    return Cluster(kubeconfig, str(Path(str(shutil.which("kubectl"))).parent))


def environment(cluster: Cluster) -> dict[str, str]:
    """The environment for a kubectl that goes on running."""
    return {**os.environ, "KUBECONFIG": cluster.kubeconfig, "PATH": f"{cluster.bin_dir}:{os.environ['PATH']}"}


def select(cluster: Cluster, kinds: str, namespace: str, labels: str) -> list[Manifest]:
    """All objects of these kinds (comma-separated) with these labels."""
    answer = cluster.kubectl("get", kinds, "-n", namespace, "-l", labels, "-o", "json")
    items: list[Manifest] = json.loads(answer)["items"]
    return items


def try_kubectl(cluster: Cluster, *argv: str) -> str:
    """What kubectl says, for a failure's account: an error is told as well."""
    try:
        return cluster.kubectl(*argv, timeout=30)
    except CommandError as error:
        return str(error)
