"""The main job, with Serin's own reading of the metrics: serve, promote what is good, stop what is bad."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from demo.environment import Cluster
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment, decisions, epoch, steps
from tests.e2e.figures import Figures
from tests.e2e.installed import Operator
from tests.e2e.traffic import Traffic

RPS = 80
ENOUGH_FOR_STABLE = 300


@pytest.fixture(scope="module")
def digits(new_model_deployment: NewModelDeployment) -> Iterator[ModelDeployment]:
    mdep = new_model_deployment("digits")
    yield mdep
    mdep.delete()


@pytest.fixture(scope="module")
def traffic(cluster: Cluster, digits: ModelDeployment, figures: Figures, first_apply: float) -> Iterator[Traffic]:
    """Steady from the moment that the first model serves until the last rollout is over."""
    traffic = Traffic(cluster, digits.namespace, digits.name, figures)
    traffic.start(RPS)
    traffic.wait_for(ENOUGH_FOR_STABLE)
    yield traffic
    traffic.stop()


@pytest.fixture(scope="module")
def first_apply(digits: ModelDeployment) -> float:
    """Seconds from the first apply to serving."""
    started = time.monotonic()
    generation = digits.serve("first")
    digits.wait_serving(generation)
    return time.monotonic() - started


def test_the_first_apply_serves_within_a_minute(first_apply: float, figures: Figures) -> None:
    figures.apply_to_serving.append(first_apply)
    assert first_apply < 60


def test_a_better_model_is_promoted_through_its_steps(
    digits: ModelDeployment, traffic: Traffic, operator: Operator, figures: Figures
) -> None:
    before = operator.api_calls()
    started = time.time()
    generation = digits.serve("better")
    record = digits.wait_decision("Promoted")

    assert record["reason"] == "NonInferior"
    assert {metric["name"]: metric["verdict"] for metric in record["metrics"]} == {
        "errors": "NonInferior",
        "latency": "NonInferior",
        "accuracy": "NonInferior",
    }
    path = [(one["decision"], one.get("weight")) for one in decisions(digits.status)]
    assert path == [("Started", 0), ("Advanced", 10), ("Advanced", 50), ("Promoted", 100)]
    settled = digits.wait_serving(generation)
    assert settled["stable"]["version"] == "better"
    traffic.wait_for(200)
    assert traffic.answered(settled["stable"]["revision"]) > 0
    assert traffic.stats()["failed"] == 0
    figures.seconds_per_rollout["better"] = epoch(record["time"]) - started
    figures.calls_per_rollout["better, 2 steps"] = dict(operator.api_calls() - before)


@pytest.mark.parametrize(
    ("model", "metric", "reason", "weights"),
    [
        ("harmful", "accuracy", "LessAccurate", steps((10, 3), (50, 3))),
        ("erroring", "errors", "MoreErrors", steps((10, 3), (50, 3))),
        ("slow", "latency", "Slower", steps((3, 3), (6, 60), (50, 3))),
    ],
)
def test_a_bad_model_is_rolled_back_by_the_metric_that_it_is_bad_at(
    digits: ModelDeployment,
    traffic: Traffic,
    figures: Figures,
    model: str,
    metric: str,
    reason: str,
    weights: list[dict[str, Any]],
) -> None:
    stable = digits.status["stable"]
    started = time.time()
    digits.apply(rollout={"steps": weights})
    generation = digits.serve(model)
    record = digits.wait_decision("RolledBack")

    assert (record["reason"], record["message"].partition(":")[0]) == (reason, metric)
    verdicts = {one["name"]: one["verdict"] for one in record["metrics"]}
    assert verdicts[metric] == "Worse"
    assert all(verdict != "Worse" for name, verdict in verdicts.items() if name != metric), verdicts
    status = digits.wait("it is rolled back", lambda s: s["phase"] == "RolledBack", 30, generation)
    assert status["rejected"]["reason"] == reason
    assert status["rejected"]["revision"] == record["fromRevision"]
    assert status["stable"]["revision"] == stable["revision"]

    digits.wait_pods_gone(record["fromRevision"])
    figures.seconds_per_rollout[model] = epoch(record["time"]) - started
    figures.verdict_to_silence[model] = traffic.silence(record)
    assert figures.verdict_to_silence[model] < 2
    assert traffic.stats()["failed"] == 0
