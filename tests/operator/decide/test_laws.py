"""Laws that hold whatever happens: random users, pods, routers, metrics sources and crashes."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.operator.decide.models import BROKEN, GOOD, HARMFUL, SLEEPY, Model
from tests.operator.decide.world import Crash, Pass, World, serving, without_times
from tests.operator.definition import status_problems

from serin_operator.api.spec import Mode, Strategy
from serin_operator.api.status import HISTORY_LIMIT, ByHand, Status, Tally
from serin_operator.decide.capacity import share
from serin_operator.decide.observed import Route
from serin_operator.decide.roles import kept, route_of
from serin_operator.decide.rollout import decide

Event = Callable[[World], Any]
MODELS = {"v1": GOOD, "v2": GOOD, "v3": HARMFUL, "v4": BROKEN, "v5": SLEEPY, "v6": Model(errors=1.0, latency=1.0)}
QUICK: dict[str, Any] = {
    "server": {"readyTimeout": "40s"},
    "rollout": {
        "steps": [{"weight": 10, "duration": "8s"}, {"weight": 50, "duration": "8s"}],
        "keepPrevious": "15s",
        "maxDuration": "5m",
        "watch": "30s",
    },
    "analysis": {
        "metrics": [{"name": "errors", "margin": 0.05}, {"name": "latency", "margin": 0.05, "slowerThan": "1s"}]
    },
}
BOUNDED = [
    {"name": "errors", "margin": 0.05, "bound": 0.05},
    {"name": "latency", "margin": 0.05, "slowerThan": "1s", "bound": 0.1},
]


def event(name: str, act: Event) -> Event:
    act.__name__ = act.__qualname__ = name
    return act


def applies(version: str) -> Event:
    return event(f"apply {version}", lambda world: world.apply(version, MODELS[version]))


def changes(**parts: Any) -> Event:
    return event(f"change {parts}", lambda world: world.change(**parts))


def sets(**parts: Any) -> Event:
    return event(f"set {parts}", lambda world: vars(world).update(parts))


def crashes(where: Crash) -> Event:
    return event(f"crash {where.value}", lambda world: world.step(crash=where))


def restarts(index: int) -> Event:
    def act(world: World) -> None:
        for revision in sorted(world.pods)[index : index + 1]:
            world.restart_pods(revision)

    return event(f"restart the pods of revision {index}", act)


def steps(*weights: int) -> Event:
    return changes(rollout={"steps": [{"weight": weight, "duration": "8s"} for weight in weights]})


def metrics(*names: str, margin: float = 0.05) -> Event:
    chosen = [{"name": name, "margin": margin, **({"slowerThan": "1s"} if name == "latency" else {})} for name in names]
    return changes(analysis={"metrics": chosen})


def adaptive(budget: int) -> Event:
    return changes(rollout={"mode": "Adaptive", "exposureBudget": budget})


EVENTS = [
    *[applies(version) for version in MODELS],
    *3 * [applies("v1"), applies("v2")],
    *[crashes(where) for where in Crash],
    *[restarts(index) for index in (0, 1)],
    sets(metrics=False),
    sets(metrics=True),
    sets(routers=False),
    sets(routers=True),
    sets(traffic=0.0),
    sets(traffic=200.0),
    changes(rollout={"paused": True}),
    changes(rollout={"paused": False}),
    changes(rollout={"onInconclusive": "Rollback"}),
    adaptive(budget=1000),
    adaptive(budget=20),
    changes(rollout={"mode": "Steps"}),
    changes(rollout={"watch": "0s"}),
    changes(rollout={"watch": "2m"}),
    changes(analysis={"calibration": "20s"}),
    changes(analysis={"warmUp": 1}),
    event("the serving model turns bad", lambda world: world.turn_bad()),
    changes(server={"replicas": 3}),
    changes(server={"replicas": 1}),
    steps(5, 20, 60),
    steps(30),
    metrics("errors"),
    metrics("errors", "latency", "accuracy"),
    metrics("errors", margin=0.0005),
    event("ask for a retry", lambda world: world.ask_retry(f"{world.now}")),
    event("take the retry mark away", lambda world: world.ask_retry(None)),
    *[changes(rollout={"strategy": strategy}) for strategy in ("Canary", "BlueGreen", "BlueGreen", "Recreate")],
    changes(analysis={"metrics": BOUNDED}),
    changes(rollout={"promotion": "Manual"}),
    changes(rollout={"promotion": "Automatic"}),
    changes(rollout={"steps": [{"weight": 10, "duration": "8s", "pause": True}, {"weight": 50, "duration": "8s"}]}),
    sets(preview=50.0),
    sets(preview=0.0),
    sets(stop_seconds=6.0),
    event("promote", lambda world: world.ask_promote(f"{world.now}")),
    event("promote fully", lambda world: world.ask_promote(f"full-{world.now}")),
    event("abort", lambda world: world.ask_abort(f"{world.now}")),
    event("take the promotion mark away", lambda world: world.ask_promote(None)),
    event("take the abort mark away", lambda world: world.ask_abort(None)),
]
pauses = st.sampled_from([0.3, 1.0, 5.0, 20.0, 60.0, 60.0])
histories = st.lists(st.tuples(st.sampled_from(EVENTS), pauses), min_size=1, max_size=12)


# --- the laws, each over one pass


def the_weight_rises_only_on_sight(this: Pass) -> None:
    before, after = this.before, this.after
    if after.weight <= before.weight:
        return
    snapshot, router, route = this.observed.snapshot, this.observed.router, route_of(before)
    assert snapshot is None or (snapshot.problem is None and not snapshot.unread)
    seen = before.condition("MetricsAvailable")
    assert snapshot is not None or (seen and seen.status == "True")
    assert route and router and router.serves(route) and router.problem is None
    assert after.canary and router.reaches(after.canary.revision)
    assert this.observed.workloads[after.canary.revision].ready >= share(
        this.observed.spec.server.replicas, after.weight
    )


def no_revision_has_two_roles(this: Pass) -> None:
    roles = [role.revision for role in (this.after.stable, this.after.canary, *kept(this.after)) if role]
    assert len(roles) == len(set(roles))


def without_a_canary_there_is_no_weight(this: Pass) -> None:
    after = this.after
    assert (after.canary is None) == (after.rollout is None)
    assert after.canary is not None or after.weight == 0
    assert after.weight == 0 or (after.rollout and after.rollout.step is not None)


def what_was_turned_down_has_no_weight(this: Pass) -> None:
    last = next((r.decision for r in this.after.history if r.decision in ("Started", "RolledBack", "Rejected")), "")
    assert last == "Started" or this.after.weight == 0


def promoted_is_only_what_has_passed_everything(this: Pass) -> None:
    spec = this.observed.spec
    for record in this.news:
        if record.decision == "Promoted" and record.reason not in ("ByHand", "Recreated"):
            preview = record.reason == "UnderBound"
            adaptive = preview or spec.rollout.mode is Mode.ADAPTIVE
            assert record.step is not None and (adaptive or record.step >= len(spec.rollout.steps) - 1)
            assert {report.name for report in record.metrics} == {metric.name for metric in spec.analysis.metrics}
            enough = (1 - 1e-5) / spec.analysis.false_promotion_rate
            for report in record.metrics:
                assert not preview or report.bound is not None
                assert (report.bound.odds_under if preview and report.bound else report.odds_non_inferior) >= enough
            assert not spec.rollout.paused


def by_hand_is_promoted_only_what_somebody_asked_for_and_nothing_speaks_against(this: Pass) -> None:
    for record in this.news:
        if record.decision == "Promoted" and record.reason == "ByHand":
            rollout, marks = this.before.rollout, this.before.marks
            new = this.observed.promote != (marks.promote if marks else None)
            asked = (rollout and rollout.by_hand is ByHand.FULL) or (new and this.observed.promote is not None)
            assert asked and not this.observed.spec.rollout.paused
            if len(record.metrics) == 1:  # of several, one alone need not suffice for a rollback
                assert record.metrics[0].verdict != "Worse"


def a_preview_has_no_client_before_the_switch(this: Pass) -> None:
    rollout = this.after.rollout
    if rollout and rollout.strategy is not Strategy.CANARY:
        assert this.after.weight == 0
        assert route_of(this.after) == Route(this.after.stable.revision)  # type: ignore[union-attr]


def what_is_stopped_has_a_place_to_wait_for(this: Pass) -> None:
    """A stable revision is down only while Recreate is under way, or while it waits for the place of another."""
    after = this.after
    assert after.stable is None or not after.stable.stopped or after.previous is None
    if after.canary and after.canary.stopped:
        assert after.rollout and after.rollout.strategy is Strategy.RECREATE
    if after.canary and after.rollout and after.rollout.strategy is Strategy.RECREATE and not after.canary.stopped:
        assert after.stable and after.stable.stopped


def a_strategy_stays_for_a_rollout(this: Pass) -> None:
    before, after = this.before.rollout, this.after.rollout
    if before and after and this.before.canary and this.after.canary:
        same = this.before.canary.revision == this.after.canary.revision
        assert not same or before.strategy is after.strategy or "Started" in [record.decision for record in this.news]


def a_mark_is_heeded_once(this: Pass) -> None:
    marks = this.after.marks
    assert (this.observed.promote, this.observed.abort) == ((marks.promote, marks.abort) if marks else (None, None))


def a_step_begins_when_its_weight_is_seen(this: Pass) -> None:
    before, after = this.before.rollout, this.after.rollout
    if after and after.step_started_at and not (before and before.step_started_at):
        router, route = this.observed.router, route_of(this.before)
        assert router and route and router.serves(route)
        assert after.verified_weight == this.after.weight


def what_is_watched_has_something_to_go_back_to(this: Pass) -> None:
    after, watch = this.after, this.after.watch
    if watch is None:
        return
    assert after.rollout is None and after.stable and after.previous
    assert (after.stable.revision, after.previous.revision) == (watch.revision, watch.against)
    assert after.previous.kept_until is not None and after.previous.kept_until >= watch.until
    assert this.time < watch.until


def a_promotion_is_taken_back_only_to_a_revision_that_can_serve(this: Pass) -> None:
    for record in this.news:
        if record.decision == "RolledBack" and this.before.canary is None:
            assert this.before.watch and record.to_revision == this.before.watch.against
            assert this.observed.workloads[this.before.watch.against].ready > 0
            assert this.after.rejected and this.after.rejected.revision == record.from_revision
            assert this.live and f"revision-{record.to_revision}" in this.live.clusters


def the_clocks_stand_still_during_a_pause(this: Pass) -> None:
    before, after = this.before.rollout, this.after.rollout
    if before and after and this.observed.spec.rollout.paused and this.before.canary == this.after.canary:
        assert (after.started_at, after.paused_at) == (before.started_at, before.paused_at or this.time)


def history_is_bounded_and_in_order(this: Pass) -> None:
    assert len(this.after.history) <= HISTORY_LIMIT
    times = [record.time for record in this.after.history]
    assert times == sorted(times, reverse=True)


def the_same_observation_changes_nothing_more(this: Pass) -> None:
    """But for times and sentences. Reports of nothing appear with the look after the first step, and at a new weight or
    after a promotion the evidence is weighed anew, with the same counts."""
    once = this.after
    twice = decide(replace(this.observed, status=once), this.time).status
    rollout = once.rollout
    if rollout and twice.rollout and rollout.step_started_at is None and twice.rollout.step_started_at:
        # The step has the weight that served before it, so the same look already shows it serving.
        seen = twice.rollout
        rollout = replace(rollout, verified_weight=seen.verified_weight, step_trials=seen.step_trials)
    expected = replace(once, rollout=rollout, metrics=())
    if this.news:
        assert tallies(once) in (tallies(twice), [])
        if once.watch and twice.watch:
            expected = replace(expected, watch=twice.watch)
    else:
        assert once.metrics in (twice.metrics, ())
    assert without_times(replace(twice, metrics=())) == without_times(expected)


def tallies(status: Status) -> list[tuple[str, Tally, Tally]]:
    return [(report.name, report.canary, report.stable) for report in status.metrics]


def the_same_observation_decides_the_same(this: Pass) -> None:
    assert decide(this.observed, this.time) == this.decision


LAWS = [
    the_weight_rises_only_on_sight,
    no_revision_has_two_roles,
    without_a_canary_there_is_no_weight,
    what_was_turned_down_has_no_weight,
    promoted_is_only_what_has_passed_everything,
    by_hand_is_promoted_only_what_somebody_asked_for_and_nothing_speaks_against,
    a_preview_has_no_client_before_the_switch,
    what_is_stopped_has_a_place_to_wait_for,
    a_strategy_stays_for_a_rollout,
    a_mark_is_heeded_once,
    a_step_begins_when_its_weight_is_seen,
    what_is_watched_has_something_to_go_back_to,
    a_promotion_is_taken_back_only_to_a_revision_that_can_serve,
    the_clocks_stand_still_during_a_pause,
    history_is_bounded_and_in_order,
    the_same_observation_changes_nothing_more,
    the_same_observation_decides_the_same,
]


# --- the laws over a whole history


def no_trial_is_counted_twice(world: World) -> None:
    """The evidence never holds more trials than the arms have had since the rollout took its first step."""
    base: dict[str, int] = {}
    for this in world.passes:
        arms = compared(this.after)
        if arms is None:
            base = {}
            continue
        base = base or dict(this.served)
        for arm, name in zip(arms, ("canary", "stable"), strict=True):
            happened = this.served.get(arm, 0) - base.get(arm, 0)
            for report in this.after.metrics:
                assert getattr(report, name).trials <= happened, (report.name, name)


def compared(status: Status) -> tuple[str, str] | None:
    """The revisions whose trials `status.metrics` counts: those of a rollout, and of the watch that follows it."""
    if status.watch:
        return status.watch.revision, status.watch.against
    if status.rollout is None or status.rollout.step is None:
        return None
    assert status.canary and status.stable
    return status.canary.revision, status.stable.revision


def every_status_fits_the_definition(world: World) -> None:
    assert [
        problem for raw in world.statuses[:: max(1, len(world.statuses) // 8)] for problem in status_problems(raw)
    ] == []


@given(histories)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_laws_hold_whatever_happens(history: list[tuple[Event, float]]) -> None:
    world = World()
    world.apply("v1", **QUICK)
    world.until("Serving")
    for act, seconds in history:
        act(world)
        world.run(seconds)
    for this in world.passes:
        for law in LAWS:
            law(this)
    no_trial_is_counted_twice(world)
    every_status_fits_the_definition(world)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), pauses), max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_has_happened_a_good_model_gets_through_in_the_end(history: list[tuple[Event, float]]) -> None:
    world = World()
    world.apply("v1", **QUICK)
    for act, seconds in history:
        act(world)
        world.run(seconds)
    world.traffic, world.metrics, world.routers = 200.0, True, True
    world.apply("good", GOOD, **QUICK)
    world.change(rollout={"paused": False, "onInconclusive": "Hold", "promotion": "Automatic"})
    world.change(rollout={"strategy": "Canary"}, server={"replicas": 1})
    world.change(rollout={"exposureBudget": 1000}, analysis={"calibration": "0s", "warmUp": 0})
    world.run(400)
    assert (world.version, world.activity, world.status.weight) == ("good", "", 0)
    assert world.live and world.live.route == Route(world.revision("good"))
    assert set(world.pods) == {world.revision("good")}


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
@pytest.mark.parametrize(("model", "outcome"), [(GOOD, "Promoted"), (HARMFUL, "RolledBack"), (BROKEN, "Rejected")])
def test_a_crash_at_any_pass_changes_no_outcome(model: Model, outcome: str, where: Crash) -> None:
    def run(crash_at: int | None) -> World:
        world = serving(**QUICK)
        world.apply("v2", model)
        start = len(world.passes)
        while len(world.passes) - start < 120 and (world.status.history[0].decision != outcome):
            world.step(crash=where if len(world.passes) - start == crash_at else None)
        for _ in range(3):
            world.step(most=5.0)
        return world

    undisturbed = run(None)
    assert undisturbed.status.history[0].decision == outcome
    passes = len(undisturbed.passes) - 4
    for crash_at in range(min(passes, 30)):
        world = run(crash_at)
        decisions = [record.decision for record in reversed(world.status.history)]
        assert decisions == [record.decision for record in reversed(undisturbed.status.history)], crash_at
        assert world.live == undisturbed.live
        no_trial_is_counted_twice(world)


@given(st.lists(st.sampled_from(EVENTS[:8]), min_size=25, max_size=40))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_restless_user_does_not_outgrow_the_status(history: list[Event]) -> None:
    world = World()
    world.apply("v1", **QUICK)
    world.until("Serving")
    for act in history:
        act(world)
        world.look()
    assert len(world.status.history) <= HISTORY_LIMIT
    assert status_problems(json.loads(world.written)) == []


def test_spec_changes_while_no_router_answers_do_not_pile_up_revisions() -> None:
    world = serving()
    world.routers = False
    for index in range(70):
        world.apply(f"try{index}")
        world.run(1.0)
        assert len(world.pods) <= 12
    assert status_problems(json.loads(world.written)) == []
    world.routers = True
    world.until("Promoted")
    assert world.version == "try69"
    assert set(world.pods) == {world.revision("try69"), world.revision("v1")}
