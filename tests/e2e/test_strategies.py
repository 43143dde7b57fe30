"""Other ways to take over: a preview and one switch, a step that waits for somebody, one revision after the other."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo.environment import Cluster
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment, condition, decisions, is_true
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 40
PREVIEW_RPS = 60
BOUNDED = [
    {"name": "errors", "margin": 0.03, "bound": 0.05},
    {"name": "latency", "margin": 0.1, "slowerThan": "1s", "bound": 0.2},
    {"name": "accuracy", "margin": 0.03, "bound": 0.1},
]


# --- BlueGreen


@pytest.fixture(scope="module")
def blue(serving: Callable[..., Any]) -> Iterator[tuple[ModelDeployment, Traffic]]:
    """The first model serves clients; what follows goes through a preview."""
    with serving("blue", RPS) as (mdep, traffic):
        mdep.apply(rollout={"strategy": "BlueGreen"}, analysis={"metrics": BOUNDED})
        yield mdep, traffic


def previewed(mdep: ModelDeployment, cluster: Cluster, figures: Figures, model: str, number: int) -> Traffic:
    """The model in the preview, and requests and labels to it from now on."""
    mdep.serve(model)
    mdep.wait(
        "the preview is ready",
        lambda status: status["history"][0].get("reason") == "PreviewReady",
        90,
        mdep.generation,
    )
    preview = Traffic(cluster, mdep.namespace, mdep.name, figures, service=f"{mdep.name}-preview", by=str(number))
    preview.start(PREVIEW_RPS)
    return preview


def test_a_preview_is_judged_and_all_requests_are_switched_at_once(
    blue: tuple[ModelDeployment, Traffic], cluster: Cluster, figures: Figures
) -> None:
    mdep, traffic = blue
    preview = previewed(mdep, cluster, figures, "better", 1)
    record = mdep.wait_decision("Promoted")
    preview.rate(0)
    assert record["reason"] == "UnderBound"
    assert {metric["verdict"] for metric in record["metrics"]} == {"UnderBound"}
    assert set(preview.stats()["by_revision"]) == {record["toRevision"]}
    assert {status.get("weight") for status in mdep.statuses if "rollout" in status} == {0}
    assert mdep.status["stable"]["version"] == "better"
    traffic.wait_for(2 * RPS)
    assert traffic.answered(record["toRevision"]) > 0
    assert traffic.stats()["failed"] == 0


def test_the_way_back_is_one_change_of_the_route(blue: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = blue
    mdep.serve("first")
    mdep.wait_decision("Reverted", 20)
    assert mdep.status["stable"]["version"] == "first"
    traffic.wait_for(2 * RPS)
    assert traffic.stats()["failed"] == 0


def test_what_breaks_its_bound_in_the_preview_never_meets_a_client(
    blue: tuple[ModelDeployment, Traffic], cluster: Cluster, figures: Figures
) -> None:
    mdep, traffic = blue
    preview = previewed(mdep, cluster, figures, "harmful", 2)
    record = mdep.wait_decision("RolledBack")
    preview.rate(0)
    assert record["reason"] == "OverBound"
    assert record["message"].startswith("accuracy: ")
    assert preview.answered(record["fromRevision"]) > 0
    assert record["fromRevision"] not in traffic.stats()["by_revision"]
    assert mdep.status["stable"]["version"] == "first"
    assert traffic.stats()["failed"] == 0


# --- by hand


def awaits(mdep: ModelDeployment) -> dict[str, Any]:
    """Until somebody is waited for."""
    return mdep.wait(
        "it waits for somebody",
        lambda status: condition(status, "Reconciling").get("reason") == "AwaitingPromotion",
        90,
        mdep.generation,
    )


def test_a_step_waits_until_somebody_promotes_or_aborts(serving: Callable[..., Any]) -> None:
    with serving("by-hand", RPS) as (mdep, traffic):
        steps = [{"weight": 20, "duration": "3s", "pause": True}, {"weight": 50, "duration": "3s"}]
        mdep.apply(rollout={"steps": steps})
        mdep.serve("better")
        assert awaits(mdep)["phase"] == "Paused"
        mdep.mark("promote", "1")
        mdep.wait_decision("Promoted")
        assert [(one["decision"], one["reason"]) for one in decisions(mdep.status)] == [
            ("Started", "SpecChanged"),
            ("Advanced", "CanaryReady"),
            ("Advanced", "ByHand"),
            ("Promoted", "NonInferior"),
        ]
        mdep.serve("equal")
        awaits(mdep)
        mdep.mark("abort", "1")
        record = mdep.wait_decision("RolledBack", 20)
        assert record["reason"] == "Aborted"
        assert mdep.status["stable"]["version"] == "better"
        assert traffic.stats()["failed"] == 0


# --- Recreate


def test_one_revision_goes_before_the_other_comes_and_comes_back_if_that_can_not_run(
    new_model_deployment: NewModelDeployment,
) -> None:
    mdep = new_model_deployment("one-place")
    try:
        mdep.wait_serving(mdep.serve("first"))
        mdep.apply(rollout={"strategy": "Recreate"})
        mdep.serve("better")
        assert alone_until(mdep, "Promoted")["reason"] == "Recreated"
        assert mdep.wait_serving()["stable"]["version"] == "better"

        mdep.serve("missing-module")
        assert alone_until(mdep, "RolledBack")["reason"] == "MissingModule"
        mdep.wait(
            "the old one answers again",
            lambda status: is_true(status, "Ready") and condition(status, "Stalled").get("reason") == "MissingModule",
            90,
        )
        assert mdep.status["stable"]["version"] == "better"
    finally:
        mdep.delete(wait=False)


def alone_until(mdep: ModelDeployment, decision: str) -> dict[str, Any]:
    """Until this decision, and never do two revisions have pods at once."""
    deadline = time.monotonic() + 150
    while (record := mdep.status["history"][0])["decision"] != decision:
        pods = [pod["metadata"]["labels"] for pod in mdep.owned("pods")]
        revisions = {labels["serin.dev/revision"] for labels in pods if "serin.dev/revision" in labels}
        assert len(revisions) <= 1, revisions
        assert time.monotonic() < deadline, mdep.account()
        time.sleep(0.5)
    return dict(record)
