"""Before the first step and on the way: calibration, forecasts, remarks, and holds that ask for a person."""

from typing import Any

import pytest
from tests.operator.decide.models import GOOD, Model
from tests.operator.decide.world import Crash, World, serving
from tests.operator.definition import status_problems

from serin_operator.api.status import Phase, dump_status

ERRORS = {"name": "errors", "margin": 0.02}


def asked(metric: dict[str, Any] = ERRORS, model: Model = GOOD, stable: Model = GOOD, **changes: Any) -> World:
    """v1 serves, and v2 was just asked for."""
    changes["analysis"] = {"metrics": [metric], **changes.get("analysis", {})}
    world = serving("v1", stable, **changes)
    world.apply("v2", model)
    return world


def remarks(world: World) -> dict[str, str]:
    rollout = world.status.rollout
    return {remark.reason: remark.message for remark in rollout.remarks} if rollout else {}


# --- calibration


@pytest.mark.parametrize("start_seconds", [3.0, 150.0])
def test_calibration_delays_the_first_step_unless_the_canary_takes_longer(start_seconds: float) -> None:
    world = serving(analysis={"metrics": [ERRORS], "calibration": "2m"})
    world.start_seconds = start_seconds
    world.apply("v2")
    begun = world.until("Started").time
    first = world.until("Advanced").time
    assert max(120, start_seconds) <= first - begun <= max(120, start_seconds) + 8
    looks = [each.time for each in world.passes if each.observed.snapshot is not None and begun <= each.time < first]
    assert len(looks) >= 120 / 5
    if start_seconds < 120:
        assert len(looks) <= 120 / 5 + 2


def test_while_it_calibrates_no_traffic_moves_and_the_status_says_so() -> None:
    world = asked(analysis={"calibration": "2m"})
    assert "v1" in world.until_activity("Calibrating")
    world.run(60)
    assert (world.activity, world.status.weight, world.status.phase) == ("Calibrating", 0, Phase.PROGRESSING)


def test_without_calibration_nothing_is_delayed() -> None:
    world = asked()
    begun = world.until("Started").time
    assert world.until("Advanced").time - begun == pytest.approx(world.start_seconds, abs=1.5)


def test_time_in_which_nothing_could_be_seen_is_no_calibration() -> None:
    world = asked(analysis={"calibration": "2m"})
    world.run(30)
    world.metrics = False
    world.until_activity("CannotSee", within=15)
    world.run(120)
    assert world.activity == "CannotSee"
    world.metrics = True
    world.until("Advanced")


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
def test_a_crash_while_it_calibrates_costs_some_looks_at_most(where: Crash) -> None:
    world = asked(analysis={"calibration": "2m"})
    begun = world.until("Started").time
    world.run(70)
    world.step(crash=where)
    assert world.until("Advanced").time - begun < 120 + 70


def test_a_calibration_of_another_version_begins_anew() -> None:
    world = asked(analysis={"calibration": "1m"})
    world.until_activity("Calibrating")
    assert world.status.rollout
    object.__setattr__(world.status.rollout, "evidence", '{"layout":0}')
    world.until("Advanced", within=90)
    world.until("Promoted")


# --- forecast


def test_the_forecast_is_there_before_the_first_request_and_follows_the_evidence() -> None:
    world = asked(analysis={"calibration": "1m"})
    world.until_activity("Calibrating")
    world.run(30)
    assert world.status.rollout and world.status.rollout.step is None
    before = world.status.rollout.forecast
    assert before and before.minutes is not None and before.per_minute == pytest.approx(6000, rel=0.05)
    world.run(120)
    assert world.status.rollout
    later = world.status.rollout.forecast
    assert later and later.minutes is not None and later.minutes < before.minutes
    assert later.limited_by == "errors" and later.detectable is not None
    assert status_problems(dump_status(world.status)) == []


def test_a_forecast_alone_is_no_reason_to_write() -> None:
    world = asked(analysis={"calibration": "10m"})
    world.until_activity("Calibrating")
    written = len(world.statuses)
    world.run(300)
    assert len(world.statuses) - written <= 300 / 60 + 1


@pytest.mark.parametrize("mode", ["Steps", "Adaptive"])
def test_who_can_not_decide_in_time_is_told_once(mode: str) -> None:
    hard = {"name": "errors", "margin": 0.0002}
    budget = {"mode": mode, "exposureBudget": 10_000, "maxDuration": "10m"}
    world = asked(hard, rollout=budget, analysis={"calibration": "1m"})
    world.until("Advanced")
    assert "of maxDuration are left" in remarks(world)["CannotDecideInTime"]
    reasons = [tuple(remarks(world))]
    for _ in range(40):
        world.step()
        reasons.append(tuple(remarks(world)))
    assert set(reasons) == {("CannotDecideInTime",)}


def test_a_rollout_that_can_decide_in_time_is_not_warned_of() -> None:
    world = asked(rollout={"maxDuration": "10m"})
    world.until("Advanced")
    while "Promoted" not in world.decisions:
        world.step()
        assert remarks(world) == {}


# --- holds


def test_a_canary_that_does_not_get_its_share_holds() -> None:
    world = asked()
    world.lost = 0.5
    text = world.until_activity("TrafficShareMismatch", within=300)
    assert "is configured" in text
    weight = world.status.weight
    world.run(1000)
    assert (world.status.weight, world.activity) == (weight, "TrafficShareMismatch")
    assert "TrafficShareMismatch" in remarks(world)


def test_shares_that_prometheus_tells_of_are_not_tested() -> None:
    """Its samples of two pods are of other moments: at much traffic, more than chance explains."""
    world = asked(analysis={"prometheus": {"address": "http://prometheus:9090"}})
    world.lost = 0.1
    world.until("Promoted")
    assert "TrafficShareMismatch" not in remarks(world)


@pytest.mark.parametrize("mode", ["Steps", "Adaptive"])
@pytest.mark.parametrize("router_seconds", [0.3, 2.0, 20.0])
def test_changes_of_the_weight_are_no_mismatch(mode: str, router_seconds: float) -> None:
    world = asked(rollout={"mode": mode})
    world.router_seconds = router_seconds
    world.until("Promoted")
    reasons = {remark.reason for each in world.passes if each.after.rollout for remark in each.after.rollout.remarks}
    assert "TrafficShareMismatch" not in reasons


@pytest.mark.parametrize("start_seconds", [1.0, 4.0, 9.0])
def test_a_canary_that_dies_between_two_looks_is_no_mismatch(start_seconds: float) -> None:
    """Stable answers its share meanwhile, and the next look sees it ready again."""
    world = asked(rollout={"steps": [{"weight": 50, "duration": "1h"}]}, analysis={"interval": "15s"})
    world.until_activity("Evaluating")
    world.run(120)
    world.start_seconds = start_seconds
    for second in range(6):
        world.restart_pods(world.revision("v2"))
        world.run(60 + second)
    assert "TrafficShareMismatch" not in remarks(world)
    world.lost = 0.5
    world.until_activity("TrafficShareMismatch", within=600)


def test_a_canary_that_was_away_for_a_while_is_no_mismatch() -> None:
    world = asked()
    world.until_activity("Evaluating")
    world.run(20)
    world.start_seconds = 30.0
    world.restart_pods(world.revision("v2"))
    world.until("Promoted")


def test_when_both_break_a_bound_nothing_is_promoted_and_nothing_rolled_back() -> None:
    bad = Model(errors=0.05)
    world = asked({**ERRORS, "bound": 0.01}, model=bad, stable=bad)
    text = world.until_activity("StableOverBound", within=600)
    assert "both revisions break the bound of errors" in text
    world.run(1000)
    assert world.decisions[-1] == "Advanced"
    assert "StableOverBound" in remarks(world)


def test_a_canary_over_a_bound_that_stable_keeps_is_rolled_back() -> None:
    world = asked({**ERRORS, "margin": 0.9, "tolerance": 0.2, "bound": 0.04}, model=Model(errors=0.1))
    assert world.until("RolledBack", within=600).reason == "OverBound"


# --- superiority


def test_an_equal_canary_is_never_promoted_where_better_is_asked_for() -> None:
    world = asked({**ERRORS, "goal": "Superior"})
    world.until_activity("GatheringEvidence")
    world.run(3000)
    assert world.activity == "GatheringEvidence"
    assert "that it is better" in world.told
    assert "it is better" in world.status.metrics[0].needed


def test_a_better_canary_is_promoted_as_superior() -> None:
    world = asked({**ERRORS, "goal": "Superior"}, model=Model(errors=0.01), stable=Model(errors=0.05))
    record = world.until("Promoted")
    assert record.reason == "Superior"
    assert (record.metrics[0].odds_superior or 0) >= 20
