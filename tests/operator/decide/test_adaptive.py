"""Rollouts in mode Adaptive: the weight rises with the evidence, and the harm that is done stays within the budget."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.operator.decide.models import GOOD, Model
from tests.operator.decide.world import Crash, World, digest, serving

from serin_operator.api.status import Phase, Record
from serin_operator.decide.observed import Route

ERRORS = [{"name": "errors", "margin": 0.02}]


def adaptive(model: Model = GOOD, traffic: float = 100.0, **rollout: Any) -> World:
    """v1 serves so much traffic, and v2 was just asked for, to be rolled out by the evidence."""
    metrics = rollout.pop("metrics", ERRORS)
    analysis = {"metrics": metrics, **rollout.pop("analysis", {})}
    ramp = {"mode": "Adaptive", "exposureBudget": 100, "maxWeight": 50, "watch": "0s"}
    world = serving(rollout=ramp | rollout, analysis=analysis)
    world.traffic = traffic
    world.apply("v2", model)
    return world


def weights(world: World) -> list[int]:
    return [record.weight for record in world.records if record.decision in ("Advanced", "Reduced")]


def run(world: World, seconds: float = 600.0) -> Record | None:
    """Runs until the rollout is decided, or so long."""
    end = world.now + seconds
    while world.now < end:
        for record in world.step().news:
            if record.decision in ("Promoted", "RolledBack"):
                return record
    return None


def harm(world: World, version: str = "v2") -> float:
    """How many more requests than stable would have failed have failed, so far."""
    excess = world.models[digest(version)].errors - world.models[digest("v1")].errors
    return excess * world.served.get(world.revision(version), 0)


def test_a_good_canary_rises_with_the_evidence_and_is_promoted_when_it_suffices() -> None:
    world = adaptive()
    promoted = world.until("Promoted", within=60)
    assert weights(world) == [10, 30, 50]
    assert promoted.metrics[0].odds_non_inferior >= 20
    started, *advanced = [record for record in world.records[2:] if record.decision in ("Started", "Advanced")]
    assert "as fast as the evidence" in started.message
    assert [record.reason for record in advanced] == ["CanaryReady", "WithinBudget", "WithinBudget"]
    assert [record.step for record in advanced] == [0, 1, 2]
    assert "of at most 100 harmed requests" in advanced[-1].message


def test_it_is_sooner_than_the_usual_steps_and_harms_less() -> None:
    def outcome(mode: str, model: Model) -> tuple[float, float]:
        world = adaptive(model, mode=mode)
        begun = world.now
        assert run(world)
        return world.now - begun, harm(world)

    good, bad = GOOD, Model(errors=0.5)
    assert outcome("Adaptive", good)[0] < outcome("Steps", good)[0] / 5
    assert outcome("Adaptive", bad)[1] <= 100


@pytest.mark.parametrize("traffic", [1.0, 10.0, 100.0, 1000.0])
def test_a_usual_ramp_has_few_raises(traffic: float) -> None:
    world = adaptive(traffic=traffic)
    record = run(world, 1200)
    assert record and record.decision == "Promoted"
    assert len(weights(world)) <= 8
    assert weights(world) == sorted(weights(world))


@pytest.mark.simulation
@given(
    errors=st.floats(0.01, 1.0),
    traffic=st.sampled_from([1.0, 7.0, 30.0, 100.0, 400.0, 1000.0, 5000.0]),
    budget=st.sampled_from([1, 10, 50, 100, 1000]),
    interval=st.sampled_from(["2s", "5s", "15s"]),
    margin=st.sampled_from([0.001, 0.02]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_harm_stays_within_the_budget(
    errors: float, traffic: float, budget: int, interval: str, margin: float
) -> None:
    metrics = [{"name": "errors", "margin": margin}]
    world = adaptive(
        Model(errors=errors), traffic, exposureBudget=budget, metrics=metrics, analysis={"interval": interval}
    )
    run(world, 150)
    assert harm(world) <= budget


@pytest.mark.simulation
@given(blind=st.integers(2, 60), traffic=st.sampled_from([30.0, 300.0]), errors=st.sampled_from([0.02, 0.05, 1.0]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_harm_stays_within_the_budget_while_nothing_can_be_seen(blind: int, traffic: float, errors: float) -> None:
    world = adaptive(Model(errors=errors), traffic, metrics=[{"name": "errors", "margin": 0.001}])
    world.run(blind)
    world.metrics = False
    world.run(600)
    assert harm(world) <= 100
    assert world.activity in ("CannotSee", "Calibrating", "MoreErrors")


@pytest.mark.simulation
@pytest.mark.parametrize("wrong", [0.05, 0.08, 0.2, 1.0])
@pytest.mark.parametrize("traffic", [10.0, 100.0])
@pytest.mark.parametrize("window", ["10s", "1m"])
def test_the_harm_stays_within_the_budget_while_labels_are_late(wrong: float, traffic: float, window: str) -> None:
    metrics = [{"name": "accuracy", "margin": 0.05}]
    world = adaptive(Model(accuracy=wrong), traffic, metrics=metrics, analysis={"labelWindow": window})
    record = run(world, 900)
    assert (wrong - 0.05) * world.served[world.revision("v2")] <= 100
    assert record is None or (record.decision == "Promoted") == (wrong == 0.05)


def test_blindness_takes_traffic_away_before_it_can_do_more_harm_than_agreed() -> None:
    world = adaptive(metrics=[{"name": "errors", "margin": 0.0005}])
    world.run(60)
    assert world.status.weight == 50
    world.metrics = False
    reduced = world.until("Reduced")
    assert (reduced.reason, reduced.weight < 50) == ("ExposureBudget", True)
    world.run(1000)
    assert (world.status.weight, world.activity) == (0, "CannotSee")
    assert world.live and world.live.route == Route(world.revision("v1"))
    world.metrics = True
    assert world.until("Advanced", within=10).weight > 0


def test_the_weight_waits_for_a_request_to_the_canary() -> None:
    world = adaptive(traffic=0.5)
    world.until("Advanced")
    world.run(17)
    assert (weights(world), world.served[world.revision("v2")]) == ([10], 0)
    world.run(60)
    assert max(weights(world)) == 50


def test_without_traffic_it_holds() -> None:
    world = adaptive(traffic=0.0)
    assert "no canary data" in world.until_activity("NoTraffic", within=60)
    assert weights(world) == [1]
    world.traffic = 100.0
    world.until("Promoted")


def test_without_labels_it_holds_and_says_what_is_missing() -> None:
    world = adaptive(metrics=[*ERRORS, {"name": "accuracy", "margin": 0.02}], exposureBudget=10_000)
    world.labelled = 0.0
    assert world.until_activity("NoTraffic", within=120).endswith("for accuracy.")
    world.labelled = 0.5
    world.until("Promoted")


def spent(on_inconclusive: str) -> World:
    """A margin that no budget like this can show."""
    return adaptive(exposureBudget=10, metrics=[{"name": "errors", "margin": 0.0001}], onInconclusive=on_inconclusive)


def test_a_spent_budget_holds_without_traffic() -> None:
    world = spent("Hold")
    world.run(300)
    had = world.served[world.revision("v2")]
    world.run(600)
    assert (world.status.weight, world.status.phase, world.activity) == (0, Phase.PROGRESSING, "ExposureSpent")
    assert "10 harmed requests" in world.told
    assert world.live and world.live.route == Route(world.revision("v1"))
    assert world.served[world.revision("v2")] == had
    assert [record.reason for record in world.records if record.decision == "Reduced"][-1] == "ExposureSpent"
    world.change(rollout={"exposureBudget": 10_000})
    assert world.until("Advanced").weight > 0


def test_a_spent_budget_rolls_back_if_the_user_wants_it() -> None:
    world = spent("Rollback")
    record = world.until("RolledBack")
    assert record.reason == "ExposureSpent"
    assert world.status.rejected and world.status.rejected.reason == "ExposureSpent"


def test_late_labels_free_the_budget_again() -> None:
    metrics = [{"name": "accuracy", "margin": 0.05}]
    world = adaptive(metrics=metrics, onInconclusive="Rollback", analysis={"labelWindow": "1m"})
    world.labelled = 0.0
    while world.status.weight or not world.served.get(world.revision("v2")):
        world.step()
    assert "accuracy has no data" in world.told or world.activity == "VerifyingRoute"
    world.run(30)
    assert world.decisions[-1] == "Reduced"
    world.labelled = 1.0
    world.until("Promoted", within=900)


def test_more_traffic_than_one_per_cent_of_the_budget_never_starts() -> None:
    world = adaptive(traffic=5000.0)
    text = world.until_activity("ExposureSpent")
    assert "raise it" in text
    world.run(60)
    assert (world.status.weight, weights(world)) == (0, [])
    world.change(rollout={"exposureBudget": 1000})
    world.until("Promoted", within=60)


def test_a_lower_maximum_takes_traffic_away_at_once() -> None:
    world = adaptive(metrics=[{"name": "errors", "margin": 0.0005}])
    world.run(60)
    assert world.status.weight == 50
    world.change(rollout={"maxWeight": 20})
    assert world.until("Reduced", within=10).weight == 20
    world.run(30)
    assert world.status.weight == 20


def test_a_pause_keeps_the_weight_but_not_beyond_the_budget() -> None:
    world = adaptive(metrics=[{"name": "errors", "margin": 0.0005}])
    world.run(30)
    paused_at = world.status.weight
    world.change(rollout={"paused": True})
    world.run(600)
    assert (world.status.phase, world.activity) == (Phase.PAUSED, "Paused")
    assert world.status.weight <= paused_at
    assert max(weights(world)) == paused_at


def test_going_over_to_steps_and_back_under_way() -> None:
    world = adaptive(metrics=[{"name": "errors", "margin": 0.0005}])
    world.run(30)
    world.change(rollout={"mode": "Steps", "steps": [{"weight": weight, "duration": "20s"} for weight in (60, 70)]})
    world.run(60)
    assert world.activity == "GatheringEvidence"
    world.change(rollout={"mode": "Adaptive"})
    world.run(10)
    assert world.status.weight <= 50
    assert world.status.rollout
    world.change(analysis={"metrics": [{"name": "errors", "margin": 0.05}]})
    world.until("Promoted")


def test_a_promotion_at_once_after_a_change_of_the_metrics_tells_of_those_that_count() -> None:
    world = adaptive(metrics=[*ERRORS, {"name": "accuracy", "margin": 0.0001}], exposureBudget=10_000)
    world.run(60)
    world.change(analysis={"metrics": ERRORS})
    this = world.look()
    assert [record.decision for record in this.news] == ["Promoted"]
    assert [report.name for report in this.news[0].metrics] == ["errors"]


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
def test_a_crash_at_any_pass_neither_raises_nor_harms_more(where: Crash) -> None:
    for crash_at in range(0, 25, 2):
        world = adaptive(Model(errors=0.06))
        for index in range(60):
            world.step(most=5.0, crash=where if index == crash_at else None)
        assert world.status.history[0].decision == "RolledBack"
        assert harm(world) <= 100
        assert world.live and world.live.route == Route(world.revision("v1"))
