"""Routers that take over from each other at any moment of rollouts, with operators that are killed: who answers."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from tests.operator.build.test_manifests import IMAGES
from tests.operator.decide.models import GOOD, HARMFUL
from tests.operator.decide.world import NAME, OWNER, Crash, World

from serin_operator.api import LABEL_COMPONENT, LABEL_REVISION
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase
from serin_operator.build import gateway, istio
from serin_operator.build.manifests import manifests
from serin_operator.build.owner import ROUTER, SERVER
from serin_operator.decide.observed import Route, Router
from serin_operator.decide.roles import route_of, router_of
from serin_operator.decide.rollout import Decision
from serin_operator.decide.routing import SWITCH_DRAIN_SECONDS

_WRITTEN = {
    RouterType.GATEWAY_API: (("HTTPRoute", NAME), gateway.live_route),
    RouterType.ISTIO: (("VirtualService", NAME), istio.live_route),
}
_PARENTS = {"parentRefs": [{"name": "public"}]}
# Seconds that some clients still go where the Service led; those with a connection to a router for as long as it lives.
BEHIND = {SERVER: 5.0, ROUTER: SWITCH_DRAIN_SECONDS}
STEPS = [{"weight": 5, "duration": "30s"}, {"weight": 50, "duration": "30s"}]


@dataclass
class Written:
    """A route as it was written, until when a Gateway goes on with the one before, and that."""

    route: Route
    at: float
    before: Route | None


@dataclass
class Switches(World):
    """A world whose Gateways and meshes follow after a while, and in which every request has to find somebody."""

    random: Random = field(default_factory=Random)
    others: dict[RouterType, Written] = field(default_factory=dict)
    led: list[tuple[float, dict[str, str]]] = field(default_factory=list)  # where the Service led, until when

    def route_by(self, kind: RouterType) -> None:
        """The user asks for another router."""
        self.raw.get("traffic", {}).get("router", {}).pop("gatewayAPI", None)
        more = {"gatewayAPI": _PARENTS} if kind is RouterType.GATEWAY_API else {}
        self.change(traffic={"router": {"type": kind.value, **more}})

    def elapse(self, seconds: float) -> None:
        """Routers that nobody calls may be late with anything."""
        called = [self.selector, *self._before()]
        followed = self.files is not None and self.now + seconds - self.files_at >= self.router_seconds
        if followed and all(selector.get(LABEL_COMPONENT) != ROUTER for selector in called):
            self.live = self.files
        super().elapse(seconds)

    def _before(self) -> list[dict[str, str]]:
        """Where the Service led a moment ago."""
        return [selector for until, selector in self.led if until > self.now]

    def _act(self, decision: Decision) -> None:
        before_it = self.selector
        super()._act(decision)
        if before_it and before_it != self.selector:
            self.led.append((self.now + BEHIND[before_it[LABEL_COMPONENT]], before_it))
        if decision.status.stable is None:
            return
        found = manifests(OWNER, self.spec, decision.status, False, IMAGES)
        there = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}
        for kind, (key, read) in _WRITTEN.items():
            if key not in there:
                self.others.pop(kind, None)
                continue
            route, before = read(OWNER, there[key]), self.others.get(kind)
            assert route is not None and route == route_of(decision.status)
            if before is None or before.route != route:
                late = self.now + self.random.choice([0.3, 2.0, 7.0])
                self.others[kind] = Written(route, late, self._live(kind))
        if self.selector[LABEL_COMPONENT] == ROUTER:
            assert ("Deployment", OWNER.router) in there

    def _live(self, kind: RouterType) -> Route | None:
        """What clients of a Gateway or a mesh meet."""
        written = self.others.get(kind)
        return None if written is None else written.route if self.now >= written.at else written.before

    def _seen(self, kind: RouterType) -> Router:
        if kind not in _WRITTEN:
            return super()._seen(kind)
        live = self._live(kind)
        if live is None:
            return Router(problem="nobody has accepted the route")
        return Router(1, (live,), ({name: len(self._ready(name)) for name in self.pods},))

    def _flow(self, requests: int) -> None:
        """By the route of whoever serves; and the Service, which some clients call, has always somebody behind it."""
        kind = router_of(self.memory)
        live = self._live(kind)
        if self.memory.phase is not Phase.PENDING:
            assert live or kind not in _WRITTEN, f"{kind} serves, which nobody has accepted"
            for selector in (self.selector, *self._before()):
                self._leads_to_somebody(selector)
        if live is None:
            super()._flow(requests)
            return
        self.due_to_canary += requests * live.weight / 100
        to_canary = int(self.due_to_canary) if live.canary else 0
        self.due_to_canary -= to_canary
        for revision, share in ((live.canary, to_canary), (live.stable, requests - to_canary)):
            if revision and share:
                assert self._ready(revision), f"{share} requests to {revision}, which is gone"
                self._serve(revision, share)

    def _flow_to_pods(self, requests: int) -> None:
        """An operator that is killed when it has decided on a rollback leaves the canary in the Service for a while."""
        named = self.selector.get(LABEL_REVISION)
        there = {name: len(self._ready(name)) for name in self.pods if named in (None, name)}
        for name, pods in there.items():
            if pods:
                self._serve(name, requests * pods // sum(there.values()))

    def _leads_to_somebody(self, selector: dict[str, str]) -> None:
        named = selector.get(LABEL_REVISION)
        if selector[LABEL_COMPONENT] == SERVER:
            assert any(self._ready(name) for name in self.pods if named in (None, name)), selector
            return
        assert self.live is not None, "it leads to routers that are gone or have no route"
        assert self._ready(self.live.route.stable)


def one_change(world: Switches, versions: int) -> int:
    """Something that a user does, or an operator that is killed. Returns how many versions there are by now."""
    match world.random.choice(["version", "back", "crash"]):
        case "version":
            versions += 1
            world.apply(f"v{versions}", world.random.choice([GOOD, GOOD, HARMFUL]))
        case "back":
            world.apply(f"v{max(1, versions - 1)}")
        case _:
            for _ in range(world.random.randint(1, 5)):
                world.step(most=5, crash=world.random.choice([None, *Crash]))
    return versions


@pytest.mark.parametrize("seed", range(6))
def test_whoever_takes_over_at_any_moment_nobody_calls_in_vain(seed: int) -> None:
    world = Switches(traffic=200.0, random=Random(seed))
    world.router_seconds = world.random.choice([0.5, 4.0])
    replicas, keep = world.random.choice([1, 2, 4]), world.random.choice(["10s", "300s"])
    spec: dict[str, Any] = {"server": {"replicas": replicas}, "rollout": {"steps": STEPS, "keepPrevious": keep}}
    world.apply("v1", **spec)
    world.until("Serving")
    versions = 1
    for kind in world.random.sample(2 * list(RouterType), 8):
        world.route_by(kind)
        world.run(world.random.choice([1, 5, 20, 60]), most=5)
        versions = one_change(world, versions)
        world.run(world.random.choice([1, 5, 20, 60]), most=5)
    world.apply("last")
    world.run(1200, most=30)
    assert world.version == "last", world.told
    assert router_of(world.status) is world.spec.traffic.router
    assert "Switched" in world.decisions
    routing = world.status.routing
    assert routing is None or (routing.next, routing.leaving) == (None, None)
