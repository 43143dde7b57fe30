"""A model on a PersistentVolumeClaim."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from demo.environment import Cluster, image
from demo.manifests import STORE
from tests.e2e.conftest import NewModelDeployment

CLAIM = "models"
PARENT = "/tmp"


@pytest.fixture
def claim(cluster: Cluster, namespace: str, tools_namespace: str) -> Iterator[str]:
    """A claim on a directory of the node that holds `v1/first.joblib`; gone without trace at the end."""
    name = f"serin-e2e-{uuid.uuid4().hex[:6]}"
    fetch = f"import urllib.request as r; r.urlretrieve('http://{STORE}.{namespace}/first.joblib', 'first.joblib')"
    _on_the_node(cluster, tools_namespace, "fill", f'mkdir -p {name}/v1 && cd {name}/v1 && python -c "{fetch}"')
    cluster.apply([_volume(name, f"{PARENT}/{name}", namespace), _claim(name, namespace)])
    yield CLAIM
    cluster.kubectl("delete", "pvc", CLAIM, "-n", namespace, "--wait=false")
    cluster.kubectl("delete", "pv", name, "--wait=false")
    _on_the_node(cluster, tools_namespace, "clear", f"rm -r {name}")


def test_a_model_on_a_claim_is_served(new_model_deployment: NewModelDeployment, claim: str) -> None:
    mdep = new_model_deployment("stored")
    mdep.spec["model"] = {"uri": f"pvc://{claim}/v1/first.joblib", "version": "v1"}
    try:
        status = mdep.wait_serving(mdep.apply())
        assert status["stable"]["uri"] == f"pvc://{claim}/v1/first.joblib"
        assert status["resolved"]["sha256"] == status["stable"]["sha256"]
    finally:
        mdep.delete(wait=False)


def _volume(name: str, path: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": path, "type": "Directory"},
            "claimRef": {"name": CLAIM, "namespace": namespace},
        },
    }


def _claim(volume: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def _on_the_node(cluster: Cluster, namespace: str, name: str, script: str) -> None:
    """Run a shell script as root in the node's directory PARENT."""
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
            "volumes": [{"name": "node", "hostPath": {"path": PARENT, "type": "Directory"}}],
        },
    }
    cluster.apply([pod])
    cluster.kubectl("wait", "-n", namespace, f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
