"""The operator's clock is set back, or another operator takes over whose clock is behind."""

from typing import Any

import pytest
from tests.operator.decide.models import GOOD, HARMFUL, SLEEPY
from tests.operator.decide.world import World, digest, rolling, serving

HOUR = 3600.0


def turn_bad(world: World) -> None:
    world.models[digest("v2")] = HARMFUL


@pytest.mark.parametrize("back", [1.0, 20.0, HOUR])
def test_a_canary_that_turns_bad_is_found_as_soon(back: float) -> None:
    world = rolling(GOOD, rollout={"steps": [{"weight": 20, "duration": "1h"}]})
    world.run(20)
    turn_bad(world)
    world.skew = -back
    since = world.now
    world.until("RolledBack", within=60)
    assert world.now - since < 30


def test_a_promoted_revision_that_turns_bad_is_found_as_soon() -> None:
    metrics = [{"name": "errors", "margin": 0.02}]
    rollout = {"steps": [{"weight": 20, "duration": "15s"}], "watch": "10m"}
    world = serving(rollout=rollout, analysis={"metrics": metrics}, server={"replicas": 2})
    world.apply("v2", GOOD)
    world.until("Promoted")
    world.run(20)
    turn_bad(world)
    world.skew = -HOUR
    world.until("RolledBack", within=120)


def test_evidence_goes_on_being_written() -> None:
    world = rolling(GOOD, rollout={"steps": [{"weight": 20, "duration": "1h"}]})
    world.skew = -HOUR
    before = len(world.statuses)
    world.run(60)
    assert len(world.statuses) >= before + 5


@pytest.mark.parametrize(
    "waiting", [{"analysis": {"calibration": "2m"}}, {"rollout": {"mode": "Adaptive", "exposureBudget": 1000}}]
)
def test_what_comes_before_the_first_step_does_not_wait_for_the_old_time(waiting: dict[str, Any]) -> None:
    world = serving(**waiting)
    world.apply("v2", GOOD)
    world.until_activity("Calibrating")
    world.skew = -HOUR
    world.until("Advanced", within=200)


@pytest.mark.parametrize("strategy", ["Canary", "Recreate"])
def test_what_never_gets_ready_is_not_waited_for_any_longer(strategy: str) -> None:
    world = serving(rollout={"strategy": strategy}, server={"readyTimeout": "2m"})
    world.apply("v2", SLEEPY)
    world.until_activity("StartingCanary" if strategy == "Canary" else "BringingUp")
    world.run(60)
    since = world.now
    world.skew = -HOUR
    world.run(150)
    assert world.status.rejected is not None
    assert world.status.rejected.reason == "NotReady"
    assert world.now - since <= 151


def test_pods_of_the_old_revision_that_never_come_are_not_waited_for_any_longer() -> None:
    metrics = [{"name": "errors", "margin": 0.02}]
    rollout = {"steps": [{"weight": 20, "duration": "15s"}], "watch": "2h"}
    world = serving(rollout=rollout, analysis={"metrics": metrics}, server={"replicas": 4, "readyTimeout": "2m"})
    world.apply("v2", GOOD)
    world.until("Promoted")
    world.start_seconds = float("inf")
    world.restart_pods(world.revision("v1"), 2)
    turn_bad(world)
    world.until_activity("PreviousNotReady", within=60)
    world.skew = -HOUR
    world.until("RolledBack", within=150)
