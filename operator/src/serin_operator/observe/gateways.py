"""What Gateways and a mesh are seen to serve, from the watched routes: whose route it is, and who has accepted it.

Anybody may write these objects: a field that is not there is one that is not as it should be, and no reason to fail.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serin_operator.api import LABEL_OWNER
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Status
from serin_operator.build import gateway, istio, own_route
from serin_operator.build.owner import Owner
from serin_operator.decide.observed import Route, Router, unseen
from serin_operator.observe.routes import KINDS, Place, Routes, State

_CONDITIONS = ("Accepted", "ResolvedRefs")
# A route is accepted although some of its rules are dropped, or all of them are those of an earlier version.
_PARTLY_INVALID = "PartiallyInvalid"
_MEANT = ("group", "kind", "namespace", "name", "sectionName", "port")
_DEFAULTS = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
_INSTALL = {
    RouterType.GATEWAY_API: "the Gateway API (gateway.networking.k8s.io/v1) and a controller for it",
    RouterType.ISTIO: "Istio (networking.istio.io/v1)",
}
_VALUE = {RouterType.GATEWAY_API: "routers.gatewayAPI.enabled", RouterType.ISTIO: "routers.istio.enabled"}


@dataclass(frozen=True, slots=True)
class _Objection:
    """Why a parent does not serve a route. passing: nobody has to do anything about it."""

    text: str
    passing: bool = False


def not_there(kind: RouterType, resources: Iterable[str], routes: Routes, namespace: str) -> Router | None:
    """Why this router can not be used in this namespace, if so. resources: the kinds that it needs."""
    for resource in resources:
        match routes.state(resource, namespace):
            case State.DISABLED:
                text = f"This installation of Serin may not use {kind}: set {_VALUE[kind]} of its chart."
                return unseen("RouterNotEnabled", text)
            case State.MISSING:
                text = f"The cluster has no {resource}: install {_INSTALL[kind]}; Serin notices by itself."
                return unseen("RouterNotInstalled", text)
            case State.FORBIDDEN:
                text = f"Serin may not read {resource}: see to its role, or upgrade its chart."
                return unseen("RouterForbidden", text)
            case State.UNKNOWN:
                return Router(problem=f"{resource} was not read yet.")
    return None


@dataclass
class _Answers:
    """What the Gateways say of routes. ready: pods per revision."""

    ready: Mapping[str, int]
    count: int = 0
    live: list[Route] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reason: str = ""

    def take(self, raw: Mapping[str, Any], kind: str, route: Route | None) -> None:
        """Takes in what every Gateway that this route names says of it. route: None where it says other weights."""
        name = raw["metadata"]["name"]
        for parent in raw["spec"]["parentRefs"]:
            self.count += 1
            objection = _objection(raw, parent) if route else _Objection("it has other weights.", passing=True)
            if objection is None and route is not None:
                self.live.append(route)
            elif objection is not None:
                self.problems.append(f"{kind} {name}, Gateway {parent.get('name')}: {objection.text}")
                self.reason = self.reason if objection.passing else "RouteNotAccepted"

    def router(self) -> Router:
        """All of them as one."""
        problem = "; ".join(self.problems) or None
        return Router(self.count, tuple(self.live), (self.ready,) * self.count, problem=problem, reason=self.reason)


def of_gateway(place: Place, routes: Routes, grpc: bool, ready: Mapping[str, int]) -> Router:
    """Every Gateway that the routes name is one router: it serves what it has accepted of the newest generation.

    ready: pods per revision, which Gateways take from the cluster.
    """
    kinds = (gateway.HTTP_ROUTE, *([gateway.GRPC_ROUTE] if grpc else []))
    if absent := not_there(RouterType.GATEWAY_API, kinds, routes, place[0]):
        return absent
    found = _Answers(ready)
    for kind in kinds:
        name = gateway.name_of(kind, place[1])
        raw = routes.get(kind, (place[0], name))
        if raw is None:
            return Router(problem=f"{kind} {name} is not there yet.")
        route = gateway.live_route(Owner(*place, ""), raw)
        if route is None or not raw["spec"].get("parentRefs"):
            return Router(problem=f"{kind} {name} is not as Serin writes it.")
        found.take(raw, kind, route)
    return found.router()


def of_own_route(
    place: Place, routes: Routes, name: str, status: Status, leads: Mapping[str, str], ready: Mapping[str, int]
) -> Router:
    """The same for a user's own route, whose every rule that splits is looked at.

    leads: which revision each Service leads to. A revision is reached once one of the two does.
    """
    if absent := not_there(RouterType.GATEWAY_API, [gateway.HTTP_ROUTE], routes, place[0]):
        return absent
    raw = routes.get(gateway.HTTP_ROUTE, (place[0], name))
    if raw is None:
        text = f"There is no HTTPRoute {name} with the label {LABEL_OWNER}: {place[1]}."
        return unseen("RouteNotFound", text)
    try:
        rules = own_route.shared_rules(place[1], place[0], raw)
    except own_route.UnusableError as error:
        return unseen("RouteNotUsable", str(error))
    named = {leads[service] for service in own_route.names(place[1]) if service in leads}
    found = _Answers({revision: pods for revision, pods in ready.items() if revision in named})
    stable = status.stable.revision if status.stable else ""
    for rule in rules:
        route = own_route.live_route(raw["spec"]["rules"][rule]["backendRefs"], leads, stable)
        found.take(raw, gateway.HTTP_ROUTE, route)
    return found.router()


def of_mesh(place: Place, routes: Routes, ready: Mapping[str, int]) -> Router:
    """The VirtualService as the API server has it: what the proxies do with it can not be asked for.

    Where Istio has found an error in this version of it, it does not serve.
    """
    if absent := not_there(RouterType.ISTIO, KINDS[RouterType.ISTIO], routes, place[0]):
        return absent
    raw = routes.get(istio.VIRTUAL_SERVICE, place)
    if raw is None:
        return Router(problem=f"VirtualService {place[1]} is not there yet.")
    route = istio.live_route(Owner(*place, ""), raw)
    if route is None:
        return Router(problem=f"VirtualService {place[1]} is not as Serin writes it.")
    errors = _errors(raw)
    if errors:
        problem = f"VirtualService {place[1]}: {'; '.join(errors)}"
        return unseen("RouteNotAccepted", problem)
    return Router(1, (route,), (ready,))


def _errors(raw: Mapping[str, Any]) -> list[str]:
    """What Istio says of this version. Nothing takes away what it said of an earlier one, while it does not run."""
    status = raw.get("status", {})
    generation = raw["metadata"].get("generation")
    if str(status.get("observedGeneration", generation)) != str(generation):
        return []
    return [
        message.get("documentationUrl") or str(message)
        for message in status.get("validationMessages", [])
        if message.get("level") == "ERROR"
    ]


def _objection(raw: Mapping[str, Any], parent: Mapping[str, Any]) -> _Objection | None:
    """Why this parent does not serve the route as it stands; None when it does."""
    namespace = raw["metadata"]["namespace"]
    said = [
        status.get("conditions", [])
        for status in raw.get("status", {}).get("parents", [])
        if _meant(status.get("parentRef", {}), namespace) == _meant(parent, namespace)
    ]
    # Controllers of policies tell theirs in entries of their own.
    said = [each for each in said if any(one.get("type") == "Accepted" for one in each)] or said
    if not said:
        return _Objection("no controller has answered for it. Is it there, and its controller running?")
    generation = raw["metadata"]["generation"]
    # A Gateway has one controller. What an earlier one said stays for good, if that has gone without a word.
    newest = [conditions for conditions in said if any(_is_of(each, generation) for each in conditions)]
    return next((each for conditions in newest or said if (each := _unfulfilled(conditions, generation))), None)


def _unfulfilled(conditions: Iterable[Mapping[str, Any]], generation: int) -> _Objection | None:
    found = {condition.get("type"): condition for condition in conditions}
    partly = found.get(_PARTLY_INVALID)
    if partly is not None and partly.get("status") == "True" and _is_of(partly, generation):
        return _Objection(f"{_PARTLY_INVALID} is True, {_why(partly)}")
    for wanted in _CONDITIONS:
        condition = found.get(wanted)
        if condition is None or not _is_of(condition, generation):
            return _Objection(f"{wanted} is not told of the newest version yet.", passing=True)
        status = condition.get("status", "Unknown")
        if status != "True":
            return _Objection(f"{wanted} is {status}, {_why(condition)}")
    return None


def _is_of(condition: Mapping[str, Any], generation: int) -> bool:
    return bool(condition.get("observedGeneration", 0) == generation)


def _why(condition: Mapping[str, Any]) -> str:
    return f"{condition.get('reason', '')}: {condition.get('message', '')}"


def _meant(parent: Mapping[str, Any], namespace: str) -> tuple[Any, ...]:
    """What a parentRef refers to, defaults put in."""
    full = {**_DEFAULTS, "namespace": namespace, **parent}
    return tuple(full.get(key) for key in _MEANT)
