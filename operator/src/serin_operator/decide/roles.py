"""Which revisions run, which route a status calls for, who serves it how, and whose counters are compared."""

from dataclasses import replace

from serin_operator.api.spec import Rollout as Wanted
from serin_operator.api.spec import RouterType, Shadow, Spec, Strategy, Traffic
from serin_operator.api.status import Revision, Status
from serin_operator.decide.observed import Route


def route_of(status: Status) -> Route | None:
    """The route that a status calls for; None before there is anything to route to."""
    if status.stable is None:
        return None
    mirror = status.rollout.mirror if status.rollout else 0
    if status.canary is None or (status.weight == 0 and mirror == 0):
        return Route(stable=status.stable.revision)
    return Route(status.stable.revision, status.canary.revision, status.weight, mirror)


def candidate_of(status: Status) -> str | None:
    """The revision that testers reach: the canary once it is there, and as long as it is on trial."""
    canary = status.canary
    return canary.revision if canary and (canary.ready_replicas > 0 or status.weight > 0) else None


def router_of(status: Status) -> RouterType:
    """What clients reach."""
    return status.routing.router if status.routing else RouterType.EMBEDDED


def asked_of_routers(spec: Spec, status: Status) -> dict[RouterType, Traffic]:
    """The traffic settings of each router: of the one that the spec asks for, and what others were last asked for."""
    return {traffic.router: traffic for traffic in (*status.traffic, spec.traffic)}


def spec_of(router: RouterType, spec: Spec, status: Status) -> Spec:
    """The spec as it is for this router: one that serves keeps its settings until it has left.

    Most of them are forbidden beside another type of router, so that whoever asks for that has to drop them.
    """
    return replace(spec, traffic=asked_of_routers(spec, status).get(router, spec.traffic))


def kept(status: Status) -> tuple[Revision, ...]:
    """Revisions that run without a role: the old stable while it is warm, and those that drain."""
    return ((status.previous,) if status.previous else ()) + status.retiring


def running(status: Status) -> tuple[Revision, ...]:
    """Every revision that has pods: exactly those that the router may know."""
    return tuple(revision for revision in (status.stable, status.canary, *kept(status)) if revision)


def compares(strategy: Strategy) -> bool:
    """Whether both arms get requests of the same kind during a rollout, so that they can be compared."""
    return strategy in (Strategy.CANARY, Strategy.SHADOW)


def shadow_of(strategy: Strategy, wanted: Wanted) -> Shadow | None:
    """What the canary gets copies of before it gets requests of its own, by the strategy that the rollout began with.

    A mere shadow whose share was taken out of the spec meanwhile gets what the first step would have been.
    """
    if strategy is Strategy.SHADOW:
        return wanted.shadow or Shadow(wanted.steps[0].weight, wanted.steps[0].duration)
    return wanted.shadow if strategy is Strategy.CANARY else None


def preview_of(name: str) -> str:
    """The Service that reaches the new revision of this ModelDeployment alone, by the strategy BlueGreen."""
    return f"{name}-preview"


def arms(status: Status) -> tuple[str, ...]:
    """The revisions that a look at the counters must not miss.

    A canary that starts has no counters yet. After a promotion, an old stable without a ready pod gets no traffic, and
    what the promoted revision does is still compared with its record.
    """
    if status.stable is None:
        return ()
    starts = status.rollout is not None and status.rollout.step is None
    other = status.previous if status.watch is not None else status.canary
    optional = starts or status.watch is not None
    seen = other is not None and (other.ready_replicas > 0 or not optional)
    return (status.stable.revision, other.revision) if other is not None and seen else (status.stable.revision,)
