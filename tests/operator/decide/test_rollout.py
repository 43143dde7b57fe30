"""Rollouts told pass by pass in a small world: what is decided, in which order, and what it asks for."""

import itertools
from dataclasses import replace

import pytest
from tests.operator.decide.models import BROKEN, GOOD, HARMFUL, SLEEPY, Model
from tests.operator.decide.world import NAME, World, digest, rolling, serving

from serin_operator.api.status import Phase
from serin_operator.decide.observed import Route, Trouble
from serin_operator.decide.roles import route_of
from serin_operator.decide.rollout import READY_POLL_SECONDS, Wants, decide, wants
from serin_operator.decide.transitions import DRAIN_SECONDS

ERRORS_ONLY = [{"name": "errors", "margin": 0.05}]


# --- first apply


def test_the_first_revision_takes_over_at_once() -> None:
    world = World()
    world.apply("v1")
    first = world.step()
    assert [record.decision for record in first.news] == ["Started"]
    assert first.after.phase is Phase.PENDING
    assert [(c.type, c.status) for c in first.after.conditions] == [("Reconciling", "True"), ("Ready", "False")]
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
    assert (status.previous, [each.version for each in status.retiring]) == (None, ["v2"])
    world.run(200)
    assert set(world.pods) == {world.revision("v1")}
    assert [pod.name for pod in world.pods[world.revision("v1")]] == pods


def test_what_somebody_went_back_from_earns_its_traffic_again() -> None:
    """Such as a revision that a person saw do harm, and that a tool then applies once more."""
    world = serving(rollout={"keepPrevious": "1h"})
    world.apply("v2")
    world.until("Promoted")
    world.run(5)
    world.apply("v1")
    world.until("Reverted", within=5)
    world.run(1)
    world.apply("v2", HARMFUL)
    assert world.until("RolledBack").from_revision == world.revision("v2")
    assert "Reverted" not in world.decisions[world.decisions.index("Reverted") + 1 :]
    assert world.version == "v1"


def test_going_back_to_too_few_pods_for_all_of_the_traffic_is_a_rollout() -> None:
    world = serving(server={"replicas": 2}, rollout={"keepPrevious": "1h"})
    world.apply("v2")
    world.until("Promoted")
    world.run(5)
    world.start_seconds = 60.0
    world.change(server={"replicas": 6})
    world.run(30)
    world.start_seconds = 120.0
    world.restart_pods(world.revision("v1"), 4)
    world.run(45)
    pods = [pod.name for pod in world.pods[world.revision("v1")]]
    world.apply("v1")
    world.until("Started", within=5)
    world.until("Promoted")
    assert "Reverted" not in world.decisions
    assert world.passes[-1].observed.workloads[world.revision("v1")].ready == 6
    assert pods[0] in [pod.name for pod in world.pods[world.revision("v1")]]


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


def test_what_the_api_server_refuses_is_told_while_something_waits() -> None:
    world = serving(server={"readyTimeout": "2m"})
    world.refused = "403: Deployment iris-b: exceeded quota"
    world.run(10)
    assert world.told == ""
    world.apply("v2", SLEEPY)
    told = world.until_activity("StartingCanary")
    assert told == "0 of 1 pods of v2 are ready. The API server says 403: Deployment iris-b: exceeded quota."
    message = world.until("Rejected").message
    assert message == (
        "No pod of v2 was ready for 120 s: its pods never passed their readiness check; "
        "the API server says 403: Deployment iris-b: exceeded quota"
    )


def test_passing_trouble_is_waited_for() -> None:
    trouble = Trouble("Unreachable", "connection refused", 10)
    world = serving()
    world.apply("v2", Model(starts=False, trouble=trouble))
    world.run(120)
    assert world.activity == "StartingCanary"
    assert "pods of v2 are ready. Connection refused." in world.told
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
