"""No router at all: the numbers of pods make the split, the status says which one that is, and no request is lost."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.deployments import ModelDeployment, eventually, steps
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 60
STABLE_PODS = 2
NEAREST = 100 / 3  # of 20 %: one canary pod beside two


@pytest.fixture(scope="module")
def split(cluster: Any, new_model_deployment: Any, figures: Figures) -> Iterator[tuple[ModelDeployment, Traffic]]:
    """Served by the embedded router, and changed to none under load. Every request takes a connection of its own."""
    mdep = new_model_deployment("ratio")
    mdep.spec["server"] = {"replicas": STABLE_PODS}
    traffic = Traffic(cluster, mdep.namespace, mdep.name, figures)
    try:
        mdep.wait_serving(mdep.serve("first"))
        traffic.start(RPS, new_connections=True)
        traffic.wait_for(RPS)
        mdep.apply(traffic={"router": {"type": "ReplicaRatio"}})
        mdep.wait("there is no router any more", lambda s: s.get("routing") == {"router": "ReplicaRatio"}, 90)
        yield mdep, traffic
        traffic.stop()
    finally:
        mdep.delete(wait=False)


def test_the_embedded_router_goes_without_a_failed_request(split: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = split
    eventually(lambda: {item["metadata"]["name"] for item in mdep.owned("deployments")} == {_server(mdep, "stable")})
    traffic.wait_for(RPS)
    assert traffic.stats()["failed"] == 0


def test_pods_make_the_nearest_weight_and_the_status_tells_it(
    split: tuple[ModelDeployment, Traffic], figures: Figures
) -> None:
    mdep, traffic = split
    mdep.apply(rollout={"steps": steps((20, 30))})
    mdep.serve("better")
    status = mdep.wait_weight(20)
    assert status["routing"]["weight"] == pytest.approx(NEAREST, abs=0.1)
    canary = status["canary"]["revision"]
    assert len(mdep.server_pods(canary)) == 1
    before = traffic.stats()
    traffic.wait_for(5 * RPS)
    share = (traffic.answered(canary) - before["by_revision"].get(canary, {"n": 0})["n"]) / (
        traffic.stats()["ok"] - before["ok"]
    )
    figures.split["20 %, by replicas"] = f"{100 * share:.1f} % of the requests, {NEAREST:.1f} % of the pods"
    assert share == pytest.approx(NEAREST / 100, abs=0.1)


def test_a_promotion_comes_with_all_pods(split: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = split
    record = mdep.wait_decision("Promoted")

    def narrowed() -> bool:
        selector = mdep.cluster.get("service", mdep.name, mdep.namespace)["spec"]["selector"]
        return bool(selector.get("serin.dev/revision") == record["toRevision"])

    eventually(narrowed)
    status = mdep.wait_serving()
    assert status["stable"]["readyReplicas"] == STABLE_PODS
    traffic.wait_for(RPS)
    assert traffic.stats()["failed"] == 0


def test_a_rollback_takes_the_pods_out_at_once(split: tuple[ModelDeployment, Traffic], figures: Figures) -> None:
    mdep, traffic = split
    mdep.apply(rollout={"steps": steps((50, 60))})
    mdep.serve("harmful")
    record = mdep.wait_decision("RolledBack")
    assert record["reason"] == "LessAccurate"
    figures.verdict_to_silence["harmful, by replicas"] = traffic.silence(record)
    assert figures.verdict_to_silence["harmful, by replicas"] < 3
    assert traffic.stats()["failed"] == 0


def test_going_back_to_the_embedded_router_loses_nothing(split: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = split
    mdep.apply(traffic={"router": {"type": "Embedded"}})
    mdep.wait("the embedded router is alone", lambda s: "routing" not in s, 90)
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def _server(mdep: ModelDeployment, role: str) -> str:
    return f"{mdep.name}-{mdep.status[role]['revision']}"
