"""What holds a rollout up, and that it goes on by itself: pauses, too little traffic, blindness, routers and pods."""

import pytest
from tests.operator.decide.models import HARMFUL
from tests.operator.decide.world import Crash, digest, rolling, serving

from serin_operator.api.status import Phase

ERRORS_ONLY = [{"name": "errors", "margin": 0.05}]


# --- holds


def test_a_pause_before_the_first_step_moves_no_traffic() -> None:
    world = serving()
    world.apply("v2", rollout={"paused": True})
    assert world.until_activity("Paused") == "Paused before the first step, until rollout.paused is false."
    world.run(200)
    assert (world.status.phase, world.status.weight) == (Phase.PAUSED, 0)
    world.change(rollout={"paused": False})
    world.metrics = False
    world.run(30)
    assert (world.status.phase, world.activity) == (Phase.PROGRESSING, "CannotSee")
    world.metrics = True
    world.until("Promoted")


def test_a_pause_holds_the_weight_and_ends() -> None:
    world = rolling(step=1)
    world.change(rollout={"paused": True})
    world.run(400)
    assert (world.status.phase, world.status.weight) == (Phase.PAUSED, 25)
    world.change(rollout={"paused": False})
    world.until("Promoted")


def test_a_pause_says_how_it_ends_and_what_waits_for_that() -> None:
    world = rolling(step=1)
    world.change(rollout={"paused": True})
    world.run(10)
    assert world.told == "Step 2 of 3 at 25 %: paused, until rollout.paused is false."
    world.ask_promote("1")
    world.run(10)
    assert world.told == (
        "Step 2 of 3 at 25 %: paused, until rollout.paused is false. What somebody promoted by hand waits for that too."
    )
    world.change(rollout={"paused": False})
    assert world.until("Advanced").reason == "ByHand"


def test_the_step_goes_on_after_a_pause_where_it_was() -> None:
    world = rolling(step=1, rollout={"steps": [{"weight": weight, "duration": "60s"} for weight in (5, 25, 50)]})
    world.run(20)
    world.change(rollout={"paused": True})
    world.run(400)
    world.change(rollout={"paused": False})
    resumed = world.now
    assert 60 - 30 <= world.until("Advanced").time - resumed <= 60 - 15


def test_a_pause_is_no_part_of_max_duration() -> None:
    hard = [{"name": "errors", "margin": 0.0001}]
    world = rolling(rollout={"maxDuration": "10m", "onInconclusive": "Rollback"}, analysis={"metrics": hard})
    begun = next(record.time for record in reversed(world.records) if record.decision == "Started")
    for _ in range(3):
        world.run(60)
        world.change(rollout={"paused": True})
        world.run(1000)
        assert world.activity == "Paused"
        world.change(rollout={"paused": False})
    assert 3600 <= world.until("RolledBack").time - begun <= 3620


def test_a_step_that_is_seen_serving_only_in_a_pause_begins_with_its_end() -> None:
    world = serving()
    world.routers = False
    world.apply("v2")
    world.routers = True
    world.until("Advanced")
    world.routers = False
    world.change(rollout={"paused": True})
    world.look()
    world.routers = True
    world.run(300)
    assert world.activity == "Paused"
    world.change(rollout={"paused": False})
    resumed = world.now
    assert 60 <= world.until("Advanced").time - resumed <= 70


def test_a_crash_in_a_pause_changes_no_clock() -> None:
    world = rolling(step=1)
    world.change(rollout={"paused": True})
    world.run(100)
    world.step(crash=Crash.BEFORE_WRITE)
    world.run(100)
    world.change(rollout={"paused": False})
    resumed = world.now
    assert world.until("Advanced").time - resumed >= 40


def test_a_pause_does_not_keep_a_bad_canary() -> None:
    world = rolling(step=1)
    world.change(rollout={"paused": True})
    world.look()
    world.models[digest("v2")] = HARMFUL
    world.until("RolledBack")


@pytest.mark.parametrize(("policy", "decision"), [("Hold", None), ("Rollback", "RolledBack")])
def test_the_end_of_max_duration_never_promotes(policy: str, decision: str | None) -> None:
    hard = [{"name": "errors", "margin": 0.0001}]
    world = serving(rollout={"maxDuration": "10m", "onInconclusive": policy}, analysis={"metrics": hard})
    world.apply("v2")
    started = world.until("Started")
    if decision:
        record = world.until(decision)
        assert record.reason == "Inconclusive"
        assert 600 <= record.time - started.time <= 610
        assert world.status.rejected and world.status.rejected.reason == "Inconclusive"
    else:
        world.until_activity("Inconclusive")
        world.run(400)
        assert world.activity == "Inconclusive"
        assert world.status.weight == 50
    assert "Promoted" not in world.decisions


def test_a_verdict_after_max_duration_still_counts_when_it_is_worse() -> None:
    world = serving(rollout={"maxDuration": "10m"}, analysis={"metrics": [{"name": "errors", "margin": 0.0001}]})
    world.apply("v2")
    world.until_activity("Inconclusive")
    world.models[digest("v2")] = HARMFUL
    world.until("RolledBack")


def test_without_traffic_it_holds_for_ever() -> None:
    world = serving()
    world.traffic = 0.0
    world.apply("v2")
    world.until_activity("NoTraffic")
    world.run(600)
    assert (world.status.weight, world.activity) == (5, "NoTraffic")
    world.traffic = 100.0
    world.until("Promoted")


def test_labels_are_not_missed_before_their_time() -> None:
    metrics = [*ERRORS_ONLY, {"name": "accuracy", "margin": 0.05}]
    world = serving(analysis={"metrics": metrics, "labelWindow": "5m"})
    world.apply("v2")
    world.until("Advanced")
    world.run(290)
    assert (world.status.weight, world.activity) == (5, "Evaluating")
    world.until("Promoted")
    assert all(
        each.after.condition("Reconciling") is None or "NoTraffic" not in str(each.after.conditions)
        for each in world.passes
    )


def test_without_labels_accuracy_holds_it() -> None:
    world = serving(analysis={"metrics": [*ERRORS_ONLY, {"name": "accuracy", "margin": 0.05}]})
    world.labelled = 0.0
    world.apply("v2")
    world.run(200)
    assert world.told.endswith("no canary data at this step for accuracy.")
    assert world.status.weight == 5
    world.labelled = 0.5
    world.until("Promoted")


def test_blind_from_the_start_no_traffic_moves() -> None:
    world = serving()
    world.metrics = False
    world.apply("v2")
    world.until_activity("CannotSee")
    world.run(200)
    assert world.status.weight == 0
    world.metrics = True
    world.until("Promoted")


def test_blind_midway_it_holds_and_goes_on_by_itself() -> None:
    world = rolling(step=1)
    world.metrics = False
    world.until_activity("CannotSee", within=10)
    world.run(400)
    assert (world.status.weight, world.status.phase) == (25, Phase.PROGRESSING)
    seen = world.status.condition("MetricsAvailable")
    assert seen and (seen.status, seen.reason) == ("False", "CannotSee")
    world.metrics = True
    world.until("Promoted", within=600)


def test_blindness_also_holds_in_passes_between_two_looks() -> None:
    """Pod events wake the operator more often than it reads counters; the last reading is what it then knows."""
    world = rolling(step=1)
    world.metrics = False
    world.until_activity("CannotSee", within=10)
    world.run(300, most=1.0)
    assert (world.status.weight, world.activity) == (25, "CannotSee")
    assert world.status.rollout and world.status.rollout.step == 1


def test_counting_starts_when_every_pod_has_given_its_base() -> None:
    world = serving(server={"replicas": 2})
    world.pods[world.revision("v1")][0].read = False
    world.apply("v2")
    assert "no counters from" in world.until_activity("CannotSee")
    world.run(60)
    assert world.status.weight == 0
    world.pods[world.revision("v1")][0].read = True
    world.until("Promoted")


def test_no_step_counts_until_its_weight_is_seen_serving() -> None:
    world = serving()
    world.apply("v2")
    world.until("Advanced")
    world.routers = False
    world.run(60)
    assert world.activity == "VerifyingRoute"
    rollout = world.status.rollout
    assert rollout and (rollout.step, rollout.step_started_at, rollout.verified_weight) == (0, None, 0)
    world.routers = True
    back = world.now
    world.until("Advanced")
    assert world.now - back >= 60


def test_the_canary_starts_when_the_routers_reach_it() -> None:
    world = serving()
    world.routers = False
    world.apply("v2")
    world.run(120)
    assert (world.status.weight, world.activity) == (0, "StartingCanary")
    world.routers = True
    world.until("Advanced", within=5)


def test_the_first_step_waits_for_all_pods() -> None:
    world = serving(server={"replicas": 3}, rollout={"canaryReplicas": "Full"})
    world.apply("v2")
    world.step()
    world.pods[world.revision("v2")][2].ready_at = world.now + 60
    asked = world.now
    world.until("Advanced")
    assert world.now - asked >= 60
