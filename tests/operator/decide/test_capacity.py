"""Capacity before weight: how many pods each revision has, whatever moves traffic, scales or dies in between."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.operator.decide.models import GOOD, HARMFUL, Model
from tests.operator.decide.test_laws import QUICK, Event, adaptive, applies, changes, crashes, event, sets, steps
from tests.operator.decide.world import Crash, World, digest, rolling, serving
from tests.operator.definition import make_spec, merged

from serin_operator.api.status import Phase, Record, Revision, Rollout, Status
from serin_operator.decide.capacity import SETTLING_SECONDS, room, share, sized, whole
from serin_operator.decide.observed import Defaults, Observed, Route, Router, Workload
from serin_operator.decide.roles import route_of, running
from serin_operator.decide.transitions import DRAIN_SECONDS

NOW = 1_750_000_000.0
STABLE, CANARY, OLD = "a" * 10, "b" * 10, "c" * 10
BY_PODS = {"router": {"type": "ReplicaRatio"}}
AUTOSCALED = {"autoscaling": {"minReplicas": 2, "maxReplicas": 10, "requestsInFlight": {"averageValue": 4}}}


# --- tables


@pytest.mark.parametrize(
    ("replicas", "weight", "pods"),
    [(1, 5, 1), (10, 0, 1), (10, 1, 1), (10, 10, 1), (10, 11, 2), (10, 50, 5), (3, 50, 2), (3, 67, 3), (10, 100, 10)],
)
def test_a_share_is_rounded_up(replicas: int, weight: int, pods: int) -> None:
    assert share(replicas, weight) == pods


def revision(name: str, replicas: int = 0, **more: Any) -> Revision:
    return Revision(
        name, name[0], f"https://models/{name}", "joblib", name[0] * 64, "server:1", replicas=replicas, **more
    )


def at(seconds_ago: float, decision: str = "Promoted") -> tuple[Record, ...]:
    return (Record(NOW - seconds_ago, decision),)


@pytest.mark.parametrize(
    ("server", "status", "pods"),
    [
        pytest.param({"replicas": 3}, Status(), 3, id="a number is a number"),
        pytest.param({"replicas": 3}, Status(stable=revision(STABLE, 8), history=at(1)), 3, id="a person is obeyed"),
        pytest.param(AUTOSCALED, Status(), 2, id="the minimum, before the autoscaler has come to it"),
        pytest.param(
            {"replicas": 5} | AUTOSCALED,
            Status(stable=revision(STABLE, 8), autoscaled_since=NOW - SETTLING_SECONDS),
            5,
            id="an idle one shrinks",
        ),
        pytest.param(
            {"replicas": 5} | AUTOSCALED,
            Status(stable=revision(STABLE, 8), autoscaled_since=NOW - SETTLING_SECONDS + 1),
            8,
            id="not before an autoscaler that was just turned on has measured",
        ),
        pytest.param(
            {"replicas": 5} | AUTOSCALED,
            Status(stable=revision(STABLE, 8), rollout=Rollout(NOW - 9999)),
            8,
            id="not during a rollout",
        ),
        pytest.param(
            {"replicas": 9} | AUTOSCALED,
            Status(stable=revision(STABLE, 8), rollout=Rollout(NOW - 9999)),
            9,
            id="it grows during a rollout",
        ),
        pytest.param(
            {"replicas": 5} | AUTOSCALED,
            Status(stable=revision(STABLE, 8), autoscaled_since=0.0, history=at(SETTLING_SECONDS - 1)),
            8,
            id="nor right after one",
        ),
        pytest.param(
            {"replicas": 5} | AUTOSCALED,
            Status(stable=revision(STABLE, 8), autoscaled_since=0.0, history=at(SETTLING_SECONDS)),
            5,
            id="but some minutes later",
        ),
        pytest.param(
            {"replicas": 5} | AUTOSCALED,
            Status(stable=revision(STABLE, 15), rollout=Rollout(NOW)),
            10,
            id="a maximum that a person has lowered is obeyed",
        ),
    ],
)
def test_how_many_pods_all_of_the_traffic_needs(server: dict[str, Any], status: Status, pods: int) -> None:
    assert whole(make_spec(server=server), status, NOW) == pods


def observed(status: Status, *, ready: int = 0, seen: int = 0, **parts: Any) -> Observed:
    """The routers serve what the status calls for, and see so many of the canary's pods."""
    route = route_of(status)
    assert route
    return Observed(
        name="iris",
        generation=1,
        retry=None,
        spec=make_spec(**parts),
        status=status,
        defaults=Defaults("server:1"),
        workloads={CANARY: Workload(ready)},
        router=Router(2, (route, route), ({CANARY: seen}, {CANARY: seen + 1})),
    )


def on_trial(weight: int, capacity: int, canary: int, since: float | None = NOW - 60, mirror: int = 0) -> Status:
    rollout = Rollout(NOW - 600, step=1, step_started_at=since, capacity=capacity, mirror=mirror)
    return Status(
        phase=Phase.PROGRESSING,
        weight=weight,
        stable=revision(STABLE, 8),
        canary=revision(CANARY, canary),
        rollout=rollout,
    )


TEN = {"replicas": 10}


@pytest.mark.parametrize(
    ("status", "rollout", "pods"),
    [
        pytest.param(on_trial(25, 25, 0), {}, 3, id="its share"),
        pytest.param(on_trial(25, 50, 3), {}, 5, id="the share of the next weight, when that is prepared"),
        pytest.param(on_trial(25, 25, 3), {"canaryReplicas": "Full"}, 10, id="as many as stable"),
        pytest.param(on_trial(5, 5, 5, since=None), {}, 5, id="no fewer before the routers are seen to follow"),
        pytest.param(on_trial(5, 5, 5, since=NOW - DRAIN_SECONDS + 1), {}, 5, id="nor before connections have drained"),
        pytest.param(on_trial(5, 5, 5, since=NOW - DRAIN_SECONDS), {}, 1, id="then it shrinks"),
        pytest.param(on_trial(0, 0, 5), {}, 1, id="to one pod that idles"),
        pytest.param(on_trial(0, 0, 0, mirror=40), {}, 4, id="a shadow has the pods for its copies"),
    ],
)
def test_how_many_pods_the_canary_has(status: Status, rollout: dict[str, Any], pods: int) -> None:
    found = sized(observed(status, server=TEN, rollout=rollout), status, NOW)
    assert found.canary and found.canary.replicas == pods
    assert found.stable and found.stable.replicas == 10
    again = sized(observed(found, server=TEN, rollout=rollout), found, NOW)
    assert again == found


def test_no_canary_shrinks_while_a_router_serves_another_weight() -> None:
    status = on_trial(5, 5, 5)
    late = replace(observed(status, server=TEN), router=Router(1, (Route(STABLE, CANARY, 50),), ({CANARY: 5},)))
    found = sized(late, status, NOW)
    assert found.canary and found.canary.replicas == 5


@pytest.mark.parametrize(
    ("ready", "seen", "enough"), [(5, 5, True), (4, 5, False), (5, 4, False), (9, 9, True)], ids=str
)
def test_a_weight_has_room_when_pods_are_ready_and_every_router_reaches_them(
    ready: int, seen: int, enough: bool
) -> None:
    status = on_trial(25, 50, 5)
    found = room(observed(status, ready=ready, seen=seen, server=TEN), status, 50, NOW)
    assert (found is None) == enough
    if found:
        asked, activity = found
        assert asked.rollout and asked.rollout.capacity == 50
        assert activity.reason == "ScalingCanary"
        assert "50 % of the traffic need 5 of b" in activity.message


def test_pods_that_were_told_to_go_are_no_room() -> None:
    """The watch cache and the routers take them for ready a moment longer."""
    status = on_trial(5, 5, 1)
    found = room(observed(status, ready=5, seen=5, server=TEN), status, 50, NOW)
    assert found and found[1].message.endswith("50 % of the traffic need 5 of b, and 1 are ready.")


def test_what_drains_keeps_its_pods() -> None:
    status = Status(stable=revision(STABLE, 10), retiring=(revision(OLD, 4, kept_until=NOW),))
    found = sized(observed(status, server=TEN), status, NOW)
    assert [each.replicas for each in found.retiring] == [4]


# --- stories


def sizes(world: World) -> dict[str, int]:
    """Version → its pods."""
    return {
        version: len(world.pods[world.revision(version)])
        for version in ("v1", "v2", "v3")
        if world.revision(version) in world.pods
    }


def test_a_canary_has_its_pods_before_it_has_the_weight() -> None:
    world = serving(server={"replicas": 10})
    world.start_seconds = 40.0
    world.apply("v2")
    seen: dict[int, int] = {}
    while "Promoted" not in world.decisions:
        world.step()
        ready = len(world._ready(world.revision("v2")))
        if world.live and world.live.route.canary:
            seen.setdefault(world.live.route.weight, ready)
        if world.status.canary:
            assert sizes(world)["v1"] == 10
    assert seen == {5: 1, 25: 3, 50: 5}
    assert len(world._ready(world.revision("v2"))) == 10
    assert sizes(world) == {"v1": 10, "v2": 10}


def test_it_is_told_what_a_weight_waits_for() -> None:
    world = serving(server={"replicas": 10})
    world.apply("v2")
    world.until("Advanced")
    world.start_seconds = 300.0
    told = world.until_activity("ScalingCanary")
    assert told == "Before the weight rises: 25 % of the traffic need 3 of v2, and 1 are ready."
    assert world.status.weight == 5
    assert world.status.rollout and world.status.rollout.capacity == 25
    world.until("Advanced")
    assert world.status.weight == 25


def test_no_promotion_floods_a_revision_that_has_too_few_pods() -> None:
    """Thundering herd at promotion: the promoted revision has the capacity of all traffic, or it is not promoted."""
    world = rolling(step=2, server={"replicas": 4})
    assert sizes(world) == {"v1": 4, "v2": 2}
    world.start_seconds = float("inf")
    told = world.until_activity("ScalingCanary")
    assert "100 % of the traffic need 4 of v2, and 2 are ready" in told
    world.run(600)
    assert "Promoted" not in world.decisions
    for pod in world.pods[world.revision("v2")]:
        pod.ready_at = min(pod.ready_at, world.now)
    world.until("Promoted")


def test_a_canary_that_turns_bad_while_it_grows_is_rolled_back_at_once() -> None:
    world = rolling(step=2, server={"replicas": 4})
    world.start_seconds = float("inf")
    world.until_activity("ScalingCanary")
    world.models[digest("v2")] = HARMFUL
    world.until("RolledBack")
    assert sizes(world) == {"v1": 4, "v2": 4}
    world.run(60)
    assert sizes(world) == {"v1": 4}


def test_a_full_canary_waits_at_no_step() -> None:
    world = serving(server={"replicas": 4}, rollout={"canaryReplicas": "Full"})
    world.apply("v2")
    world.until("Advanced")
    assert sizes(world) == {"v1": 4, "v2": 4}
    world.start_seconds = float("inf")
    world.until("Promoted")


def test_a_crash_while_the_canary_grows_forgets_nothing() -> None:
    for where in Crash:
        world = serving(server={"replicas": 10})
        world.apply("v2")
        world.until("Advanced")
        world.start_seconds = 60.0
        while not (world.status.rollout and world.status.rollout.capacity == 25):
            world.step(crash=where)
            world.step()
        assert (world.status.weight, sizes(world)["v2"]) == (5, 3)
        world.until("Promoted")


def test_what_has_given_up_its_pods_gets_none_to_leave_with() -> None:
    """Where pods make the split, the previous revision has none beside a canary. The promotion ends its time."""
    world = serving(server={"replicas": 4}, rollout={"keepPrevious": "60m"}, traffic=BY_PODS)
    world.apply("v2")
    world.until("Promoted")
    world.apply("v3")
    world.until("Promoted")
    assert world.status.retiring[0].version == "v1"
    assert sizes(world) == {"v1": 0, "v2": 4, "v3": 4}


def test_no_way_back_leads_to_pods_that_were_told_to_go() -> None:
    """Where pods make the split, the previous revision gives up its pods for a canary."""
    world = serving(server={"replicas": 4}, rollout={"keepPrevious": "60m"}, traffic=BY_PODS)
    world.apply("v2")
    world.until("Promoted")
    world.run(30)
    world.late = 1.0
    world.apply("v3")
    world.step()
    assert sizes(world)["v1"] == 0
    world.apply("v1")
    world.step()
    assert world.version == "v2"
    assert world.decisions[-2:] == ["Superseded", "Started"]


def test_a_person_may_shrink_it_at_any_time() -> None:
    world = rolling(step=2, server={"replicas": 4})
    world.change(server={"replicas": 2})
    world.step()
    assert sizes(world)["v1"] == 2
    world.run(DRAIN_SECONDS)
    assert sizes(world) == {"v1": 2, "v2": 1}


def test_a_revision_that_is_taken_over_keeps_its_pods_until_its_traffic_has_drained() -> None:
    world = rolling(step=2, server={"replicas": 4})
    world.apply("v1")
    world.step()
    assert world.decisions[-1] == "Superseded"
    world.apply("v2")
    world.step()
    assert world.decisions[-1] == "Started"
    started = world.now
    while world.status.weight == 0:
        assert sizes(world)["v2"] == (2 if world.now - started < DRAIN_SECONDS else 1)
        world.step(most=1.0)
    assert world.status.weight == 5


# --- laws


def autoscales(replicas: int) -> Event:
    return changes(server={**AUTOSCALED, "replicas": replicas})


EVENTS = [
    *3 * [applies(version) for version in ("v1", "v2")],
    applies("v3"),
    event("apply a model that fails always", lambda world: world.apply("v6", Model(errors=1.0, latency=1.0))),
    *[crashes(where) for where in Crash],
    *[autoscales(replicas) for replicas in (1, 2, 3, 5, 8, 10)],
    changes(server={"autoscaling": None, "replicas": 6}),
    changes(server={"autoscaling": None, "replicas": 1}),
    changes(rollout={"canaryReplicas": "Full"}),
    changes(rollout={"canaryReplicas": "FollowWeight"}),
    changes(rollout={"paused": True}),
    changes(rollout={"paused": False}),
    steps(5, 20, 60),
    steps(90),
    steps(1),
    adaptive(budget=1000),
    adaptive(budget=20),
    changes(rollout={"mode": "Steps"}),
    sets(metrics=False),
    sets(metrics=True),
    sets(routers=False),
    sets(routers=True),
    sets(late=0.5),
    sets(late=0.0),
    event("the serving model turns bad", lambda world: world.turn_bad()),
    event("ask for a retry", lambda world: world.ask_retry(f"{world.now}")),
]
STRATEGIES = [changes(rollout={"strategy": strategy}) for strategy in ("Canary", "BlueGreen")]
pauses = st.sampled_from([0.3, 1.0, 5.0, 20.0, 60.0, 60.0, 320.0])
GRACE_SECONDS = 20.0  # for pods that a larger size asks for: they start in 3, after a pass that a crash may undo


def looks(world: World, history: list[tuple[Event, float]]) -> Iterator[World]:
    """The world after every pass of a history."""
    for act, seconds in history:
        act(world)
        end = world.now + seconds
        while world.now < end:
            world.step(most=min(300.0, end - world.now))
            yield world


@given(st.lists(st.tuples(st.sampled_from(EVENTS), pauses), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_arm_has_the_pods_for_its_share_whatever_happens(history: list[tuple[Event, float]]) -> None:
    """What serves has the pods that its weight needs, of those that all the traffic has needed for a moment: during
    rollouts, promotions, rollbacks and ways back, with an autoscaler that says anything at any time."""
    world = World()
    world.apply("v1", GOOD, **merged(QUICK, {"server": {**AUTOSCALED, "replicas": 5}}))
    world.until("Serving")
    asked = [(world.now, 5)]
    for now in looks(world, history):
        live, status = now.live, now.status
        assert live and status.stable
        asked.append((now.now, status.stable.replicas))
        recent = [size for time, size in asked if time >= now.now - GRACE_SECONDS]
        recent += [size for time, size in asked if time < now.now - GRACE_SECONDS][-1:]
        needs = {live.route.stable: min(recent)}
        if live.route.canary:
            needs[live.route.canary] = share(min(recent), live.route.weight)
        for name, pods in needs.items():
            assert len(now._ready(name)) >= pods, (name, live.route, asked[-3:], now.decisions[-3:])


@given(st.lists(st.tuples(st.sampled_from(EVENTS), pauses), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_weight_rises_and_nothing_is_promoted_before_its_pods_are_there(history: list[tuple[Event, float]]) -> None:
    world = World()
    world.apply("v1", GOOD, **merged(QUICK, {"server": {**AUTOSCALED, "replicas": 5}}))
    world.until("Serving")
    for now in looks(world, history):
        this = now.passes[-1]
        before, after, spec = this.before, this.after, this.observed.spec
        promoted = any(record.decision == "Promoted" for record in this.news)
        if after.weight <= before.weight and not promoted:
            continue
        served, weight = (after.stable, 100) if promoted else (after.canary, after.weight)
        assert served and before.stable and this.observed.router
        pods = share(max(before.stable.replicas if spec.server.autoscaling else 0, spec.server.replicas), weight)
        pods = min(pods, spec.server.autoscaling.max_replicas) if spec.server.autoscaling else pods
        assert this.observed.workloads[served.revision].ready >= pods
        assert this.observed.router.reaches(served.revision, pods)
        assert served.replicas >= pods


@given(st.lists(st.tuples(st.sampled_from([*EVENTS, *STRATEGIES]), pauses), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_pods_alone_serve_with_what_all_the_traffic_needs(history: list[tuple[Event, float]]) -> None:
    """Where pods make the split, the stable revision has all of its own whatever a Service leads to, and what leaves
    gets no more."""
    world = World()
    world.apply("v1", GOOD, **merged(QUICK, {"server": {**AUTOSCALED, "replicas": 5}, "traffic": BY_PODS}))
    world.until("Serving")
    asked = [(world.now, 5)]
    for now in looks(world, history):
        this, status = now.passes[-1], now.status
        assert status.stable
        had = {each.revision: each.replicas for each in running(this.before)}
        assert all(each.replicas <= had.get(each.revision, 0) for each in this.after.retiring)
        asked.append((now.now, status.stable.replicas))
        recent = [size for time, size in asked if time >= now.now - GRACE_SECONDS]
        recent += [size for time, size in asked if time < now.now - GRACE_SECONDS][-1:]
        assert len(now._ready(status.stable.revision)) >= min(recent), (asked[-3:], now.decisions[-3:])
