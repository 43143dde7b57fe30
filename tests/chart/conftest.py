"""Fixtures for the chart, the definition and the examples. A missing tool fails: a skip proves nothing."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chart.cases import model_deployment
from tests.chart.tools import CRD, PLURAL, ROOT, Helm, Kubectl, Make, Manifest, load


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm: $SERIN_HELM, else the local cluster's pinned one, else the one on PATH."""
    found = os.environ.get("SERIN_HELM") or _pinned_helm() or shutil.which("helm")
    if not found:
        pytest.fail("no helm: set SERIN_HELM to its path, or bring the local cluster up with `make cluster-up`")
    return Helm(found)


def _pinned_helm() -> str | None:
    asked = subprocess.run(
        [sys.executable, "-m", "tests.cluster", "bin-dir"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    helm = Path(asked.stdout.strip()) / "helm"
    return str(helm) if asked.returncode == 0 and helm.is_file() else None


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """kubectl with a namespace and a copy of the definition of its own; both are deleted at the end."""
    if not os.environ.get("KUBECONFIG"):
        pytest.fail("no cluster: set KUBECONFIG, or run `make chart`, which brings one up")
    mine = f"chart-{uuid.uuid4().hex[:8]}"
    kubectl = Kubectl(namespace=mine, group=f"{mine}.serin.dev")
    crd = load(CRD)
    crd["spec"]["group"] = kubectl.group
    crd["spec"]["names"] = {"kind": "ModelDeployment", "plural": PLURAL, "singular": "modeldeploymentcopy"}
    crd["metadata"]["name"] = kubectl.resource
    # The strictest level that a cluster may ask of pods: what the chart makes must pass it.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": mine, "labels": labels}}
    try:
        kubectl.apply(namespace, crd).must_succeed()
        kubectl.wait_known(kubectl.resource)
        yield kubectl
    finally:
        gone = (f"namespace/{mine}", f"crd/{kubectl.resource}")
        kubectl("delete", *gone, "--ignore-not-found", "--wait=false").must_succeed()


@pytest.fixture
def make(kubectl: Kubectl) -> Iterator[Make]:
    """Creates a ModelDeployment for real; it is deleted afterwards."""
    names: list[str] = []

    def create(name: str, **spec: Any) -> Manifest:
        names.append(name)
        kubectl.create(model_deployment(name, **spec)).must_succeed()
        return kubectl.get(kubectl.resource, name)

    yield create
    for name in names:
        kubectl("delete", kubectl.resource, name, "--ignore-not-found").must_succeed()
