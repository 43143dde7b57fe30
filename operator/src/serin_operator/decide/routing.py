"""Which routers carry the route, and how one takes over from another without losing a request.

Clients' Service leads to one router. Another one that the spec asks for is built beside it and gets the same route;
once it is seen to serve, the Service leads to it, and the one before stays until what it has begun has ended.
"""

from dataclasses import replace

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase, Record, Routing, Status
from serin_operator.decide import slots
from serin_operator.decide.conditions import Activity
from serin_operator.decide.observed import Observed, Workload
from serin_operator.decide.ratio import percent_of_pods
from serin_operator.decide.roles import asked_of_routers, route_of
from serin_operator.decide.words import ended

SWITCH_DRAIN_SECONDS = 15.0  # how long a router outlives its last new client: its connections end, names are forgotten


def carriers(status: Status) -> tuple[RouterType, ...]:
    """Every router that has the route: the one that clients reach, the one that comes and the one that goes."""
    routing = status.routing or Routing(RouterType.EMBEDDED)
    return tuple(dict.fromkeys(kind for kind in (routing.router, routing.next, routing.leaving) if kind))


def follow(observed: Observed, status: Status, now: float) -> Status:
    """Brings `status.routing` up to date after everything else is decided, and what its routers are asked for."""
    routing = observed.status.routing or Routing(RouterType.EMBEDDED)
    if status.stable is None:
        return status
    if status.phase is Phase.PENDING:  # nothing serves, so nothing can be lost
        routing = Routing(observed.spec.traffic.router, blue=routing.blue, green=routing.green)
    else:
        status, routing = _switch(observed, status, routing, now)
    routing = slots.follow(observed, status, routing, now)
    routing = replace(routing, weight=_weight(observed, status, routing))
    status = replace(status, routing=None if routing == Routing(RouterType.EMBEDDED) else routing)
    asked = asked_of_routers(observed.spec, status)
    return replace(status, traffic=tuple(asked[kind] for kind in carriers(status) if kind in asked))


def still_called(status: Status, now: float) -> str | None:
    """Why no canary can have traffic yet, after a switch: nobody asks the embedded routers that leave whether they know
    it, and clients may still be there.
    """
    routing = status.routing
    if routing is None or routing.leaving is not RouterType.EMBEDDED:
        return None
    if not 0 < (routing.leaving_until or now) - now <= SWITCH_DRAIN_SECONDS:  # or the clock was set back
        return None
    return "Waiting until the routers before have left, which some clients may still call."


def explained(observed: Observed, status: Status, activity: Activity) -> Activity:
    """What is done, and what a change of routers waits for."""
    routing = status.routing
    if routing is None or routing.next is None:
        return activity
    seen = observed.next_router
    why = seen.problem if seen is not None and seen.problem else f"Waiting until {routing.next} serves the route."
    if routing.next is RouterType.REPLICA_RATIO and status.canary is not None:
        why = "ReplicaRatio takes over when this rollout is over."
    text = f"{routing.router} serves on. {why}"
    if activity.reason:
        return replace(activity, message=f"{ended(activity.message)} {text}")
    return Activity("SwitchingRouter", text)


def _switch(observed: Observed, status: Status, routing: Routing, now: float) -> tuple[Status, Routing]:
    wanted = observed.spec.traffic.router
    over = routing.leaving_until is not None and routing.leaving_until <= now
    if over and routing.leaving is not wanted:
        routing = replace(routing, leaving=None, leaving_until=None)
    if wanted is routing.router:
        return status, replace(routing, next=None)
    if routing.next is not wanted or not _takes_over(observed, status, routing, wanted):
        return status, replace(routing, next=wanted)
    message = f"{wanted} splits the traffic, instead of {routing.router}."
    record = Record(now, "Switched", "RouterChanged", message, weight=status.weight)
    leaving_until = now + SWITCH_DRAIN_SECONDS
    following = replace(routing, router=wanted, next=None, leaving=routing.router, leaving_until=leaving_until)
    return status.recorded(record), following


def _takes_over(observed: Observed, status: Status, routing: Routing, wanted: RouterType) -> bool:
    """Whether the router that comes is seen to serve just what the present one has to."""
    route, seen = route_of(status), observed.next_router
    if seen is None or route is None or routing.leaving not in (None, wanted):
        return False
    # All of a canary's pods would be in the split at once, whatever its weight.
    if wanted is RouterType.REPLICA_RATIO and status.canary is not None:
        return False
    arms = [route.stable, *([route.canary] if route.canary else [])]
    return seen.serves(route) and all(seen.reaches(revision) for revision in arms)


def _weight(observed: Observed, status: Status, routing: Routing) -> float | None:
    """ReplicaRatio: the canary's part of the pods that answer, in per cent."""
    canary, stable = status.canary, status.stable
    if routing.router is not RouterType.REPLICA_RATIO or canary is None or stable is None or not status.weight:
        return None
    ready = [observed.workloads.get(each.revision, Workload()).ready for each in (canary, stable)]
    return percent_of_pods(*ready)
