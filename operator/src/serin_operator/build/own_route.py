"""A route of the Gateway API that a user wrote: Serin has two Services for it and edits their weights, nothing else.

The Services are NAME-blue and NAME-green, and the user's rule names both. Which revision each leads to is in the
status; see `decide.slots`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serin_operator.api import LABEL_OWNER
from serin_operator.api.spec import RouterType, Spec
from serin_operator.api.status import Routing, Slot, Status
from serin_operator.build.gateway import HTTP_ROUTE, shares, split
from serin_operator.build.owner import PORT, ROUTER, SERVER, Key, Manifest, Owner
from serin_operator.decide.observed import Route
from serin_operator.decide.roles import route_of, spec_of

COLOURS = ("blue", "green")
_NOBODY = "none"  # no revision is called so

Patch = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Weights:
    """The user's route, and the weight of each of the two Services in the rules that name them."""

    owner: str
    key: Key
    of: Mapping[str, int]


class UnusableError(Exception):
    """Why a route can not be used as it is: a sentence for its author."""


def services(owner: Owner, status: Status) -> list[Manifest]:
    """Both Services. One that has no revision yet reaches nobody."""
    return [_service(owner, name, slot) for name, slot in zip(names(owner.name), _slots(status), strict=True)]


def weights(owner: Owner, spec: Spec, status: Status) -> Weights | None:
    """What the user's route has to say; None where there is none, or nothing to route to."""
    route, name = route_of(status), spec_of(RouterType.GATEWAY_API, spec, status).traffic.own_route
    if name is None or route is None:
        return None
    of = _by_slot(status, route)
    named = dict(zip(names(owner.name), of, strict=True))
    return Weights(owner.name, (HTTP_ROUTE, owner.namespace, name), named)


def edits(wanted: Weights, raw: Mapping[str, Any]) -> Patch:
    """A JSON patch that gives the rules these weights; empty where they have them.

    It tests first that each list of backends is still what was read, so that nobody's edit is overwritten. Raises
    UnusableError.
    """
    patch: Patch = [{"op": "test", "path": "/metadata/uid", "value": raw["metadata"]["uid"]}]
    for index in shared_rules(wanted.owner, wanted.key[1], raw):
        backends, path = raw["spec"]["rules"][index]["backendRefs"], f"/spec/rules/{index}/backendRefs"
        changed = [
            {"op": "add", "path": f"{path}/{place}/weight", "value": wanted.of[backend["name"]]}
            for place, backend in enumerate(backends)
            if backend.get("weight", 1) != wanted.of[backend["name"]]
        ]
        if changed:
            patch += [{"op": "test", "path": path, "value": backends}, *changed]
    return patch if len(patch) > 1 else []


def shared_rules(owner: str, namespace: str, raw: Mapping[str, Any]) -> list[int]:
    """Which rules split between the two Services. Raises UnusableError where none does, or one does it otherwise."""
    told = raw["metadata"].get("labels", {}).get(LABEL_OWNER)
    name, pair = raw["metadata"]["name"], set(names(owner))
    if told != owner:
        raise UnusableError(f"{HTTP_ROUTE} {name} is labelled for the ModelDeployment {told}, not for {owner}.")
    found = []
    for index, rule in enumerate(raw["spec"].get("rules", ())):
        backends = rule.get("backendRefs", ())
        ours = [backend["name"] for backend in backends if backend["name"] in pair and _is_service(backend, namespace)]
        if ours and (len(backends) != len(pair) or set(ours) != pair):
            both = " and ".join(names(owner))
            raise UnusableError(f"Rule {index} of {HTTP_ROUTE} {name} must name {both}, each once, and nothing else.")
        if ours:
            found.append(index)
    if not raw["spec"].get("parentRefs"):
        raise UnusableError(f"{HTTP_ROUTE} {name} names no Gateway.")
    if not found:
        raise UnusableError(f"No rule of {HTTP_ROUTE} {name} names the Services {' and '.join(names(owner))}.")
    return found


def live_route(backends: Sequence[Mapping[str, Any]], leads: Mapping[str, str], stable: str) -> Route | None:
    """What a rule with these backends serves, None when it is no route of Serin's. leads: of Services, to revisions."""
    found = [(leads.get(backend["name"]), backend.get("weight", 1)) for backend in backends]
    return split(sorted(found, key=lambda one: one[0] != stable))


def names(owner: str) -> tuple[str, str]:
    """Of the two Services."""
    blue, green = (f"{owner}-{colour}" for colour in COLOURS)
    return blue, green


def _is_service(backend: Mapping[str, Any], namespace: str) -> bool:
    found = (backend.get("group", ""), backend.get("kind", "Service"), backend.get("namespace", namespace))
    return found == ("", "Service", namespace)


def _slots(status: Status) -> tuple[Slot | None, Slot | None]:
    routing = status.routing or Routing(RouterType.GATEWAY_API)
    return routing.blue, routing.green


def _by_slot(status: Status, route: Route) -> list[int]:
    """Each slot's weight. A revision without a slot that Gateways know has to wait: who serves now goes on."""
    placed = {slot.revision for slot in _slots(status) if slot and slot.settled}
    wanted = dict(shares(route))
    if not wanted.keys() <= placed:
        # The old stable is the canary when the spec goes back and forth.
        latest = (status.stable, status.previous, status.canary, *reversed(status.retiring))
        wanted = {next((each.revision for each in latest if each and each.revision in placed), route.stable): 100}
    return [wanted.get(slot.revision, 0) if slot else 0 for slot in _slots(status)]


def _service(owner: Owner, name: str, slot: Slot | None) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(name, owner.labels(ROUTER)),
        "spec": {
            "selector": owner.labels(SERVER, slot.revision if slot else _NOBODY),
            "ports": [
                {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
            ],
        },
    }
