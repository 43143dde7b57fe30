"""Fixtures for the chart, the definition and the examples. A missing tool fails: a skip proves nothing."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart.tools import CRD, ROOT, Helm, Kubectl, run


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
    """kubectl in a namespace of its own, with the definition applied. The namespace is deleted at the end."""
    if not os.environ.get("KUBECONFIG"):
        pytest.fail("no cluster: set KUBECONFIG, or run `make chart`, which brings one up")
    cluster = Kubectl("default")
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=serin-tests")
    cluster(*apply, "-f", str(CRD)).must_succeed()
    crd = "crd/modeldeployments.serin.dev"
    cluster("wait", "--for=condition=Established", crd, "--timeout=60s").must_succeed()
    namespace = f"serin-chart-{uuid.uuid4().hex[:8]}"
    cluster("create", "namespace", namespace).must_succeed()
    try:
        # The strictest level that a cluster may ask of pods: what the chart makes must pass it.
        label = "pod-security.kubernetes.io/enforce=restricted"
        cluster("label", "namespace", namespace, label).must_succeed()
        yield Kubectl(namespace)
    finally:
        run(["kubectl", "delete", "namespace", namespace, "--wait=false"]).must_succeed()
