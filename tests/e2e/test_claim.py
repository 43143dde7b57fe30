"""A model on a PersistentVolumeClaim."""

from collections.abc import Iterator

import pytest
from demo.environment import Cluster
from demo.manifests import STORE
from tests.e2e.claims import claim_on_the_node
from tests.e2e.conftest import NewModelDeployment

CLAIM = "models"


@pytest.fixture
def claim(cluster: Cluster, namespace: str, tools_namespace: str) -> Iterator[str]:
    """A claim that holds `v1/first.joblib`."""
    fetch = f"import urllib.request as r; r.urlretrieve('http://{STORE}.{namespace}/first.joblib', 'v1/first.joblib')"
    fill = f'mkdir v1 && python -c "{fetch}"'
    with claim_on_the_node(cluster, tools_namespace, namespace, CLAIM, "ReadOnlyMany", fill):
        yield CLAIM


def test_a_model_on_a_claim_is_served(new_model_deployment: NewModelDeployment, claim: str) -> None:
    mdep = new_model_deployment("stored")
    mdep.spec["model"] = {"uri": f"pvc://{claim}/v1/first.joblib", "version": "v1"}
    try:
        status = mdep.wait_serving(mdep.apply())
        assert status["stable"]["uri"] == f"pvc://{claim}/v1/first.joblib"
        assert status["resolved"]["sha256"] == status["stable"]["sha256"]
    finally:
        mdep.delete(wait=False)
