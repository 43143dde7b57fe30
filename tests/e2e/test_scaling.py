"""Capacity before weight, with the cluster's own autoscaler; and what is left of it when pods are evicted.

There is no metrics server here, so the autoscaler measures nothing. What it writes because of its bounds is real; where
only a measurement could have changed the number, the tests write it with `kubectl scale`.
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from demo.environment import Cluster, CommandError
from demo.manifests import KIND
from tests.e2e.cluster import select
from tests.e2e.deployments import LABEL, ModelDeployment, Status, condition, eventually, is_true, steps
from tests.e2e.traffic import Traffic

RPS = 40
AUTOSCALER_SECONDS = 90  # it looks every 15 s, and learns of a new kind every 30 s

Scaled = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def scaled(serving: Callable[..., Any]) -> Iterator[Scaled]:
    with serving("scaled", RPS, model="better") as (mdep, traffic):
        yield mdep, traffic


def test_no_weight_comes_before_its_pods_and_no_request_is_lost(scaled: Scaled) -> None:
    mdep, traffic = scaled
    _scale(mdep, 3)
    mdep.wait("three pods serve", partial(_stable_has, 3), 90)
    mdep.apply(rollout={"steps": steps((30, 6), (60, 3))})
    mdep.serve("better", "wider")
    canary = mdep.wait_weight(30)["canary"]["revision"]
    assert len(mdep.server_pods(canary)) == 1
    mdep.wait_weight(60)
    mdep.wait_decision("Promoted")

    seen: dict[int, int] = {}
    for status in mdep.statuses:
        if status.get("weight"):
            seen.setdefault(status["weight"], status["canary"]["readyReplicas"])
        assert status["stable"]["replicas"] == 3
    assert seen == {30: 1, 60: 2}
    assert mdep.status["stable"]["revision"] == canary
    assert mdep.status["stable"]["readyReplicas"] == 3
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def test_the_autoscaler_scales_the_resource_and_fights_no_rollout(scaled: Scaled) -> None:
    mdep, traffic = scaled
    _scale(mdep, 1)
    mdep.wait("one pod serves", partial(_stable_has, 1), 90)
    autoscaling = {"minReplicas": 2, "maxReplicas": 4, "cpu": {"averageUtilization": 70}}
    mdep.apply(server={"autoscaling": autoscaling}, rollout={"steps": steps((50, 20))})
    mdep.wait("the autoscaler has written its minimum", lambda _: _asked(mdep) == 2, AUTOSCALER_SECONDS)
    mdep.wait("two pods serve", partial(_stable_has, 2), 90)
    autoscaler = _autoscaler(mdep)
    applied = mdep.generation = json.loads(_get(mdep))["metadata"]["generation"]
    assert mdep.apply() == applied, "applying again what leaves the number out must change nothing"
    assert _asked(mdep) == 2

    mdep.serve("better", "autoscaled")
    mdep.wait_weight(50)
    mdep.apply(rollout={"paused": True})
    stable = mdep.status["stable"]["revision"]

    # It measures half of the traffic, and would take what a rollback needs. The autoscaler itself puts it right.
    _scale(mdep, 1)
    mdep.wait("its minimum holds", lambda _: _asked(mdep) == 2, AUTOSCALER_SECONDS)
    assert all(status["stable"]["replicas"] == 2 for status in mdep.statuses)
    assert len(mdep.server_pods(stable)) == 2

    # It measures more traffic: stable and the canary grow, and the promoted revision has all of it.
    _scale(mdep, 4)
    mdep.wait("both have grown", lambda s: _stable_has(4, s) and s["canary"]["readyReplicas"] == 2, 90)
    mdep.apply(rollout={"paused": False})
    mdep.wait_decision("Promoted")
    assert _stable_has(4, mdep.status)
    assert mdep.status["stable"]["revision"] != stable
    assert _autoscaler(mdep)["metadata"]["uid"] == autoscaler["metadata"]["uid"]
    assert _autoscaler(mdep)["spec"]["scaleTargetRef"] == autoscaler["spec"]["scaleTargetRef"]
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def test_an_autoscaler_goes_with_its_field_and_the_number_stays(scaled: Scaled) -> None:
    mdep, traffic = scaled
    del mdep.spec["server"]["autoscaling"]
    generation = mdep.apply()
    mdep.wait("it is seen", lambda s: condition(s, "Ready").get("status") == "True", generation=generation)
    deadline = time.monotonic() + 30
    while mdep.owned("horizontalpodautoscalers"):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.5)
    assert _asked(mdep) == 4
    assert traffic.stats()["failed"] == 0


def test_evictions_take_one_pod_of_stable_at_a_time_and_lose_no_request(scaled: Scaled) -> None:
    mdep, traffic = scaled
    _scale(mdep, 2)
    eventually(lambda: len(_ready(mdep)) == 2, 90)
    eventually(lambda: _budgets(mdep) == [{"of": 2, "may go": 1}])
    evicted = first, second = sorted(_ready(mdep))
    assert _evict(mdep, first)
    assert not _evict(mdep, second), "nothing has taken the first one's place yet"
    eventually(lambda: _evict(mdep, second), 90)
    assert _ready(mdep).difference(evicted), "the last one was let go"
    eventually(lambda: len(_ready(mdep).difference(evicted)) == 2, 90)
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0

    _scale(mdep, 1)
    eventually(lambda: _budgets(mdep) == [])


def _ready(mdep: ModelDeployment) -> set[str]:
    """Names of the stable revision's pods that are ready and have not been told to end."""
    labels = f"{LABEL}={mdep.name},serin.dev/revision={mdep.status['stable']['revision']}"
    pods = select(mdep.cluster, "pods", mdep.namespace, labels)
    ready = (pod["metadata"] for pod in pods if is_true(pod["status"], "Ready"))
    return {metadata["name"] for metadata in ready if "deletionTimestamp" not in metadata}


def _budgets(mdep: ModelDeployment) -> list[dict[str, int]]:
    """How many pods each budget is over, and how many of them may be evicted now."""
    statuses = [budget["status"] for budget in mdep.owned("poddisruptionbudgets")]
    return [{"of": status["expectedPods"], "may go": status["disruptionsAllowed"]} for status in statuses]


def _evict(mdep: ModelDeployment, pod: str) -> bool:
    """What `kubectl drain` does to a pod. False where its budget does not allow it now."""
    metadata = {"name": pod, "namespace": mdep.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{mdep.namespace}/pods/{pod}/eviction"
    try:
        mdep.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    except CommandError as error:
        if "TooManyRequests" not in str(error):
            raise
        return False
    return True


def _scale(mdep: ModelDeployment, replicas: int) -> None:
    mdep.cluster.kubectl("scale", KIND, mdep.name, "-n", mdep.namespace, f"--replicas={replicas}")


def _get(mdep: ModelDeployment) -> str:
    return mdep.cluster.kubectl("get", KIND, mdep.name, "-n", mdep.namespace, "-o", "json")


def _asked(mdep: ModelDeployment) -> int:
    """The number that the autoscaler, or who plays it, wrote last."""
    asked: int = json.loads(_get(mdep))["spec"]["server"]["replicas"]
    return asked


def _autoscaler(mdep: ModelDeployment) -> dict[str, Any]:
    cluster: Cluster = mdep.cluster
    found: dict[str, Any] = cluster.get("horizontalpodautoscaler", mdep.name, mdep.namespace)
    return found


def _stable_has(pods: int, status: Status) -> bool:
    return bool(status["stable"]["replicas"] == status["stable"].get("readyReplicas") == pods)
