"""The main job, with Serin's own reading of the metrics: serve, promote what is good, stop what is bad."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from demo.environment import Cluster
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import GOOD_ENOUGH, ModelDeployment, Status, decisions, epoch, steps
from tests.e2e.figures import Figures
from tests.e2e.installed import Operator
from tests.e2e.traffic import Traffic

RPS = 90
ENOUGH_FOR_STABLE = 300
WEIGHTS = (1, 10, 50)
MOST_STANDARD_DEVIATIONS = 4


@dataclass(frozen=True)
class Promotion:
    """What a rollout went through: when each weight was seen serving, and until when."""

    record: dict[str, Any]
    windows: dict[int, tuple[float, float]]


@pytest.fixture(scope="module")
def digits(new_model_deployment: NewModelDeployment) -> Iterator[ModelDeployment]:
    mdep = new_model_deployment("digits")
    [latency] = [metric for metric in mdep.spec["analysis"]["metrics"] if metric["name"] == "latency"]
    latency["slowerThan"] = "250ms"  # which the slow model always is
    yield mdep
    mdep.delete(wait=False)


@pytest.fixture(scope="module")
def first_apply(digits: ModelDeployment) -> float:
    """Seconds from the first apply to serving."""
    started = time.monotonic()
    generation = digits.serve("first")
    digits.wait_serving(generation)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def traffic(cluster: Cluster, digits: ModelDeployment, figures: Figures, first_apply: float) -> Iterator[Traffic]:
    """Steady from the moment that the first model serves until the last rollout is over."""
    traffic = Traffic(cluster, digits.namespace, digits.name, figures)
    traffic.start(RPS)
    traffic.wait_for(ENOUGH_FOR_STABLE)
    yield traffic
    traffic.stop()


@pytest.fixture(scope="module")
def promotion(digits: ModelDeployment, traffic: Traffic, operator: Operator, figures: Figures) -> Promotion:
    """The better model takes over, in three steps."""
    before = operator.api_calls()
    digits.apply(rollout={"steps": steps((WEIGHTS[0], 20), (WEIGHTS[1], 12), (WEIGHTS[2], 10))})
    digits.serve("better")
    record = digits.wait_decision("Promoted")
    digits.wait_serving()
    figures.seconds_per_rollout["better, steps of 42 s"] = epoch(record["time"]) - digits.applied_at
    figures.calls_per_rollout["better, 3 steps"] = dict(operator.api_calls() - before)

    states: list[Status] = [state["status"] for state in digits.watch.states(digits.name) if "status" in state]
    began = {
        status["weight"]: epoch(status["rollout"]["stepStartedAt"])
        for status in states
        if "stepStartedAt" in status.get("rollout", {})
    }
    ended = [epoch(one["time"]) for one in decisions(digits.status)][2:]
    return Promotion(record, {w: (began[w], end) for w, end in zip(WEIGHTS, ended, strict=True)})


def test_the_first_apply_serves_within_a_minute(first_apply: float, figures: Figures) -> None:
    figures.apply_to_serving.append(first_apply)
    assert first_apply < 60


def test_a_better_model_is_promoted_through_its_steps(
    digits: ModelDeployment, traffic: Traffic, promotion: Promotion
) -> None:
    assert promotion.record["reason"] == "NonInferior"
    assert [metric["name"] for metric in promotion.record["metrics"]] == ["errors", "latency", "accuracy"]
    assert all(metric["verdict"] in GOOD_ENOUGH for metric in promotion.record["metrics"])
    path = [(one["decision"], one["weight"]) for one in decisions(digits.status)]
    assert path == [("Started", 0), *(("Advanced", weight) for weight in WEIGHTS), ("Promoted", 100)]
    stable = digits.status["stable"]
    assert (stable["version"], stable["revision"]) == ("better", promotion.record["toRevision"])
    assert traffic.stats()["failed"] == 0


@pytest.mark.parametrize("weight", WEIGHTS)
def test_clients_see_the_split_that_a_step_asks_for(
    digits: ModelDeployment, traffic: Traffic, promotion: Promotion, figures: Figures, weight: int
) -> None:
    answers = traffic.between(*promotion.windows[weight])
    assert set(answers) == {promotion.record["fromRevision"], promotion.record["toRevision"]}
    canary, total = answers[promotion.record["toRevision"]], sum(answers.values())
    expected = total * weight / 100
    deviations = (canary - expected) / math.sqrt(expected * (1 - weight / 100))
    figures.split[f"{weight} %"] = f"{canary} of {total} ({100 * canary / total:.2f} %), {deviations:+.1f} sigma"
    assert total > 500
    assert abs(deviations) <= MOST_STANDARD_DEVIATIONS


@pytest.mark.parametrize(
    ("model", "version", "metric", "reason", "weights"),
    [
        ("harmful", "harmful", "accuracy", "LessAccurate", steps((10, 3), (50, 60))),
        ("harmful", "harmful-at-half", "accuracy", "LessAccurate", steps((50, 60))),
        ("harmful", "harmful-at-most", "accuracy", "LessAccurate", steps((80, 60))),
        ("erroring", "erroring", "errors", "MoreErrors", steps((10, 3), (50, 60))),
        ("slow", "slow", "latency", "Slower", steps((1, 3), (2, 60))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_model_is_rolled_back_by_the_metric_that_it_is_bad_at(
    digits: ModelDeployment,
    traffic: Traffic,
    promotion: Promotion,
    figures: Figures,
    model: str,
    version: str,
    metric: str,
    reason: str,
    weights: list[dict[str, Any]],
) -> None:
    digits.apply(rollout={"steps": weights})
    generation = digits.serve(model, version)
    record = digits.wait_decision("RolledBack")

    assert (record["reason"], record["message"].partition(":")[0]) == (reason, metric)
    verdicts = {one["name"]: one["verdict"] for one in record["metrics"]}
    assert verdicts[metric] == "Worse"
    assert all(verdict != "Worse" for name, verdict in verdicts.items() if name != metric), verdicts
    status = digits.wait("it is rolled back", lambda s: s["phase"] == "RolledBack", 30, generation)
    assert status["rejected"]["reason"] == reason
    assert status["rejected"]["revision"] == record["fromRevision"]
    assert status["stable"]["revision"] == promotion.record["toRevision"]

    figures.seconds_per_rollout[version] = epoch(record["time"]) - digits.applied_at
    figures.verdict_to_silence[version] = traffic.silence(record)
    assert figures.verdict_to_silence[version] < 2
    assert traffic.stats()["failed"] == 0


def test_a_rejected_revision_goes_when_it_has_drained(digits: ModelDeployment, promotion: Promotion) -> None:
    digits.wait_pods_gone(digits.status["rejected"]["revision"])
    running = {item["metadata"]["name"] for item in digits.owned("deployments")}
    assert f"digits-{digits.status['rejected']['revision']}" not in running
    assert f"digits-{promotion.record['toRevision']}" in running
