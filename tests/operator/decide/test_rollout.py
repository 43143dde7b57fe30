"""Rollouts told pass by pass in a small world: what is decided, in which order, and what holds it up."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.decide.world import (
    BROKEN,
    GOOD,
    HARMFUL,
    NAME,
    SLEEPY,
    Crash,
    Model,
    World,
    digest,
    serving,
)
from tests.operator.definition import Json, status_problems

from serin_operator.api.status import Phase, dump_status
from serin_operator.decide.observed import Resolution, Route, Trouble
from serin_operator.decide.roles import route_of
from serin_operator.decide.rollout import READY_POLL_SECONDS, Wants, decide, wants
from serin_operator.decide.transitions import DRAIN_SECONDS

ERRORS_ONLY = [{"name": "errors", "margin": 0.05}]


def rolling(model: Model = GOOD, step: int = 0, **changes: Any) -> World:
    """v1 serves, and v2 has been at this step for one look at the counters at least."""
    world = serving(**changes)
    world.apply("v2", model)
    while not (world.status.rollout and world.status.rollout.step == step and world.activity == "Evaluating"):
        world.step()
        assert "Promoted" not in world.decisions, world.decisions
    return world


# --- first apply


def test_the_first_revision_takes_over_at_once() -> None:
    world = World()
    world.apply("v1")
    first = world.step()
    assert [record.decision for record in first.news] == ["Started"]
    assert first.after.phase is Phase.PENDING
    assert [(c.type, c.status) for c in first.after.conditions] == [("Ready", "False"), ("Reconciling", "True")]
    record = world.until("Serving")
    assert record.to_revision == world.revision("v1")
    status = world.status
    assert (status.phase, status.weight, status.canary, status.rollout) == (Phase.SERVING, 0, None, None)
    assert [(c.type, c.status) for c in status.conditions] == [("Ready", "True")]
    assert route_of(status) == Route(world.revision("v1"))


def test_a_router_that_has_the_route_but_does_not_reach_the_pods_yet_is_asked_again() -> None:
    world = World()
    world.apply("v1")
    world.until("Serving")
    last = world.passes[-1]
    assert last.observed.router is not None
    unreached = replace(last.observed.router, healthy=({},))
    decision = decide(replace(last.observed, router=unreached), last.time)
    assert decision.status.phase is Phase.PENDING
    assert decision.check_at is not None
    assert decision.check_at <= last.time + READY_POLL_SECONDS


def test_serving_is_told_only_when_pods_and_route_are_seen() -> None:
    world = World(routers=False)
    world.apply("v1")
    world.run(60)
    assert world.status.phase is Phase.PENDING
    assert world.activity == "StartingRouter"
    world.routers = True
    world.until("Serving", within=5)


def test_a_first_revision_that_can_not_run_is_replaced_by_a_mended_spec() -> None:
    world = World()
    world.apply("v1", BROKEN)
    world.run(30)
    assert world.status.condition("Stalled") is not None
    assert world.activity == "MissingModule"
    assert world.status.last_failure and world.status.last_failure.exit_code == 21
    world.apply("v2")
    world.until("Serving", within=30)
    assert world.version == "v2"
    assert world.activity == ""


def test_an_idle_world_is_left_alone() -> None:
    world = serving()
    before = len(world.statuses)
    world.run(1500)
    assert len(world.statuses) == before
    assert all(
        wants(each.before, each.observed.spec, each.observed.served, each.time) == Wants(False, False)
        for each in world.passes[-3:]
    )
    assert world.passes[-1].decision.check_at is None


def test_the_status_counts_pods_and_names_them_for_autoscalers() -> None:
    world = serving(server={"replicas": 3})
    assert (world.status.replicas, world.status.ready_replicas) == (3, 3)
    wanted = f"serin.dev/model-deployment={NAME},serin.dev/component=server,serin.dev/revision={world.revision('v1')}"
    assert world.status.selector == wanted
    world.start_seconds = 30.0
    world.restart_pods(world.revision("v1"))
    world.look()
    assert world.status.ready_replicas == 0
    ready = world.status.condition("Ready")
    assert ready and (ready.status, ready.reason) == ("False", "StableNotReady")


# --- promotion


def test_a_good_canary_passes_every_step_and_is_promoted() -> None:
    world = serving()
    world.apply("v2")
    promoted = world.until("Promoted")
    assert world.decisions == ["Started", "Serving", "Started", "Advanced", "Advanced", "Advanced", "Promoted"]
    assert [record.weight for record in world.records if record.decision == "Advanced"] == [5, 25, 50]
    assert (promoted.from_revision, promoted.to_revision) == (world.revision("v1"), world.revision("v2"))
    assert promoted.step == 2
    assert all(report.odds_non_inferior >= 20 for report in promoted.metrics)
    status = world.status
    assert (status.phase, status.weight, status.canary, status.rollout) == (Phase.SERVING, 0, None, None)
    assert world.version == "v2"
    assert status.previous and status.previous.version == "v1"


def test_each_step_lasts_its_time_at_its_weight() -> None:
    world = serving(rollout={"steps": [{"weight": 10, "duration": "30s"}, {"weight": 60, "duration": "5m"}]})
    world.apply("v2")
    world.until("Promoted")
    times = {(record.decision, record.step): record.time for record in world.records}
    assert times["Advanced", 1] - times["Advanced", 0] >= 30
    assert times["Promoted", 1] - times["Advanced", 1] >= 300


def test_promotion_waits_for_every_metric() -> None:
    world = serving(analysis={"metrics": [{"name": "errors", "margin": 0.05}, {"name": "accuracy", "margin": 0.001}]})
    world.apply("v2")
    world.until_activity("GatheringEvidence")
    verdicts = {report.name: report.verdict for report in world.status.metrics}
    assert verdicts == {"errors": "NonInferior", "accuracy": "Undecided"}
    world.run(60)
    assert world.status.rollout and world.status.rollout.step == 2
    assert "a verdict takes about" in world.told


def test_the_previous_revision_stays_warm_and_is_dropped_then() -> None:
    world = serving(rollout={"keepPrevious": "120s", "watch": "0s"})
    world.apply("v2")
    promoted = world.until("Promoted")
    previous = world.status.previous
    assert previous and previous.kept_until == promoted.time + 120
    world.run(115)
    assert world.revision("v1") in world.pods
    world.run(10)
    assert world.status.previous is None
    assert set(world.pods) == {world.revision("v2")}


def test_the_previous_revision_outlives_its_time_while_a_router_may_still_use_it() -> None:
    world = serving(rollout={"keepPrevious": "1s", "watch": "0s"})
    world.apply("v2")
    world.until("Promoted")
    world.routers = False
    world.run(60)
    assert world.status.previous is not None
    world.routers = True
    world.run(5)
    assert world.status.previous is None


def test_going_back_to_the_warm_revision_is_one_change_of_the_route() -> None:
    world = serving(rollout={"keepPrevious": "120s"})
    world.apply("v2")
    world.until("Promoted")
    world.run(5)
    pods = [pod.name for pod in world.pods[world.revision("v1")]]
    world.apply("v1")
    record = world.until("Reverted", within=1)
    assert (record.from_revision, record.to_revision) == (world.revision("v2"), world.revision("v1"))
    status = world.status
    assert (world.version, status.phase, status.canary) == ("v1", Phase.SERVING, None)
    assert status.stable and status.stable.kept_until is None
    assert status.previous and status.previous.version == "v2"
    world.run(200)
    assert set(world.pods) == {world.revision("v1")}
    assert [pod.name for pod in world.pods[world.revision("v1")]] == pods


def test_going_back_before_the_promotion_is_seen_serving_takes_the_old_stable_over_as_canary() -> None:
    world = serving()
    world.apply("v2")
    world.until("Promoted")
    pods = [pod.name for pod in world.pods[world.revision("v1")]]
    world.apply("v1")
    world.until("Advanced", within=10)
    assert [pod.name for pod in world.pods[world.revision("v1")]] == pods
    assert world.status.previous is None
    world.until("Promoted")
    assert world.version == "v1"


def test_of_two_promotions_only_the_last_stable_stays_warm() -> None:
    world = serving(rollout={"keepPrevious": "1h"})
    for version in ("v2", "v3"):
        world.apply(version)
        world.until("Promoted")
    assert world.status.previous and world.status.previous.version == "v2"
    world.run(2 * DRAIN_SECONDS)
    assert set(world.pods) == {world.revision("v2"), world.revision("v3")}


# --- rollback


@pytest.mark.parametrize(
    ("model", "reason", "metric"),
    [
        (Model(errors=0.2), "MoreErrors", "errors"),
        (Model(latency=0.3), "Slower", "latency"),
        (Model(accuracy=0.3), "LessAccurate", "accuracy"),
        (Model(errors=1.0), "MoreErrors", "errors"),
        (Model(errors=1.0, latency=1.0, accuracy=1.0), None, None),
    ],
)
def test_a_worse_canary_is_rolled_back_at_the_first_step(model: Model, reason: str | None, metric: str | None) -> None:
    world = serving(
        analysis={
            "metrics": [
                {"name": "errors", "margin": 0.01},
                {"name": "latency", "margin": 0.05, "slowerThan": "250ms"},
                {"name": "accuracy", "margin": 0.02},
            ]
        }
    )
    world.apply("v2", model)
    record = world.until("RolledBack", within=120)
    assert record.step == 0
    assert reason in (None, record.reason)
    assert metric is None or record.message.startswith(f"{metric}: ")
    status = world.status
    assert (status.phase, status.weight, status.canary) == (Phase.ROLLED_BACK, 0, None)
    assert status.rejected and (status.rejected.revision, status.rejected.reason) == (
        world.revision("v2"),
        record.reason,
    )
    assert world.version == "v1"
    stalled = status.condition("Stalled")
    assert stalled and stalled.reason == record.reason
    world.run(60)
    assert set(world.pods) == {world.revision("v1")}
    assert world.live and world.live.route == Route(world.revision("v1"))


def test_a_canary_that_turns_bad_at_the_last_step_is_rolled_back_there() -> None:
    world = rolling(step=2)
    world.models[digest("v2")] = Model(errors=0.3)
    record = world.until("RolledBack", within=120)
    assert (record.step, record.from_revision) == (2, world.revision("v2"))
    assert world.status.weight == 0


def test_worse_goes_before_a_route_that_is_not_verified() -> None:
    world = serving()
    world.apply("v2", HARMFUL)
    world.until("Advanced")
    world.elapse(20)
    world.routers = False
    world.until("RolledBack", within=60)
    assert world.status.weight == 0


def test_the_draining_canary_goes_when_routers_are_seen_without_it() -> None:
    world = serving()
    world.apply("v2", HARMFUL)
    world.until("RolledBack")
    world.routers = False
    world.run(60)
    assert world.revision("v2") in world.pods
    world.routers = True
    world.run(5)
    assert world.revision("v2") not in world.pods


# --- canaries that do not run


def test_a_canary_that_can_not_run_is_rejected_at_once() -> None:
    world = serving()
    world.apply("v2", BROKEN)
    record = world.until("Rejected", within=10)
    assert record.reason == "MissingModule"
    assert world.status.last_failure and world.status.last_failure.exit_code == 21
    assert world.status.phase is Phase.ROLLED_BACK
    assert "Advanced" not in world.decisions


def test_a_canary_that_is_never_ready_is_rejected_after_its_time() -> None:
    world = serving(server={"readyTimeout": "2m"})
    world.apply("v2", SLEEPY)
    started = world.until("Started")
    record = world.until("Rejected")
    assert record.reason == "NotReady"
    assert 120 <= record.time - started.time <= 125


def test_passing_trouble_is_waited_for() -> None:
    trouble = Trouble("Unreachable", "connection refused", 10)
    world = serving()
    world.apply("v2", Model(starts=False, trouble=trouble))
    world.run(120)
    assert world.activity == "StartingCanary"
    assert "connection refused" in world.told
    assert world.status.last_failure and world.status.last_failure.reason == "Unreachable"
    assert len([1 for raw in world.statuses if raw.get("lastFailure")]) < 5
    world.models[digest("v2")] = GOOD
    for pod in world.pods[world.revision("v2")]:
        pod.ready_at = world.now + 1
    world.until("Advanced", within=10)


def test_a_canary_whose_pods_all_go_down_mid_rollout_holds_and_is_rejected_after_its_time() -> None:
    world = rolling(step=1, server={"readyTimeout": "60s"})
    world.start_seconds = float("inf")
    world.restart_pods(world.revision("v2"))
    world.run(50)
    assert (world.status.weight, world.activity) == (25, "CannotSee")
    assert world.until("RolledBack", within=30).reason == "NotReady"
    assert world.status.weight == 0


def test_a_canary_that_comes_back_in_time_goes_on() -> None:
    world = rolling(step=1, server={"readyTimeout": "60s"})
    world.start_seconds = 40.0
    world.restart_pods(world.revision("v2"))
    world.until("Promoted")
    assert "Rejected" not in world.decisions


# --- changes of mind


def test_a_newer_spec_supersedes_the_canary() -> None:
    world = rolling(step=1)
    world.apply("v3")
    this = world.look()
    assert [record.decision for record in this.news] == ["Superseded", "Started"]
    assert world.status.weight == 0
    assert world.status.canary and world.status.canary.version == "v3"
    assert [revision.version for revision in world.status.retiring] == ["v2"]
    world.until("Promoted")
    assert world.version == "v3"
    assert set(world.pods) == {world.revision("v1"), world.revision("v3")}


def test_going_back_to_stable_ends_the_rollout() -> None:
    world = rolling(step=1)
    world.apply("v1")
    world.look()
    assert [record.decision for record in world.passes[-1].news] == ["Superseded"]
    assert (world.status.phase, world.status.weight, world.status.canary) == (Phase.SERVING, 0, None)
    world.run(60)
    assert set(world.pods) == {world.revision("v1")}
    assert world.activity == ""


def test_going_to_and_fro_takes_the_draining_canary_over() -> None:
    world = rolling(step=1)
    pods = list(world.pods[world.revision("v2")])
    world.apply("v3")
    world.look()
    world.apply("v2")
    world.look()
    assert world.status.canary and world.status.canary.version == "v2"
    assert world.pods[world.revision("v2")] == pods
    world.until("Promoted")
    assert world.version == "v2"


def test_a_change_of_the_server_is_rolled_out_too() -> None:
    world = serving()
    world.change(server={"env": [{"name": "THREADS", "value": "2"}]})
    world.until("Promoted")
    assert world.status.stable and world.status.stable.config["env"] == [{"name": "THREADS", "value": "2"}]


@pytest.mark.parametrize(
    "changes",
    [
        {"server": {"replicas": 3}},
        {"server": {"readyTimeout": "10m"}},
        {"traffic": {"timeout": "5s", "router": {"replicas": 2}}},
        {"rollout": {"steps": [{"weight": 50}], "keepPrevious": "1h"}},
        {"analysis": {"falseRollbackRate": 0.01, "metrics": ERRORS_ONLY}},
        {"model": {"uri": "https://elsewhere.example.com/v1"}},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_other_changes_start_no_rollout(changes: Json) -> None:
    world = serving()
    world.change(**changes)
    world.run(200)
    assert world.decisions == ["Started", "Serving"]
    assert world.status.observed_generation == world.generation


# --- turned down, and tried again


def rejected() -> World:
    world = serving()
    world.apply("v2", HARMFUL)
    world.until("RolledBack")
    return world


def test_a_rejected_revision_is_not_tried_again() -> None:
    world = rejected()
    world.run(400)
    world.change(rollout={"steps": [{"weight": 1}]}, server={"replicas": 2})
    world.run(400)
    assert world.decisions.count("Started") == 2
    assert world.status.phase is Phase.ROLLED_BACK
    assert world.activity == "MoreErrors"


def test_a_new_retry_mark_tries_it_again() -> None:
    world = rejected()
    world.models[digest("v2")] = GOOD
    world.ask_retry("1")
    world.until("Promoted")
    assert world.version == "v2"
    assert world.status.rejected is None


def test_one_retry_mark_is_one_retry() -> None:
    world = rejected()
    world.ask_retry("1")
    world.until("RolledBack")
    world.run(400)
    assert world.decisions.count("RolledBack") == 2
    assert world.activity == "MoreErrors"


def test_taking_the_retry_mark_away_asks_for_nothing() -> None:
    world = rejected()
    world.ask_retry("1")
    world.until("RolledBack")
    world.ask_retry(None)
    world.run(200)
    assert world.decisions.count("RolledBack") == 2


def test_another_revision_is_tried_after_a_rejected_one() -> None:
    world = rejected()
    world.apply("v3")
    world.until("Promoted")
    assert world.version == "v3"
    assert world.status.rejected is None


def test_mending_the_spec_forgets_the_rejected_revision() -> None:
    world = rejected()
    world.apply("v1")
    world.look()
    assert (world.status.phase, world.status.rejected) == (Phase.SERVING, None)
    world.apply("v2", GOOD)
    world.until("Promoted")


# --- holds


def test_a_pause_before_the_first_step_moves_no_traffic() -> None:
    world = serving()
    world.apply("v2", rollout={"paused": True})
    world.until_activity("Paused")
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
    world = serving(server={"replicas": 3})
    world.apply("v2")
    world.step()
    world.pods[world.revision("v2")][2].ready_at = world.now + 60
    asked = world.now
    world.until("Advanced")
    assert world.now - asked >= 60


# --- changes while a rollout runs


def test_a_wider_margin_lets_it_pass_with_what_is_known() -> None:
    world = serving(analysis={"metrics": [{"name": "errors", "margin": 0.001}]})
    world.apply("v2")
    world.until_activity("GatheringEvidence")
    world.run(60)
    (before,) = world.status.metrics
    world.change(analysis={"metrics": [{"name": "errors", "margin": 0.1}]})
    world.until("Promoted")
    (after,) = world.records[-1].metrics
    assert after.canary.trials >= before.canary.trials
    assert world.decisions.count("Started") == 2


def test_a_metric_that_is_added_has_to_pass_as_well() -> None:
    world = rolling(step=2, analysis={"metrics": ERRORS_ONLY})
    world.change(analysis={"metrics": [*ERRORS_ONLY, {"name": "accuracy", "margin": 0.05}]})
    promoted = world.until("Promoted")
    assert [report.name for report in promoted.metrics] == ["errors", "accuracy"]
    errors, accuracy = promoted.metrics
    assert 0 < accuracy.canary.trials < errors.canary.trials
    assert accuracy.odds_non_inferior >= 20


def test_a_metric_that_is_taken_away_no_longer_holds() -> None:
    world = serving(analysis={"metrics": [*ERRORS_ONLY, {"name": "accuracy", "margin": 0.05}]})
    world.labelled = 0.0
    world.apply("v2")
    world.until_activity("NoTraffic")
    world.change(analysis={"metrics": ERRORS_ONLY})
    world.until("Promoted")


def test_another_latency_bound_counts_anew_and_does_not_wait_for_the_old_count() -> None:
    world = serving(analysis={"metrics": [{"name": "latency", "margin": 0.05, "slowerThan": "250ms"}]})
    world.apply("v2")
    while world.status.weight < 50:
        world.until("Advanced")
    world.until_activity("Evaluating")
    world.change(analysis={"metrics": [{"name": "latency", "margin": 0.05, "slowerThan": "500ms"}]})
    world.step()
    changed = world.now
    world.run(15)
    assert world.activity in ("Evaluating", "GatheringEvidence")
    world.until("Promoted")
    assert world.now - changed < 120


@pytest.mark.parametrize(
    ("steps", "weights"),
    [
        ([5, 25, 50, 75], [5, 25, 50, 75]),
        ([10, 30], [5, 25]),
        ([5], [5, 25]),
        ([5, 25, 26], [5, 25, 26]),
        ([1, 2, 3], [5, 25, 3]),
    ],
)
def test_changed_steps_hold_from_the_next_one_on(steps: list[int], weights: list[int]) -> None:
    world = rolling(step=1)
    world.change(rollout={"steps": [{"weight": weight, "duration": "60s"} for weight in steps]})
    world.until("Promoted")
    assert [record.weight for record in world.records if record.decision == "Advanced"] == weights


def test_more_replicas_midway_hold_until_they_are_ready() -> None:
    world = rolling(step=1)
    world.start_seconds = 90.0
    world.change(server={"replicas": 3})
    world.step()
    assert "pods are ready" in world.until_activity("CanaryNotReady")
    world.until("Promoted")
    (report, *_) = world.records[-1].metrics
    assert report.canary.trials <= world.served[world.revision("v2")]


# --- a model without a pinned digest


def test_the_digest_is_read_first() -> None:
    world = World(resolution=None)
    world.apply("v1")
    world.change(model={"sha256": None})
    world.run(30)
    assert all(each.decision.resolve for each in world.passes)
    assert (world.activity, world.status.stable) == ("ResolvingModel", None)
    world.resolution = Resolution(sha256=digest("v1"), size=1234)
    world.until("Serving")
    assert not world.passes[-1].decision.resolve
    assert world.status.resolved
    assert (world.status.resolved.sha256, world.status.resolved.size) == (digest("v1"), 1234)


@pytest.mark.parametrize(("permanent", "condition"), [(False, "Reconciling"), (True, "Stalled")])
def test_why_a_digest_can_not_be_read_is_told_and_outlives_the_operator(permanent: bool, condition: str) -> None:
    trouble = Trouble("NotFound", "404 from models.example.com", 11, permanent)
    world = World(resolution=Resolution(trouble=trouble))
    world.apply("v1")
    world.change(model={"sha256": None})
    world.run(10, most=1.0)
    world.step(crash=Crash.BEFORE_ACT)
    told = world.status.condition(condition)
    assert told and (told.reason, told.message) == ("ModelUnresolved", "404 from models.example.com")
    assert world.status.last_failure and world.status.last_failure.exit_code == 11
    assert status_problems(dump_status(world.status)) == []
    assert status_problems(world.statuses[-1]) == []
    world.resolution = Resolution(sha256=digest("v1"), size=1234)
    world.until("Serving")


def test_the_digest_stays_pinned_until_the_address_or_version_changes() -> None:
    world = World(resolution=Resolution(sha256=digest("v1"), size=1))
    world.apply("v1")
    world.change(model={"sha256": None})
    world.until("Serving")
    world.resolution = Resolution(sha256=digest("v2"), size=1)
    world.models[digest("v2")] = GOOD
    world.run(200)
    assert world.decisions == ["Started", "Serving"]
    world.change(model={"version": "v2"})
    world.until("Promoted")
    assert world.version == "v2"


def test_a_spec_without_digest_drops_the_canary_under_way() -> None:
    world = rolling(step=1)
    world.resolution = Resolution(sha256=digest("v3"), size=1)
    world.models[digest("v3")] = GOOD
    world.change(model={"uri": "https://models.example.com/v3", "sha256": None, "version": "v3"})
    this = world.look()
    assert [record.decision for record in this.news] == ["Superseded"]
    assert (this.after.weight, world.activity, this.decision.resolve) == (0, "ResolvingModel", True)
    world.until("Promoted")
    assert world.version == "v3"


# --- what a pass asks


def test_a_rollout_reads_counters_once_per_interval() -> None:
    world = serving(analysis={"interval": "20s"})
    world.apply("v2")
    world.until("Promoted")
    looks = [each.time for each in world.passes if each.observed.snapshot and each.before.weight]
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert min(gaps) >= 20
    assert max(gaps) < 40


def test_route_of_a_status() -> None:
    world = rolling(step=0)
    status = world.status
    assert route_of(status) == Route(world.revision("v1"), world.revision("v2"), 5)
    assert route_of(replace(status, weight=0)) == Route(world.revision("v1"))
    assert route_of(replace(status, stable=None)) is None
