"""Claims on a directory of the node, and what is put there and read from there as root."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo.environment import Cluster, image

_PARENT = "/tmp"


@contextmanager
def claim_on_the_node(cluster: Cluster, tools: str, namespace: str, claim: str, mode: str, fill: str) -> Iterator[str]:
    """A claim with this access mode on a new directory, whose name it returns; gone without trace at the end.

    `fill` is a shell script that runs as root in the directory; `tools` is a namespace without pod security.
    """
    name = f"serin-e2e-{uuid.uuid4().hex[:6]}"
    on_the_node(cluster, tools, f"mkdir {name} && cd {name} && {fill}")
    cluster.apply([_volume(name, claim, mode, namespace), _claim(name, claim, mode, namespace)])
    try:
        yield name
    finally:
        cluster.kubectl("delete", "pvc", claim, "-n", namespace, "--wait=false")
        cluster.kubectl("delete", "pv", name, "--wait=false")
        on_the_node(cluster, tools, f"rm -r {name}")


def on_the_node(cluster: Cluster, namespace: str, script: str) -> str:
    """Run a shell script as root beside the claims' directories. Returns what it printed."""
    name = f"node-{uuid.uuid4().hex[:6]}"
    container = {
        "name": name,
        "image": image("demo"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-ec", script],
        "workingDir": "/node",
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "volumeMounts": [{"name": "node", "mountPath": "/node"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "node", "hostPath": {"path": _PARENT, "type": "Directory"}}],
        },
    }
    cluster.apply([pod])
    cluster.kubectl("wait", "-n", namespace, f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    printed = cluster.kubectl("logs", "-n", namespace, name)
    cluster.kubectl("delete", "pod", name, "-n", namespace, "--wait=false")
    return printed


def _volume(name: str, claim: str, mode: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": [mode],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": f"{_PARENT}/{name}", "type": "Directory"},
            "claimRef": {"name": claim, "namespace": namespace},
        },
    }


def _claim(volume: str, claim: str, mode: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": namespace},
        "spec": {
            "accessModes": [mode],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
