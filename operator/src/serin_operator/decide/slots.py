"""Which of two Services with fixed names leads to which revision, for a route that a user wrote.

A user's route cannot name a revision's own Service, so it names two that take turns. Which revision a Service leads to
and which weight it has are in two objects, and Gateways follow both at moments of their own. So a Service is led to
another revision only after it was seen without a weight for a while, and gets a weight only when it has led there for a
while. A promotion changes weights alone.
"""

from dataclasses import replace

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase, Routing, Slot, Status
from serin_operator.decide.observed import Observed, Router
from serin_operator.decide.roles import candidate_of, router_of, spec_of

# Proxies follow a moment after a Gateway has said that it accepts a route, and after a Service has other pods.
IDLE_SECONDS = 5.0
SETTLE_SECONDS = 3.0

Pair = tuple[Slot | None, Slot | None]


def follow(observed: Observed, status: Status, routing: Routing, now: float) -> Routing:
    """The slots as they have to be from now on. A Gateway that is on its way out keeps those that it has."""
    router = _gateway(observed, routing)
    if router is None and routing.leaving is RouterType.GATEWAY_API:
        return routing
    if router is None or _own_route(observed, status) is None:
        return replace(routing, blue=None, green=None)
    needed, weighted = _needed(status), _weighted(router)
    taken = [routing.blue, routing.green]
    if status.phase is Phase.PENDING:  # nothing was ever served, so whoever is not needed has no requests to lose
        taken = [slot if slot and slot.revision in needed else None for slot in taken]
    blue, green = (_seen(slot, needed, weighted, router, now) for slot in taken)
    for revision in needed:
        blue, green = _with_a_slot(revision, (blue, green), now)
    return replace(routing, blue=blue, green=green)


def due(status: Status) -> list[float]:
    """When something can follow although no event comes."""
    slots, needed = status.routing.slots if status.routing else (), _needed(status)
    coming = [slot.since for slot in slots if slot.revision in needed and not slot.settled]
    settling = [since + SETTLE_SECONDS for since in coming if since is not None]
    placed = {slot.revision for slot in slots}
    waiting = any(revision not in placed for revision in needed)
    return settling + [slot.idle + IDLE_SECONDS for slot in slots if waiting and slot.idle is not None]


def waited_for(observed: Observed, status: Status) -> str | None:
    """What a revision with ready pods that no Gateway reaches waits for, where a user's route names two Services."""
    if router_of(status) is not RouterType.GATEWAY_API or _own_route(observed, status) is None:
        return None
    return f"Waiting until a Service leads to it, {observed.name}-blue or {observed.name}-green."


def _own_route(observed: Observed, status: Status) -> str | None:
    """The user's route, if that is the one that Gateways have or are to have."""
    return spec_of(RouterType.GATEWAY_API, observed.spec, status).traffic.own_route


def _gateway(observed: Observed, routing: Routing) -> Router | None:
    """What the Gateways are seen to serve; None where they are not to serve anything."""
    if routing.router is RouterType.GATEWAY_API:
        return observed.router or Router()
    return (observed.next_router or Router()) if routing.next is RouterType.GATEWAY_API else None


def _needed(status: Status) -> tuple[str, ...]:
    """The arms, stable first. A canary has no use for a slot, and could not fill one, before a pod of it is ready."""
    stable = status.stable.revision if status.stable else None
    return tuple(revision for revision in (stable, candidate_of(status)) if revision)


def _weighted(router: Router) -> set[str] | None:
    """The revisions that get requests in any Gateway; None while that is not known of all."""
    if not router.ready or len(router.routes) != router.ready:
        return None
    return {arm for route in router.routes for arm in (route.stable, route.canary if route.weight else None) if arm}


def _seen(
    slot: Slot | None, needed: tuple[str, ...], weighted: set[str] | None, router: Router, now: float
) -> Slot | None:
    """The slot with what has become of it by itself."""
    if slot is None:
        return None
    since = slot.since
    if not slot.settled:  # the time counts from when it is seen to lead there, however long after it was to
        since = (slot.since or now) if router.reaches(slot.revision) else None
    settled = slot.settled or (since is not None and now - since >= SETTLE_SECONDS)
    unused = slot.revision not in needed and weighted is not None and slot.revision not in weighted
    idle = (slot.idle or now) if unused else None
    return replace(slot, since=since, settled=settled, idle=idle)


def _with_a_slot(revision: str, pair: Pair, now: float) -> Pair:
    """The pair with one for this revision, if it has none and one is free."""
    if any(slot is not None and slot.revision == revision for slot in pair):
        return pair
    blue, green = pair
    if _free(blue, now):
        return Slot(revision), green
    if _free(green, now):
        return blue, Slot(revision)
    return pair


def _free(slot: Slot | None, now: float) -> bool:
    return slot is None or (slot.idle is not None and now - slot.idle >= IDLE_SECONDS)
