"""Routers: which one clients reach, how another takes over, and what pods alone make of a weight."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.build.test_manifests import CANARY, NOW, ROLLING, STABLE
from tests.operator.decide.models import GOOD, HARMFUL
from tests.operator.decide.world import DEFAULTS, NAME, World, rolling, serving
from tests.operator.definition import make_spec

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase, Rollout, Routing, Status
from serin_operator.decide.capacity import sized
from serin_operator.decide.conditions import Activity, with_conditions
from serin_operator.decide.first_step import take_first_step
from serin_operator.decide.observed import Observed, Route, Router, Workload, unseen
from serin_operator.decide.ratio import canary_pods, percent_of_pods
from serin_operator.decide.routing import SWITCH_DRAIN_SECONDS, carriers, explained, follow

PARENTS = {"parentRefs": [{"name": "public"}]}
IDLE = replace(ROLLING, phase=Phase.SERVING, weight=0, canary=None, previous=None, retiring=(), rollout=None)
PODS: dict[str, Any] = {"server": {"replicas": 4}, "traffic": {"router": {"type": "ReplicaRatio"}}}


# --- the nearest weight


@pytest.mark.parametrize(
    ("stable", "weight", "pods", "percent"),
    [(1, 1, 1, 50.0), (1, 99, 1, 50.0), (2, 20, 1, 33.3), (4, 25, 1, 20.0), (9, 10, 1, 10.0), (10, 50, 10, 50.0)],
)
def test_pods_come_as_near_to_a_weight_as_they_can(stable: int, weight: int, pods: int, percent: float) -> None:
    assert canary_pods(stable, weight) == pods
    assert percent_of_pods(pods, stable) == percent


@given(st.integers(1, 100), st.integers(1, 99))
def test_no_other_number_of_pods_is_nearer(stable: int, weight: int) -> None:
    chosen = canary_pods(stable, weight)
    off = [abs(100 * pods / (stable + pods) - weight) for pods in range(1, stable + 1)]
    assert 1 <= chosen <= stable
    assert off[chosen - 1] == pytest.approx(min(off))


# --- one router takes over from another


def observed(status: Status = IDLE, router: str = "GatewayAPI", **changes: Any) -> Observed:
    spec = make_spec(traffic={"router": {"type": router, "gatewayAPI": PARENTS}})
    return Observed(NAME, 1, None, spec, status, DEFAULTS, **changes)


def seen(route: Route, *revisions: str) -> Router:
    return Router(1, (route,), (dict.fromkeys(revisions, 1),))


def test_the_embedded_router_alone_leaves_no_word_in_the_status() -> None:
    assert follow(observed(router="Embedded"), IDLE, NOW).routing is None


def test_another_router_comes_beside_the_present_one() -> None:
    status = follow(observed(), IDLE, NOW)
    assert status.routing == Routing(RouterType.EMBEDDED, next=RouterType.GATEWAY_API)
    assert carriers(status) == (RouterType.EMBEDDED, RouterType.GATEWAY_API)


COMING = replace(IDLE, routing=Routing(RouterType.EMBEDDED, next=RouterType.GATEWAY_API))
COMING_IN_ROLLOUT = replace(ROLLING, routing=COMING.routing)


@pytest.mark.parametrize(
    ("status", "following"),
    [
        pytest.param(COMING, None, id="was not looked at"),
        pytest.param(COMING, unseen("RouterNotInstalled", "The cluster has no HTTPRoute."), id="is not there"),
        pytest.param(COMING, seen(Route(CANARY), CANARY), id="serves another route"),
        pytest.param(COMING, seen(Route(STABLE)), id="reaches nobody"),
        pytest.param(COMING_IN_ROLLOUT, seen(Route(STABLE), STABLE, CANARY), id="has not the weight yet"),
        pytest.param(COMING_IN_ROLLOUT, seen(Route(STABLE, CANARY, 25), STABLE), id="does not reach the canary"),
    ],
)
def test_the_present_router_stays_while_the_next_one(status: Status, following: Router | None) -> None:
    after = follow(observed(status, next_router=following), status, NOW)
    assert after.routing == status.routing
    assert after.history == status.history


@pytest.mark.parametrize(("status", "route"), [(COMING, Route(STABLE)), (COMING_IN_ROLLOUT, Route(STABLE, CANARY, 25))])
def test_a_router_that_is_seen_to_serve_takes_over_and_the_one_before_drains(status: Status, route: Route) -> None:
    after = follow(observed(status, next_router=seen(route, STABLE, CANARY)), status, NOW)
    until = NOW + SWITCH_DRAIN_SECONDS
    assert after.routing == Routing(RouterType.GATEWAY_API, leaving=RouterType.EMBEDDED, leaving_until=until)
    assert (after.history[0].decision, after.history[0].reason) == ("Switched", "RouterChanged")
    assert set(carriers(after)) == {RouterType.GATEWAY_API, RouterType.EMBEDDED}
    assert follow(observed(after), after, until - 1).routing == after.routing
    assert follow(observed(after), after, until).routing == Routing(RouterType.GATEWAY_API)


def test_what_was_decided_in_this_pass_has_to_be_seen_too() -> None:
    """The next router is seen to serve the weight of before, and a new one has just been decided."""
    following = seen(Route(STABLE, CANARY, 25), STABLE, CANARY)
    after = follow(observed(COMING_IN_ROLLOUT, next_router=following), replace(COMING_IN_ROLLOUT, weight=50), NOW)
    assert after.routing == COMING.routing


def test_a_change_of_mind_before_the_switch_drops_the_next_router() -> None:
    assert follow(observed(COMING, router="Embedded"), COMING, NOW).routing is None


def test_a_router_that_drains_can_be_gone_back_to_but_no_third_one_before_it_has() -> None:
    draining = replace(IDLE, routing=Routing(RouterType.GATEWAY_API, None, RouterType.EMBEDDED, NOW + 5))
    assert draining.routing
    both = seen(Route(STABLE), STABLE)
    back = replace(draining, routing=replace(draining.routing, next=RouterType.EMBEDDED))
    after = follow(observed(back, "Embedded", next_router=both), back, NOW)
    assert after.routing
    assert (after.routing.router, after.routing.leaving) == (RouterType.EMBEDDED, RouterType.GATEWAY_API)
    third = replace(draining, routing=replace(draining.routing, next=RouterType.ISTIO))
    waits = follow(observed(third, "Istio", next_router=both), third, NOW)
    assert waits.routing == third.routing


def test_while_nothing_serves_the_router_is_the_one_that_is_asked_for() -> None:
    pending = replace(IDLE, phase=Phase.PENDING)
    assert follow(observed(pending), pending, NOW).routing == Routing(RouterType.GATEWAY_API)


def test_what_is_missing_is_told_while_stable_serves_on() -> None:
    missing = unseen("RouterNotInstalled", "The cluster has no HTTPRoute.")
    told = explained(observed(COMING, next_router=missing), COMING, Activity.none())
    assert told == Activity("SwitchingRouter", "Embedded serves on. The cluster has no HTTPRoute.")
    busy = explained(observed(COMING, next_router=missing), COMING, Activity("Evaluating", "Step 1 of 2 at 5 %: 30 s."))
    assert busy == Activity("Evaluating", "Step 1 of 2 at 5 %: 30 s. Embedded serves on. The cluster has no HTTPRoute.")
    status = with_conditions(observed(COMING, next_router=missing), COMING, told, NOW)
    condition = status.condition("RouterReady")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "RouterNotInstalled")
    assert with_conditions(observed(COMING), COMING, told, NOW).condition("RouterReady") is None


# --- pods alone


def test_a_rollout_by_pods_is_promoted_with_all_of_its_pods() -> None:
    world = rolling(GOOD, **PODS, rollout={"steps": [{"weight": 20, "duration": "60s"}]})
    canary, stable = world.revision("v2"), world.revision("v1")
    assert {name: len(pods) for name, pods in world.pods.items()} == {stable: 4, canary: 1}
    assert world.status.routing == Routing(RouterType.REPLICA_RATIO, weight=20.0)
    assert "Step 1 of 1 at 20 % (20 % of the pods)" in world.told
    world.until_activity("ScalingCanary", 300)
    while "Promoted" not in world.decisions:
        assert world.behind >= 4, "fewer pods than before answer"
        world.step()
    world.step()
    assert world.selector["serin.dev/revision"] == canary
    assert len(world.pods[canary]) == 4
    assert world.status.routing == Routing(RouterType.REPLICA_RATIO)


def test_no_canary_gets_traffic_while_pods_without_a_role_would_get_it_too() -> None:
    """The world fails when they do. The old stable is warm when the next rollout begins."""
    world = rolling(GOOD, **PODS)
    world.until("Promoted")
    warm = world.revision("v1")
    world.until_activity("", 120)
    assert len(world.pods[warm]) == 4
    world.apply("v3")
    world.until("Started")
    world.step()
    assert world.pods[warm] == []
    world.until("Promoted")


def test_a_rollback_by_pods_leaves_the_stable_ones_alone_in_one_pass() -> None:
    world = rolling(HARMFUL, **PODS)
    world.until("RolledBack")
    world.step()
    assert world.selector["serin.dev/revision"] == world.revision("v1")
    assert len(world.pods[world.revision("v1")]) == 4
    assert world.status.routing == Routing(RouterType.REPLICA_RATIO)


def test_the_share_of_requests_is_not_judged_where_connections_make_it() -> None:
    """Three quarters of what is the canary's by its pods go to stable, for hours."""
    world = rolling(GOOD, **PODS, rollout={"steps": [{"weight": 50, "duration": "1h"}]})
    world.traffic = 1000.0
    world.run(600)
    assert world.activity == "Evaluating"


def test_a_canary_whose_other_pods_do_not_come_is_not_promoted() -> None:
    world = rolling(GOOD, **PODS, rollout={"steps": [{"weight": 20, "duration": "60s"}]})
    world.start_seconds = 1e6
    world.until_activity("ScalingCanary", 300)
    world.run(600)
    assert world.activity == "ScalingCanary"
    assert world.behind == 5


def test_from_the_embedded_router_to_pods_and_back_under_load() -> None:
    world = serving(server={"replicas": 3})
    for router in ("ReplicaRatio", "Embedded"):
        world.change(traffic={"router": {"type": router}})
        world.until("Switched", within=60)
        assert world.status.routing is not None
        while world.status.routing is not None and world.status.routing.leaving is not None:
            world.step()
    assert world.status.routing is None
    before = world.served[world.revision("v1")]
    world.run(10)
    assert world.served[world.revision("v1")] == pytest.approx(before + 1000, abs=100)


def test_pods_take_over_only_between_rollouts() -> None:
    world = rolling(GOOD, server={"replicas": 3}, rollout={"steps": [{"weight": 20, "duration": "60s"}]})
    world.change(traffic={"router": {"type": "ReplicaRatio"}})
    world.run(5)
    assert world.told.endswith(" Embedded serves on. ReplicaRatio takes over when this rollout is over.")
    assert world.until("Promoted")
    assert "Switched" not in world.decisions
    world.until("Switched")


def test_pods_that_are_wanted_where_pods_make_the_split() -> None:
    """The canary has been larger, and is not waited for to drain; nobody without a role has pods."""
    spec = {"server": {"replicas": 4}, "rollout": {"canaryReplicas": "Full"}}
    status = replace(ROLLING, canary=ROLLING.canary and replace(ROLLING.canary, replicas=4))
    by_pods = replace(status, routing=Routing(RouterType.REPLICA_RATIO))
    for before, pods in ((status, [4, 4, 4]), (by_pods, [4, 1, 0])):
        after = sized(replace(observed(before), spec=make_spec(**spec)), before, NOW)
        assert [revision.replicas for revision in (after.stable, after.canary, after.previous) if revision] == pods
    assert [revision.replicas for revision in after.retiring] == [0]


def test_the_real_weight_follows_the_pods_that_answer() -> None:
    status = replace(ROLLING, routing=Routing(RouterType.REPLICA_RATIO))
    workloads = {STABLE: Workload(3), CANARY: Workload(1)}
    after = follow(observed(status, "ReplicaRatio", workloads=workloads), status, NOW)
    assert after.routing
    assert after.routing.weight == 25.0


def test_a_world_begins_with_any_router() -> None:
    world = World()
    world.apply("v1", **PODS)
    world.until("Serving")
    assert world.status.routing == Routing(RouterType.REPLICA_RATIO)


def test_no_canary_gets_traffic_while_clients_may_still_be_at_routers_that_leave() -> None:
    """Nobody asks those any more whether they know the canary."""
    until = NOW + 10
    routing = Routing(RouterType.REPLICA_RATIO, leaving=RouterType.EMBEDDED, leaving_until=until)
    status = replace(ROLLING, weight=0, rollout=Rollout(NOW), routing=routing)
    reached = Router(1, (Route(STABLE),), ({STABLE: 2, CANARY: 2},))
    at_once = ("Paused before the first step, until rollout.paused is false.", Phase.PAUSED)
    held = "Waiting until the routers before have left, which some clients may still call."
    for kind, moment, told in (
        (RouterType.EMBEDDED, until - 1, (held, status.phase)),
        (RouterType.EMBEDDED, until, at_once),
        (RouterType.EMBEDDED, until - SWITCH_DRAIN_SECONDS - 1, at_once),  # the clock was set back
        (RouterType.GATEWAY_API, until - 1, at_once),
    ):
        left = replace(status, routing=replace(routing, leaving=kind))
        spec, ready = make_spec(rollout={"paused": True}), Workload(ready=2)
        seen_now = Observed(NAME, 1, None, spec, left, DEFAULTS, router=reached, workloads={CANARY: ready})
        after, activity = take_first_step(seen_now, left, ready, moment)
        assert (activity.message, after.phase) == told
