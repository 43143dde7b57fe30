"""Labels that follow half a minute late: two rollouts side by side, of a model that is worse and of an equal one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.deployments import GOOD_ENOUGH, ModelDeployment, decisions, epoch, steps
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 60
ENOUGH_FOR_STABLE = 300
LABELS_DELAYED = 30
LABEL_WINDOW = 60
VERIFYING = 5  # the canary's first requests come so much before its weight is seen serving
WATCH = 60
FALSE_ROLLBACK_RATE = {"worse-by-5": 0.05, "equal": 0.01}  # the second is how often its test may fail by chance
METRICS = ("errors", "latency", "accuracy")

Rollout = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def rollouts(serving: Callable[..., Any]) -> Iterator[tuple[Rollout, Rollout]]:
    """Both under way: the worse model's, the equal model's."""
    options = {"model": "better", "feedback_delay": LABELS_DELAYED}
    with serving("late-worse", RPS, **options) as worse, serving("late-equal", RPS, **options) as equal:
        for (mdep, traffic), model, weights in (
            (worse, "worse-by-5", steps((20, 80), (50, 100))),
            (equal, "equal", steps((20, 10), (50, 30))),
        ):
            traffic.wait_for(ENOUGH_FOR_STABLE)
            mdep.spec["analysis"] |= {"labelWindow": "1m", "falseRollbackRate": FALSE_ROLLBACK_RATE[model]}
            mdep.spec["rollout"] |= {"steps": weights, "watch": f"{WATCH}s"}
            mdep.serve(model)
        yield worse, equal


@pytest.fixture(scope="module")
def rolled_back(rollouts: tuple[Rollout, Rollout]) -> dict[str, Any]:
    """The record of the worse model's end."""
    (mdep, _), _ = rollouts
    return mdep.wait_decision("RolledBack", 220)


@pytest.fixture(scope="module")
def promoted(rollouts: tuple[Rollout, Rollout]) -> dict[str, Any]:
    """The record of the equal model's end."""
    _, (mdep, _) = rollouts
    return mdep.wait_decision("Promoted", 220)


def test_a_model_worse_by_5_points_is_rolled_back(
    rollouts: tuple[Rollout, Rollout], rolled_back: dict[str, Any], figures: Figures
) -> None:
    (mdep, traffic), _ = rollouts
    assert (rolled_back["reason"], rolled_back["message"].partition(":")[0]) == ("LessAccurate", "accuracy")
    verdicts = {one["name"]: one["verdict"] for one in rolled_back["metrics"]}
    assert verdicts["accuracy"] == "Worse"
    assert "Worse" not in (verdicts["errors"], verdicts["latency"])
    assert "Promoted" not in [one["decision"] for one in decisions(mdep.status)]

    stable, canary = rolled_back["toRevision"], rolled_back["fromRevision"]
    assert (mdep.status["stable"]["version"], mdep.status["stable"]["revision"]) == ("better", stable)
    assert mdep.status["rejected"]["revision"] == canary
    figures.seconds_per_rollout["worse by 5 points, labels 30 s late"] = epoch(rolled_back["time"]) - mdep.applied_at
    figures.verdict_to_silence["worse by 5 points"] = traffic.silence(rolled_back)
    figures.harm["worse by 5 points, labels 30 s late"] = traffic.harm(canary, stable)
    assert figures.verdict_to_silence["worse by 5 points"] < 2
    assert traffic.stats()["failed"] == 0


def test_no_prediction_counts_before_its_label_had_time(
    rollouts: tuple[Rollout, Rollout], rolled_back: dict[str, Any]
) -> None:
    (mdep, _), _ = rollouts
    served = [epoch(status["rollout"]["stepStartedAt"]) for status in mdep.statuses if _is_serving(status)]
    counted = [
        epoch(status["rollout"]["evidenceAt"])
        for status in mdep.statuses
        if any(one["name"] == "accuracy" and one["canary"]["trials"] for one in _reports_under_way(status))
    ]
    counted.append(epoch(rolled_back["time"]))  # often before evidence alone is written
    assert min(counted) > min(served) + LABEL_WINDOW - VERIFYING
    assert epoch(rolled_back["time"]) == max(counted)


def test_an_equal_model_is_promoted(
    rollouts: tuple[Rollout, Rollout], promoted: dict[str, Any], figures: Figures
) -> None:
    _, (mdep, traffic) = rollouts
    assert promoted["reason"] == "NonInferior"
    assert [one["name"] for one in promoted["metrics"]] == list(METRICS)
    assert all(one["verdict"] in GOOD_ENOUGH for one in promoted["metrics"])
    assert mdep.status["stable"]["revision"] == promoted["toRevision"]
    assert traffic.stats()["failed"] == 0
    figures.seconds_per_rollout["equal, labels 30 s late"] = epoch(promoted["time"]) - mdep.applied_at


@pytest.mark.parametrize("which", [0, 1], ids=["worse", "equal"])
def test_a_forecast_is_told_while_it_runs(
    rollouts: tuple[Rollout, Rollout], rolled_back: dict[str, Any], promoted: dict[str, Any], which: int
) -> None:
    mdep, _ = rollouts[which]
    under_way = [status["rollout"] for status in mdep.statuses if "rollout" in status]
    forecasts = [rollout["forecast"] for rollout in under_way if "forecast" in rollout]
    assert forecasts
    assert all(forecast["message"] for forecast in forecasts)
    known = [forecast for forecast in forecasts if "minutes" in forecast]
    assert any(forecast["minutes"] > 0 for forecast in known)
    assert all(forecast["limitedBy"] in METRICS for forecast in known if forecast["minutes"] > 0)


def test_the_watch_after_the_promotion_of_an_equal_model_ends_quietly(
    rollouts: tuple[Rollout, Rollout], promoted: dict[str, Any]
) -> None:
    _, (mdep, traffic) = rollouts
    watch = next(status["watch"] for status in mdep.statuses if "watch" in status)
    assert (watch["revision"], watch["against"]) == (promoted["toRevision"], promoted["fromRevision"])
    assert epoch(watch["until"]) - epoch(promoted["time"]) == pytest.approx(WATCH, abs=1)

    status = mdep.wait("the watch is over", lambda s: "watch" not in s, WATCH + 30, mdep.generation)
    assert status["history"][0]["time"] == promoted["time"]
    assert status["stable"]["revision"] == promoted["toRevision"]
    assert traffic.stats()["failed"] == 0


def _is_serving(status: dict[str, Any]) -> bool:
    return bool(status.get("weight")) and "stepStartedAt" in status.get("rollout", {})


def _reports_under_way(status: dict[str, Any]) -> list[dict[str, Any]]:
    return status.get("metrics", []) if "rollout" in status else []
