"""Two Services that take turns: whatever a rollout does, and however late Gateways are, no weight meets a stranger.

And whenever the operator is killed.
"""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.operator.build.test_manifests import NOW, OWNER, revision
from tests.operator.decide.world import DEFAULTS, NAME
from tests.operator.definition import make_spec

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase, Rollout, Routing, Slot, Status
from serin_operator.build.own_route import live_route, names, weights
from serin_operator.decide.first_step import take_first_step
from serin_operator.decide.observed import Observed, Route, Router, Workload, unseen
from serin_operator.decide.roles import route_of, running
from serin_operator.decide.routing import follow
from serin_operator.decide.slots import IDLE_SECONDS, SETTLE_SECONDS, due

SPEC = make_spec(traffic={"router": {"type": "GatewayAPI", "gatewayAPI": {"routeRef": {"name": "public"}}}})
TICK = 0.5
WRITES = 4  # of a pass, in this order: the status, where each Service leads, the weights
BLUE, GREEN = names(OWNER.name)


def first(name: str = "0") -> Status:
    stable = revision(10 * name, ready_replicas=1)
    return Status(phase=Phase.SERVING, stable=stable, routing=Routing(RouterType.GATEWAY_API))


@dataclass
class Cluster:
    """The API server's two Services and a route, and what was in them at each tick.

    status: as the operator has it. held: as the API server does, from which the next operator goes on.
    """

    status: Status = field(default_factory=first)
    held: Status = field(default_factory=first)
    now: float = NOW
    leads: dict[str, str] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=lambda: {BLUE: 1, GREEN: 0})
    past: list[tuple[dict[str, str], dict[str, int]]] = field(default_factory=list)
    accepted: bool = True
    refused: bool = False  # whether Services can not be changed for now

    @property
    def router(self) -> Router:
        """What Gateways are seen to serve, as `observe` reads it."""
        ready = {each.revision: 1 for each in running(self.status) if each.revision in self.leads.values()}
        assert self.status.stable
        backends = [{"name": name, "weight": weight} for name, weight in self.weights.items()]
        route = live_route(backends, self.leads, self.status.stable.revision)
        live = (route,) if route and self.accepted else ()
        return Router(1, live, (ready,))

    @property
    def served(self) -> bool:
        route = route_of(self.status)
        return route is not None and self.router.serves(route)

    def tick(self, writes: int = WRITES) -> None:
        """One pass, after so many writes of which the operator is killed."""
        observed = Observed(NAME, 1, None, SPEC, self.status, DEFAULTS, router=self.router)
        self.status = follow(observed, self.status, self.now)
        assert self.status.routing
        wanted = weights(OWNER, SPEC, self.status)
        assert wanted
        if writes > 0:
            self.held = self.status
        for name, slot in [(BLUE, self.status.routing.blue), (GREEN, self.status.routing.green)][: max(0, writes - 1)]:
            if not self.refused:
                others = {other: revision for other, revision in self.leads.items() if other != name}
                self.leads = others | ({name: slot.revision} if slot else {})
        if writes == WRITES:
            self.weights = dict(wanted.of)
        self.rest(TICK)

    def kill(self, writes: int, seconds: float) -> None:
        """The operator dies in the middle of a pass, and the next one comes after so many seconds."""
        self.tick(writes)
        self.status = self.held
        self.rest(seconds)

    def rest(self, seconds: float) -> None:
        """Nobody acts."""
        for _ in range(int(seconds / TICK)):
            self.past.append((self.leads, self.weights))
            self.now += TICK

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK)):
            self.tick()

    # --- what a rollout does -------------------------------------------------------------------------------

    def do(self, what: str) -> None:
        """One move of a rollout, where it is possible: those to more wait until the route serves."""
        status = self.status
        match what:
            case "begin" if status.canary is None:
                generation = status.observed_generation + 1
                name = str(generation % 10) + "x" * 9
                gone = tuple(each for each in status.retiring if each.revision != name)
                previous = status.previous if status.previous and status.previous.revision != name else None
                canary = revision(name, ready_replicas=1)
                self.status = replace(
                    status,
                    observed_generation=generation,
                    canary=canary,
                    rollout=Rollout(self.now),
                    retiring=gone[-3:],
                    previous=previous,
                )
            case "raise" if status.canary and self.served and self.router.reaches(status.canary.revision):
                self.status = replace(status, weight=min(99, status.weight + 33))
            case "promote" if status.canary and self.served and self.router.reaches(status.canary.revision):
                self.status = replace(
                    status, stable=status.canary, previous=status.stable, canary=None, rollout=None, weight=0
                )
            case "roll back" if status.canary:
                retiring = (*status.retiring, status.canary)
                self.status = replace(status, canary=None, rollout=None, weight=0, retiring=retiring)
            case "revert" if status.previous and status.canary is None and self.served:
                self.status = replace(status, stable=status.previous, previous=status.stable)
            case "begin with the previous" if status.previous and status.canary is None:
                canary = replace(status.previous, ready_replicas=1)
                self.status = replace(status, canary=canary, rollout=Rollout(self.now), previous=None)
            case "refuse Services":
                self.refused = not self.refused
            case "lose sight":
                self.accepted = not self.accepted

    def strangers(self) -> list[str]:
        """Where a Gateway that follows weights and Services each within their time would have sent a request wrong."""
        late, later = int((SETTLE_SECONDS - TICK) / TICK), int((IDLE_SECONDS - TICK) / TICK)
        return [
            f"tick {i}: {name} {weight} to {leads.get(name)}, meant was {meant.get(name)}"
            for i in range(len(self.past))
            for j in range(max(0, i - later), i + 1)
            for k in range(max(0, i - late), i + 1)
            for meant, given in [self.past[j]]
            for leads, _ in [self.past[k]]
            for name, weight in given.items()
            if weight and leads.get(name) != meant.get(name)
        ]


KILLS = ("killed before the status", "killed before Services", "killed between Services", "killed before the weights")
MOVES = (
    "begin",
    "begin with the previous",
    "raise",
    "promote",
    "roll back",
    "revert",
    "lose sight",
    "refuse Services",
    *KILLS,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 20)), max_size=14))
def test_no_weight_meets_a_revision_that_it_was_not_meant_for(moves: list[tuple[str, int]]) -> None:
    """And when the moves are over, the route serves what it should within seconds."""
    cluster = Cluster()
    cluster.run(2 * SETTLE_SECONDS)
    begun = len(cluster.past)
    for what, ticks in moves:
        if what in KILLS:
            cluster.kill(KILLS.index(what), ticks * TICK)
        else:
            cluster.do(what)
            cluster.run(ticks * TICK)
    cluster.accepted, cluster.refused = True, False
    cluster.run(2 * (IDLE_SECONDS + SETTLE_SECONDS))
    assert cluster.served
    del cluster.past[:begun]
    assert cluster.strangers() == []


@pytest.mark.parametrize("writes", range(WRITES), ids=KILLS)
def test_an_operator_that_is_killed_anywhere_leaves_to_the_next_one_what_it_can_finish(writes: int) -> None:
    """A promotion and a rollback, with a kill in each pass of them: all end as they would."""
    script = [("begin", 2), ("raise", 16), ("promote", 4), ("begin", 2), ("raise", 20), ("roll back", 16)]

    def is_to(what: str, status: Status) -> bool:
        return not status.weight if what == "raise" else (status.canary is None) == (what == "begin")

    def ending(at: int | None) -> tuple[Cluster, list[str]]:
        cluster, passes = Cluster(), 0
        cluster.run(10)
        begun = len(cluster.past)
        for what, ticks in script:
            killed = at is not None and passes <= at < passes + ticks
            for _ in range(ticks + 12 * killed):
                if is_to(what, cluster.status):
                    cluster.do(what)
                if passes == at:
                    cluster.kill(writes, 3 * TICK)
                else:
                    cluster.tick()
                passes += 1
        del cluster.past[:begun]
        return cluster, cluster.strangers()

    undisturbed, strangers = ending(None)
    assert undisturbed.served
    assert strangers == []
    for at in range(sum(ticks for _, ticks in script)):
        cluster, strangers = ending(at)
        assert (at, cluster.leads, cluster.weights, strangers) == (at, undisturbed.leads, undisturbed.weights, [])


def test_the_first_revision_gets_the_blue_service_and_a_weight_when_gateways_know() -> None:
    cluster = Cluster()
    cluster.tick()
    assert cluster.leads == {BLUE: "0" * 10}
    assert not cluster.status.routing.slots[0].settled  # type: ignore[union-attr]
    cluster.run(SETTLE_SECONDS + 2 * TICK)
    assert cluster.served
    assert cluster.weights == {BLUE: 100, GREEN: 0}


def test_a_dropped_canary_gets_nothing_while_the_old_stable_waits_for_its_turn() -> None:
    """The spec goes back and forth between the two revisions before it."""
    cluster = Cluster()
    cluster.run(10)
    for what in ("begin", "raise", "promote"):
        cluster.do(what)
        cluster.run(10)
    cluster.do("begin")
    cluster.run(10)
    assert cluster.status.canary
    dropped = cluster.status.canary.revision
    for what in ("roll back", "revert", "begin with the previous"):
        cluster.do(what)
        cluster.tick()
    begun = len(cluster.past)
    cluster.run(30)
    assert cluster.served
    for leads, weighed in cluster.past[begun - 3 :]:
        assert not any(weight for name, weight in weighed.items() if leads.get(name) == dropped)


def test_revisions_before_the_first_that_serves_take_no_turns() -> None:
    cluster = Cluster(status=replace(first(), phase=Phase.PENDING), accepted=False)
    for name in "123":
        cluster.run(2)
        cluster.status = replace(cluster.status, stable=revision(10 * name, ready_replicas=1))
    cluster.accepted = True
    cluster.run(2 * SETTLE_SECONDS)
    assert cluster.served
    assert cluster.leads[BLUE] == "3" * 10


def test_a_slot_that_nobody_needs_wakes_no_loop() -> None:
    left = Routing(RouterType.GATEWAY_API, blue=Slot("0" * 10, NOW, settled=True), green=Slot("9" * 10, NOW))
    assert due(replace(first(), routing=left)) == []


def test_a_promotion_changes_weights_alone_and_the_next_canary_takes_the_other_turn() -> None:
    cluster = Cluster()
    cluster.run(10)
    cluster.do("begin")
    cluster.run(10)
    before = cluster.leads
    cluster.do("promote")
    cluster.run(10)
    assert (cluster.leads, cluster.weights) == (before, {BLUE: 0, GREEN: 100})
    cluster.do("begin")
    cluster.run(10)
    assert cluster.leads[GREEN] == before[GREEN]
    assert cluster.leads[BLUE] not in before.values()


def test_a_canary_without_a_ready_pod_has_no_slot() -> None:
    cluster = Cluster()
    cluster.run(10)
    cluster.status = replace(cluster.status, canary=revision("1" * 10, ready_replicas=0), rollout=Rollout(NOW))
    cluster.tick()
    assert GREEN not in cluster.leads


def test_a_service_keeps_its_revision_while_nobody_sees_what_gateways_serve() -> None:
    cluster = Cluster()
    cluster.run(10)
    cluster.do("begin")
    cluster.run(10)
    cluster.do("promote")
    cluster.accepted = False
    cluster.do("begin")
    cluster.run(30)
    assert cluster.leads[BLUE] == "0" * 10


def test_without_a_service_that_reaches_it_a_slot_never_gets_a_weight() -> None:
    """Such as when its name is taken by somebody else's."""
    status = replace(first(), routing=Routing(RouterType.GATEWAY_API, blue=Slot("0" * 10, NOW)))
    for router in (unseen("RouteNotFound", "it is not there"), Router(1, (), ({},))):
        observed = Observed(NAME, 1, None, SPEC, status, DEFAULTS, router=router)
        after = follow(observed, status, NOW + 100)
        assert after.routing
        assert not after.routing.slots[0].settled


@pytest.mark.parametrize("seen", [unseen("RouteNotFound", "it is not there"), Router(1, (), ({},))])
def test_a_service_that_can_not_be_led_changes_nothing_by_itself(seen: Router) -> None:
    """Nothing to write, and nothing to wake for: an event tells when it does."""
    status = follow(Observed(NAME, 1, None, SPEC, first(), DEFAULTS, router=seen), first(), NOW)
    later = [follow(Observed(NAME, 1, None, SPEC, status, DEFAULTS, router=seen), status, NOW + s) for s in range(60)]
    assert {each.routing for each in later} == {status.routing}
    assert due(status) == []


def test_a_canary_that_waits_for_a_service_says_so() -> None:
    status = replace(first(), canary=revision("1" * 10, replicas=1, ready_replicas=1), rollout=Rollout(NOW))
    seen = Router(1, (Route("0" * 10),), ({"0" * 10: 1},))
    ready = {"1" * 10: Workload(ready=1)}
    observed = Observed(NAME, 1, None, SPEC, status, DEFAULTS, router=seen, workloads=ready)
    _, activity = take_first_step(observed, status, Workload(ready=1), NOW)
    assert activity.reason == "StartingCanary"
    assert activity.message == f"Waiting until a Service leads to it, {BLUE} or {GREEN}."
    embedded = replace(status, routing=None)
    _, activity = take_first_step(replace(observed, status=embedded), embedded, Workload(ready=1), NOW)
    assert activity.message == "Waiting for the routers to reach the canary."


def test_a_service_that_is_led_late_gets_its_weight_as_long_after_that_as_any() -> None:
    cluster = Cluster()
    cluster.run(10)
    cluster.refused = True
    cluster.do("begin")
    cluster.run(SETTLE_SECONDS - TICK)
    cluster.refused = False
    cluster.tick()
    cluster.do("raise")
    begun = len(cluster.past)
    cluster.run(10)
    assert cluster.weights[GREEN]
    assert not any(weighed[GREEN] for _, weighed in cluster.past[begun:][: int((SETTLE_SECONDS - TICK) / TICK)])


def test_a_loop_is_woken_when_a_slot_settles_and_when_one_is_free() -> None:
    status = replace(first(), routing=Routing(RouterType.GATEWAY_API, blue=Slot("0" * 10, NOW)))
    assert due(status) == [NOW + SETTLE_SECONDS]
    taken = Routing(
        RouterType.GATEWAY_API,
        blue=Slot("0" * 10, NOW, settled=True),
        green=Slot("9" * 10, NOW, settled=True, idle=NOW + 1),
    )
    assert due(replace(status, routing=taken)) == []
    waits = replace(status, canary=revision("1" * 10, ready_replicas=1), routing=taken)
    assert due(waits) == [NOW + 1 + IDLE_SECONDS]


def test_without_a_route_of_one_s_own_there_are_no_slots() -> None:
    spec = make_spec(traffic={"router": {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}}})
    status = replace(first(), routing=Routing(RouterType.GATEWAY_API, blue=Slot("0" * 10, NOW)))
    after = follow(Observed(NAME, 1, None, spec, status, DEFAULTS), status, NOW)
    assert after.routing == Routing(RouterType.GATEWAY_API)


def test_a_router_that_goes_keeps_its_services_until_it_has_gone() -> None:
    spec = make_spec(traffic={"router": {"type": "Embedded"}})
    blue = Slot("0" * 10, NOW, settled=True)
    going = Routing(RouterType.EMBEDDED, leaving=RouterType.GATEWAY_API, leaving_until=NOW + 10, blue=blue)
    status = replace(first(), routing=going)
    observed = Observed(NAME, 1, None, spec, status, DEFAULTS, workloads={"0" * 10: Workload(1)})
    assert follow(observed, status, NOW).routing == going
    assert follow(observed, status, NOW + 11).routing is None
