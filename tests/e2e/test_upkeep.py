"""Life between rollouts: what was changed by hand is put right, scaling works, reverting is quick, idling is silent."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from demo.environment import Cluster
from demo.manifests import KIND
from tests.e2e.deployments import ModelDeployment, Status, condition, decisions, epoch, eventually, steps
from tests.e2e.installed import Operator
from tests.e2e.traffic import Traffic

RPS = 40
IDLE_SECONDS = 30

Kept = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def kept(serving: Callable[..., Any]) -> Iterator[Kept]:
    with serving("kept", RPS, model="better") as (mdep, traffic):
        mdep.apply(rollout={"steps": steps((50, 2)), "keepPrevious": "10m"})
        yield mdep, traffic


def test_a_revert_takes_the_pods_that_are_still_warm(kept: Kept) -> None:
    mdep, traffic = kept
    before = mdep.server_pods(mdep.status["stable"]["revision"])
    mdep.serve("better", "another")
    mdep.wait_decision("Promoted")
    mdep.serve("better", "better")
    mdep.wait_decision("Reverted")

    assert mdep.status["stable"]["version"] == "better"
    assert mdep.server_pods(mdep.status["stable"]["revision"]) == before
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def test_a_canary_pod_that_dies_holds_the_rollout_until_it_is_back(kept: Kept) -> None:
    mdep, traffic = kept
    mdep.apply(rollout={"steps": steps((20, 15), (50, 3))})
    mdep.serve("better", "fragile")
    canary = mdep.wait_weight(20)["canary"]["revision"]
    [pod] = mdep.server_pods(canary)
    mdep.cluster.kubectl("delete", "pod", pod, "-n", mdep.namespace, "--grace-period=0", "--force")
    status = mdep.wait("it cannot see", lambda s: condition(s, "MetricsAvailable").get("status") == "False")
    assert f"no metrics of revision {canary}" in condition(status, "MetricsAvailable")["message"]
    assert status["weight"] == 20
    mdep.wait_decision("Promoted")
    [back] = [pod for pod in mdep.owned("pods") if pod["metadata"]["name"] in mdep.server_pods(canary)]
    [ready] = [one for one in back["status"]["conditions"] if one["type"] == "Ready"]
    [advanced] = [one for one in decisions(mdep.status) if (one["decision"], one["weight"]) == ("Advanced", 50)]
    assert epoch(advanced["time"]) >= epoch(ready["lastTransitionTime"])
    assert traffic.stats()["failed"] == 0


def test_scaling_changes_the_replicas_and_fails_no_request(kept: Kept) -> None:
    mdep, traffic = kept
    for replicas in (3, 1):
        mdep.cluster.kubectl("scale", KIND, mdep.name, "-n", mdep.namespace, f"--replicas={replicas}")
        mdep.wait(f"{replicas} pods serve", partial(_has_replicas, replicas), 90)
        traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def test_what_was_changed_by_hand_is_put_right(cluster: Cluster, kept: Kept) -> None:
    mdep, traffic = kept
    traffic.rate(0)  # without its only Deployment nobody can answer
    traffic.settled()
    stable, router = f"{mdep.name}-{mdep.status['stable']['revision']}", f"{mdep.name}-router"

    routes = cluster.get("configmap", router, mdep.namespace)["data"]
    patch = '{"data": {"rds.json": "{}"}}'
    cluster.kubectl("patch", "configmap", router, "-n", mdep.namespace, "--type=merge", "-p", patch)
    eventually(lambda: cluster.get("configmap", router, mdep.namespace)["data"] == routes)

    old = cluster.get("deployment", stable, mdep.namespace)["metadata"]["uid"]
    cluster.kubectl("delete", "deployment", stable, "-n", mdep.namespace)

    def restored() -> bool:
        found = [one for one in mdep.owned("deployments") if one["metadata"]["name"] == stable]
        return [one["metadata"]["uid"] != old and one["status"].get("readyReplicas") == 1 for one in found] == [True]

    eventually(restored)
    traffic.rate(RPS)
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def test_nothing_is_written_while_nothing_happens(kept: Kept, operator: Operator) -> None:
    mdep, _ = kept
    mdep.wait_serving()
    kinds = f"{KIND},deployments,services,configmaps,secrets,pods"

    def versions() -> dict[str, str]:
        found = [mdep.cluster.get(KIND, mdep.name, mdep.namespace), *mdep.owned(kinds)]
        return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in found}

    eventually(lambda: "retiring" not in mdep.status and not any(_ends(one) for one in mdep.owned("pods")), 120)
    before = versions()

    def calls_while_idle() -> Counter[str]:
        calls = operator.api_calls()
        time.sleep(IDLE_SECONDS)
        return operator.api_calls() - calls

    # Every five minutes it lists each kind, for what its watches missed.
    if listed := calls_while_idle():
        assert all(call.startswith("GET ") and count == 1 for call, count in listed.items()), listed
        assert calls_while_idle() == {}
    assert versions() == before


def _has_replicas(number: int, status: Status) -> bool:
    return bool(status["replicas"] == status["readyReplicas"] == number)


def _ends(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]
