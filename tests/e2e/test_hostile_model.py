"""A model that attacks while it is loaded: it finds nothing of value, is turned down, and no client notices."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo.faults import BARRED
from demo.manifests import model_uri
from tests.e2e.cluster import select
from tests.e2e.deployments import ModelDeployment, is_true
from tests.e2e.traffic import Traffic

RPS = 30


@pytest.fixture(scope="module")
def stable(serving: Callable[..., Any]) -> Iterator[tuple[ModelDeployment, Traffic]]:
    with serving("besieged", RPS) as both:
        yield both


def test_a_hostile_model_is_turned_down_and_gets_nothing(stable: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = stable
    before = mdep.status["stable"]
    mdep.spec["model"] = {"uri": model_uri("attack-on-load"), "version": "hostile"}
    generation = mdep.apply(server={"readyTimeout": "2m"})
    record = mdep.wait_decision("Rejected", 90)

    # What it found is in its own words: each thing that it tried, and what came of it.
    assert (record["reason"], record["weight"]) == ("LoadFailed", 0)
    for act in BARRED:
        assert f"{act}: barred" in record["message"]
    status = mdep.wait("it is stalled", lambda s: is_true(s, "Stalled"), 10, generation)
    assert is_true(status, "Ready")
    assert mdep.status["stable"]["revision"] == before["revision"]
    traffic.wait_for(RPS)
    stats = traffic.stats()
    assert set(stats["by_revision"]) == {before["revision"]}
    assert stats["failed"] == 0


def test_serving_pods_have_the_security_that_this_relies_on(stable: tuple[ModelDeployment, Traffic]) -> None:
    mdep, _ = stable
    pods = select(mdep.cluster, "pods", mdep.namespace, f"serin.dev/model-deployment={mdep.name}")
    assert pods
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            security = container["securityContext"]
            assert (security["allowPrivilegeEscalation"], security["readOnlyRootFilesystem"]) == (False, True)
            assert security["capabilities"] == {"drop": ["ALL"]}
