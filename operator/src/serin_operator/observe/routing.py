"""The port of routers, its reading half: what each kind of router is seen to serve.

`build.routing` has the other half, which writes routes.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import aiohttp

from serin_operator.api.spec import RouterType, Spec
from serin_operator.api.status import Status
from serin_operator.build.owner import SERVER
from serin_operator.decide.observed import Router, unseen
from serin_operator.decide.roles import route_of, spec_of
from serin_operator.observe.gateways import of_gateway, of_mesh, of_own_route
from serin_operator.observe.pods import Pod
from serin_operator.observe.ratio import of_pods
from serin_operator.observe.routers import ask_routers
from serin_operator.observe.routes import Place, Routes


@dataclass(frozen=True, slots=True)
class Sight:
    """Where the router of one ModelDeployment can be seen. selector: of the Service that clients call. leads:
    which revision each Service leads to.
    """

    session: aiohttp.ClientSession
    place: Place
    pods: Sequence[Pod]
    spec: Spec
    status: Status
    routes: Routes
    selector: Mapping[str, str] | None
    leads: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> Mapping[str, int]:
        """Pods that can serve, per revision."""
        return Counter(pod.revision for pod in self.pods if pod.component == SERVER and pod.serving)


async def verify(kind: RouterType, sight: Sight) -> Router:
    """What the routers of this kind really do now. What can not be seen is `problem`, and counts as not served."""
    sight = replace(sight, spec=spec_of(kind, sight.spec, sight.status))
    route = route_of(sight.status)
    if route is not None and route.mirror and (why := _cannot_copy(kind, sight.spec, route.mirror)):
        return unseen("RouterCannotMirror", why)
    return await OBSERVERS[kind](sight)


def _cannot_copy(kind: RouterType, spec: Spec, percent: int) -> str | None:
    """Why a router cannot give a shadow copies of so many requests, if it cannot."""
    match kind:
        case RouterType.EMBEDDED:
            return None
        case RouterType.GATEWAY_API if spec.traffic.own_route:
            return "A route of your own gets no rule for copies: use traffic.router.gatewayAPI.parentRefs for that."
        case RouterType.GATEWAY_API:
            return None if percent == 100 else "Gateways copy all requests or none: set rollout.shadow.percent to 100."
        case _:
            return f"{kind} copies no requests: use traffic.router.type Embedded or GatewayAPI for that."


async def _embedded(sight: Sight) -> Router:
    return await ask_routers(sight.session, sight.pods)


async def _gateway(sight: Sight) -> Router:
    gateway, own = sight.spec.traffic.gateway, sight.spec.traffic.own_route
    if own is not None:
        return of_own_route(sight.place, sight.routes, own, sight.status, sight.leads, sight.ready)
    return of_gateway(sight.place, sight.routes, gateway is not None and gateway.grpc is not None, sight.ready)


async def _mesh(sight: Sight) -> Router:
    return of_mesh(sight.place, sight.routes, sight.ready)


async def _ratio(sight: Sight) -> Router:
    return of_pods(sight.status, sight.selector, sight.ready)


OBSERVERS: Mapping[RouterType, Callable[[Sight], Awaitable[Router]]] = {
    RouterType.EMBEDDED: _embedded,
    RouterType.GATEWAY_API: _gateway,
    RouterType.ISTIO: _mesh,
    RouterType.REPLICA_RATIO: _ratio,
}
