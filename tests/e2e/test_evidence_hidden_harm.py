"""Harm that a rollout's beginning or the overall accuracy does not show.

Two rollouts side by side. In one, nines begin to come after half of the ramp, and the canary never learned them. In
the other, nines are rare: the canary misses half of them, with an accuracy like the stable model's.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from demo.models import RARE
from tests.e2e.deployments import ModelDeployment, epoch, steps
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 80
ENOUGH_FOR_STABLE = 300
WEIGHTS = (10, 25, 50, 75)
HALF = 50
SOME_NINES, MANY_NINES = 0.1, 0.3
WATCH = 300

Served = tuple[ModelDeployment, Traffic]


@dataclass(frozen=True)
class Onset:
    """The end of the rollout whose harm began late; `before` is what was counted when it began, at `time`."""

    time: float
    before: dict[str, Any]
    record: dict[str, Any]


@pytest.fixture(scope="module")
def rollouts(serving: Callable[..., Any]) -> Iterator[tuple[Served, Served]]:
    """Both under way: the one without nines, the one with few."""
    without, few = {"model": "better", "shares": {RARE: 0.0}}, {"model": "first", "shares": {RARE: 0.03}}
    with serving("hidden-late", RPS, **without) as late, serving("hidden-rare", RPS, **few) as rare:
        for _, traffic in (late, rare):
            traffic.wait_for(ENOUGH_FOR_STABLE)
        mdep, _ = rare
        mdep.spec["analysis"]["metrics"] = [
            {"name": "errors", "margin": 0.03},
            {"name": "accuracy", "margin": 0.03},
            {"name": "recall-of-nines", "type": "recall", "class": str(RARE), "margin": 0.1, "role": "GuardAndGate"},
        ]
        mdep.spec["analysis"]["falseRollbackRate"] = 0.05  # of nines there are few
        mdep.spec["rollout"]["steps"] = steps((10, 3), (50, 120))
        mdep.serve("rare-recall")
        mdep, _ = late
        # Long enough at half of the ramp for the harm to begin there, whenever that is seen here.
        mdep.spec["rollout"]["steps"] = steps((10, 4), (25, 4), (HALF, 40), (75, 60))
        mdep.serve("late-harm")
        yield late, rare


@pytest.fixture(scope="module")
def onset(rollouts: tuple[Served, Served]) -> Onset:
    """Lets the harm begin after half of the ramp."""
    (mdep, traffic), _ = rollouts
    mdep.wait_weight(HALF, generation=mdep.generation)
    traffic.wait_for(3 * RPS)
    before, started = traffic.shares({RARE: SOME_NINES}), time.time()
    return Onset(started, before, mdep.wait_decision("RolledBack"))


def test_harm_that_begins_after_half_of_the_ramp_is_rolled_back(
    rollouts: tuple[Served, Served], onset: Onset, figures: Figures
) -> None:
    (mdep, traffic), _ = rollouts
    record = onset.record
    assert (record["reason"], record["message"].partition(":")[0]) == ("LessAccurate", "accuracy")
    assert epoch(record["time"]) > onset.time
    served = {status["weight"] for status in mdep.statuses if "rollout" in status}
    assert {0, 10, 25, HALF} <= served <= {0, *WEIGHTS}
    assert mdep.status["stable"]["revision"] == record["toRevision"]

    figures.seconds_per_rollout["late harm, since it began"] = epoch(record["time"]) - onset.time
    figures.verdict_to_silence["late harm"] = traffic.silence(record)
    figures.harm["late harm"] = traffic.harm(record["fromRevision"], record["toRevision"], onset.before)
    assert figures.verdict_to_silence["late harm"] < 2
    assert traffic.stats()["failed"] == 0


def test_nothing_was_held_against_it_before_the_harm_began(rollouts: tuple[Served, Served], onset: Onset) -> None:
    (mdep, _), _ = rollouts
    looked_at = [status for status in mdep.statuses if "evidenceAt" in status.get("rollout", {})]
    before = [status for status in looked_at if epoch(status["rollout"]["evidenceAt"]) < onset.time]
    verdicts = {one["verdict"] for status in before for one in status.get("metrics", [])}
    assert verdicts
    assert "Worse" not in verdicts


def test_worse_recall_of_a_rare_class_is_rolled_back_although_the_accuracy_is_equal(
    rollouts: tuple[Served, Served], figures: Figures
) -> None:
    _, (mdep, traffic) = rollouts
    record = mdep.wait_decision("RolledBack", 180)
    assert (record["reason"], record["message"].partition(":")[0]) == ("LowerRecall", "recall-of-nines")
    verdicts = {one["name"]: one["verdict"] for one in record["metrics"]}
    assert verdicts["recall-of-nines"] == "Worse"
    assert "Worse" not in (verdicts["errors"], verdicts["accuracy"])
    assert mdep.status["stable"]["revision"] == record["toRevision"]

    figures.seconds_per_rollout["worse recall of a rare class"] = epoch(record["time"]) - mdep.applied_at
    figures.verdict_to_silence["worse recall"] = traffic.silence(record)
    recall = next(one for one in record["metrics"] if one["name"] == "recall-of-nines")
    figures.harm["worse recall of a rare class (its labelled rows)"] = recall["difference"] * recall["canary"]["trials"]
    assert figures.verdict_to_silence["worse recall"] < 2
    assert traffic.stats()["failed"] == 0


def test_harm_that_begins_after_the_promotion_is_rolled_back_within_the_watch(
    rollouts: tuple[Served, Served], onset: Onset, figures: Figures
) -> None:
    (mdep, traffic), _ = rollouts
    stable = mdep.status["stable"]["revision"]
    traffic.shares({RARE: 0.0})
    mdep.spec["rollout"] |= {"steps": steps((50, 3)), "watch": f"{WATCH}s"}
    mdep.serve("late-harm", "late-harm-after-promotion")
    promoted = mdep.wait_decision("Promoted")
    watch = mdep.wait("it is watched", lambda s: "watch" in s, 30, mdep.generation)["watch"]
    assert (watch["revision"], watch["against"]) == (promoted["toRevision"], stable)
    traffic.wait_for(3 * RPS)

    before, started = traffic.shares({RARE: MANY_NINES}), time.time()
    record = mdep.wait_decision("RolledBack", since=epoch(promoted["time"]))
    assert record["reason"] == "LessAccurate"
    assert record["message"].startswith("After promotion: accuracy")
    assert (record["fromRevision"], record["toRevision"]) == (promoted["toRevision"], stable)
    assert started < epoch(record["time"]) < epoch(watch["until"])
    status = mdep.wait("it is rolled back", lambda s: s["phase"] == "RolledBack", 30, mdep.generation)
    assert (status["stable"]["revision"], status["rejected"]["revision"]) == (stable, promoted["toRevision"])
    assert "watch" not in status

    figures.seconds_per_rollout["harm after the promotion, since it began"] = epoch(record["time"]) - started
    figures.verdict_to_silence["harm after the promotion"] = traffic.silence(record)
    figures.harm["harm after the promotion"] = traffic.harm(record["fromRevision"], stable, before)
    assert figures.verdict_to_silence["harm after the promotion"] < 2
    assert traffic.stats()["failed"] == 0
