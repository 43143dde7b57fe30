"""After a promotion: what comes late can still take it back, to a revision that is still warm."""

import itertools
from typing import Any

import pytest
from tests.operator.decide.models import GOOD, Model
from tests.operator.decide.world import Crash, World, digest, serving

from serin_operator.api.status import Phase, Record
from serin_operator.decide.observed import Route
from serin_operator.decide.rollout import Wants, wants
from serin_operator.decide.transitions import DRAIN_SECONDS

QUICK_STEPS = [{"weight": 20, "duration": "15s"}]
ERRORS = {"name": "errors", "margin": 0.02}


def promoted(model: Model = GOOD, metrics: list[dict[str, Any]] | None = None, **rollout: Any) -> World:
    """v2 was just promoted over v1 and is watched for 10 minutes."""
    rollout = {"steps": QUICK_STEPS, "watch": "10m", "keepPrevious": "1m", **rollout}
    server = {"replicas": 2, "readyTimeout": "90s"}
    world = serving(server=server, rollout=rollout, analysis={"metrics": metrics or [ERRORS]})
    world.apply("v2", model)
    world.until("Promoted")
    assert world.status.watch is not None
    return world


def turn_bad(world: World) -> None:
    world.models[digest("v2")] = Model(errors=0.1)


def looks(world: World, since: float) -> list[float]:
    return [each.time for each in world.passes if each.observed.snapshot is not None and each.time > since]


def test_a_good_promotion_is_watched_and_left_alone_then() -> None:
    world = promoted()
    watch, begun = world.status.watch, world.now
    assert watch and (watch.revision, watch.against) == (world.revision("v2"), world.revision("v1"))
    assert watch.until == begun + 600
    assert (world.status.phase, world.activity) == (Phase.SERVING, "")
    world.run(590)
    seen = world.status.condition("MetricsAvailable")
    assert world.status.watch and seen and seen.status == "True"
    world.run(15)
    assert world.status.watch is None
    assert world.status.condition("MetricsAvailable") is None
    assert looks(world, begun)[-1] == pytest.approx(watch.until, abs=0.1)
    world.run(DRAIN_SECONDS)
    assert set(world.pods) == {world.revision("v2")}
    before = len(world.statuses)
    world.run(1000)
    last = world.passes[-1]
    assert wants(last.after, world.spec, last.observed.served, world.now) == Wants(False, False)
    assert (last.decision.check_at, len(world.statuses)) == (None, before)


def test_the_watch_looks_less_often_and_writes_seldom() -> None:
    world = promoted()
    begun, written = world.now, len(world.statuses)
    world.run(300)
    times = looks(world, begun)
    assert len(times) == pytest.approx(30, abs=3)
    assert min(after - before for before, after in itertools.pairwise(times)) >= 10
    assert len(world.statuses) - written <= 300 / 60 + 4


def test_a_slower_interval_holds_in_the_watch_too() -> None:
    world = promoted()
    world.change(analysis={"interval": "60s"})
    begun = world.now
    world.run(300)
    assert len(looks(world, begun)) <= 6


def test_worse_after_the_promotion_goes_back_to_the_old_stable() -> None:
    world = promoted()
    pods = [pod.name for pod in world.pods[world.revision("v1")]]
    world.run(30)
    turn_bad(world)
    record = world.until("RolledBack", within=300)
    assert record.reason == "MoreErrors"
    assert record.message.startswith("After promotion: errors: ")
    assert (record.from_revision, record.to_revision) == (world.revision("v2"), world.revision("v1"))
    status = world.status
    assert (status.phase, status.weight, status.canary, status.watch) == (Phase.ROLLED_BACK, 0, None, None)
    assert (world.version, status.previous, world.activity) == ("v1", None, "MoreErrors")
    assert status.rejected and status.rejected.revision == world.revision("v2")
    assert status.stable and status.stable.kept_until is None
    world.run(2 * DRAIN_SECONDS)
    assert world.live and world.live.route == Route(world.revision("v1"))
    assert [pod.name for pod in world.pods[world.revision("v1")]] == pods
    assert set(world.pods) == {world.revision("v1")}
    world.run(1000)
    assert world.decisions[-1] == "RolledBack"


def test_labels_that_come_after_the_promotion_take_it_back() -> None:
    accuracy = {"name": "accuracy", "margin": 0.02, "role": "Guard"}
    rollout: dict[str, Any] = {"mode": "Adaptive", "exposureBudget": 10_000}
    world = serving(rollout=rollout, analysis={"metrics": [ERRORS, accuracy], "labelWindow": "1m"})
    world.apply("v2", Model(accuracy=0.4))
    world.until("Promoted", within=60)
    record = world.until("RolledBack", within=120)
    assert record.reason == "LessAccurate"
    assert record.message.startswith("After promotion: accuracy: ")


def test_it_stays_with_the_promoted_revision_while_the_old_one_is_not_ready() -> None:
    world = promoted()
    world.start_seconds = 100.0
    world.restart_pods(world.revision("v1"))
    turn_bad(world)
    text = world.until_activity("PreviousNotReady", within=60)
    assert "v2 goes on serving" in text
    stalled = world.status.condition("Stalled")
    assert stalled and (world.status.phase, world.version) == (Phase.SERVING, "v2")
    assert world.live and world.live.route == Route(world.revision("v2"))
    assert world.until("RolledBack", within=100).reason == "MoreErrors"


def test_it_waits_for_the_pods_that_all_of_the_traffic_needs_and_not_for_ever() -> None:
    """The promoted one does harm meanwhile: what there is of the old one has to do in the end."""
    world = promoted(watch="1h")
    world.start_seconds = 60.0
    world.change(server={"replicas": 6})
    world.run(70)
    world.start_seconds = float("inf")
    world.restart_pods(world.revision("v1"), 4)
    turn_bad(world)
    assert "only 2 of 5 pods of v1 are ready" in world.until_activity("PreviousNotReady", within=60)
    began = world.now
    world.until("RolledBack", within=120)
    assert world.now - began >= 90 - 1


def test_the_watch_ends_although_the_old_revision_was_never_ready_again() -> None:
    world = promoted(watch="2m")
    world.start_seconds = float("inf")
    world.restart_pods(world.revision("v1"))
    turn_bad(world)
    world.run(150)
    assert (world.status.watch, world.activity, world.version) == (None, "", "v2")
    assert world.status.metrics[0].verdict == "Worse"


def test_blindness_in_the_watch_takes_nothing_back_and_passes() -> None:
    world = promoted()
    world.metrics = False
    turn_bad(world)
    world.run(100)
    seen = world.status.condition("MetricsAvailable")
    assert seen and (seen.status, seen.reason) == ("False", "CannotSee")
    assert (world.version, world.activity) == ("v2", "")
    world.metrics = True
    world.until("RolledBack", within=60)


def test_without_a_watch_nothing_is_asked() -> None:
    world = serving(rollout={"steps": QUICK_STEPS, "watch": "0s"}, analysis={"metrics": [ERRORS]})
    world.apply("v2")
    begun = world.until("Promoted").time
    turn_bad(world)
    world.run(1000)
    assert world.status.watch is None
    assert looks(world, begun) == []
    assert world.version == "v2"


def test_the_old_stable_is_kept_as_long_as_the_longer_of_both() -> None:
    for keep, watch, kept in [("1m", "10m", 600), ("20m", "10m", 1200)]:
        world = promoted(keepPrevious=keep, watch=watch)
        previous = world.status.previous
        assert previous and previous.kept_until == world.now + kept


def test_a_new_spec_ends_the_watch() -> None:
    world = promoted()
    world.apply("v3")
    world.look()
    assert world.status.watch is None
    assert world.status.canary and world.status.canary.version == "v3"
    turn_bad(world)
    world.until("Promoted")
    assert world.version == "v3"
    assert world.status.watch and world.status.watch.against == world.revision("v2")


def test_going_back_ends_the_watch() -> None:
    world = promoted()
    world.run(5)
    world.apply("v1")
    world.until("Reverted", within=5)
    assert world.status.watch is None
    world.run(300)
    assert (world.version, world.decisions[-1]) == ("v1", "Reverted")


def test_changes_that_make_no_new_revision_leave_the_watch() -> None:
    world = promoted()
    watch = world.status.watch
    world.change(server={"replicas": 2}, rollout={"watch": "1h"}, analysis={"metrics": [ERRORS]})
    world.run(60)
    assert watch and world.status.watch and world.status.watch.until == watch.until


def test_a_retry_after_a_late_rollback_is_a_rollout_again() -> None:
    world = promoted()
    turn_bad(world)
    world.until("RolledBack")
    world.models[digest("v2")] = GOOD
    world.ask_retry("1")
    world.until("Promoted")
    assert world.version == "v2"


def test_evidence_of_another_version_of_serin_is_told_and_the_watch_ends() -> None:
    world = promoted(watch="2m")
    watch = world.status.watch
    assert watch
    object.__setattr__(watch, "evidence", '{"layout":0}')
    assert "can not be read" in world.until_activity("EvidenceUnreadable", within=30)
    world.run(130)
    assert (world.status.watch, world.activity) == (None, "")


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
def test_a_crash_at_any_pass_changes_no_outcome(where: Crash) -> None:
    def run(crash_at: int | None) -> tuple[World, Record]:
        world = promoted()
        world.run(30)
        turn_bad(world)
        start = len(world.passes)
        while "RolledBack" not in world.decisions or world.status.watch is not None:
            world.step(crash=where if len(world.passes) - start == crash_at else None)
            assert len(world.passes) - start < 60
        for _ in range(3):
            world.step(most=5.0)
        return world, next(record for record in world.status.history if record.decision == "RolledBack")

    undisturbed, expected = run(None)
    for crash_at in range(12):
        world, record = run(crash_at)
        assert (record.reason, record.from_revision) == (expected.reason, expected.from_revision)
        assert (world.version, world.live) == (undisturbed.version, undisturbed.live)
        told = next(report for report in world.status.metrics if report.name == "errors")
        assert told.canary.trials <= world.served[world.revision("v2")]
