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
from serin_operator.decide.roles import candidate_of, spec_of

# Proxies follow a moment after a Gateway has said that it accepts a route, and after a Service has other pods.
IDLE_SECONDS = 5.0
SETTLE_SECONDS = 3.0

Pair = tuple[Slot | None, Slot | None]


def follow(observed: Observed, status: Status, routing: Routing, now: float) -> Routing:
    """The slots as they have to be from now on. A Gateway that is on its way out keeps those that it has."""
    router = _gateway(observed, routing)
    if router is None and routing.leaving is RouterType.GATEWAY_API:
        return routing
    own_route = spec_of(RouterType.GATEWAY_API, observed.spec, status).traffic.own_route
    if router is None or own_route is None:
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
    settling = [slot.since + SETTLE_SECONDS for slot in slots if not slot.settled and slot.revision in needed]
    placed = {slot.revision for slot in slots}
    waiting = any(revision not in placed for revision in needed)
    return settling + [slot.idle + IDLE_SECONDS for slot in slots if waiting and slot.idle is not None]


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
    lasted = now - slot.since >= SETTLE_SECONDS
    settled = slot.settled or (lasted and router.reaches(slot.revision))
    # A Service that could not be led in that time is not settled as soon as it is.
    since = now if lasted and not settled and slot.revision in needed else slot.since
    unused = slot.revision not in needed and weighted is not None and slot.revision not in weighted
    idle = (slot.idle or now) if unused else None
    return replace(slot, since=since, settled=settled, idle=idle)


def _with_a_slot(revision: str, pair: Pair, now: float) -> Pair:
    """The pair with one for this revision, if it has none and one is free."""
    if any(slot is not None and slot.revision == revision for slot in pair):
        return pair
    blue, green = pair
    if _free(blue, now):
        return Slot(revision, now), green
    if _free(green, now):
        return blue, Slot(revision, now)
    return pair


def _free(slot: Slot | None, now: float) -> bool:
    return slot is None or (slot.idle is not None and now - slot.idle >= IDLE_SECONDS)
