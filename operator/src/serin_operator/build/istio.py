"""Istio's VirtualService for the Service's name, and a DestinationRule for each revision behind it.

Each revision is a host of its own. Subsets of one host would live in another object than the weights that name them,
and a weight that arrives before its subset is answered with 503. A host without a dot is in the rule's own namespace,
whatever the cluster's domain is.
"""

from collections.abc import Mapping
from typing import Any

from serin_operator.api.spec import Spec
from serin_operator.api.status import Status
from serin_operator.build import gateway
from serin_operator.build.owner import PORT, ROUTER, Images, Manifest, Owner
from serin_operator.decide.observed import Route
from serin_operator.decide.roles import route_of, running

API_VERSION = "networking.istio.io/v1"
VIRTUAL_SERVICE = "VirtualService"
DESTINATION_RULE = "DestinationRule"
_ROUTE = "inference"


def write(owner: Owner, spec: Spec, status: Status, images: Images) -> list[Manifest]:
    """The rules for the hosts first, then what sends to them."""
    route = route_of(status)
    if route is None:
        return []
    rules = [_destination_rule(owner, revision.revision) for revision in running(status)]
    return [*rules, _virtual_service(owner, spec, route)]


def entry(owner: Owner, spec: Spec, status: Status) -> Manifest:
    """The host that the VirtualService is for. Clients outside the mesh, which it does not reach, get stable."""
    return gateway.entry(owner, spec, status)


def live_route(owner: Owner, raw: Mapping[str, Any]) -> Route | None:
    """The route in a VirtualService as it stands; None when it is not one that `write` makes."""
    try:
        (rule,) = [rule for rule in raw["spec"]["http"] if rule.get("name") == _ROUTE]
        found = [(owner.backend_revision(to["destination"]["host"]), to.get("weight", 100)) for to in rule["route"]]
    except (LookupError, TypeError, ValueError):
        return None
    return gateway.split(found)


def _virtual_service(owner: Owner, spec: Spec, route: Route) -> Manifest:
    mesh = spec.traffic.mesh
    # What the model servers take a router's word for, no client may say.
    common = {"timeout": _duration(spec.traffic.timeout), "headers": {"request": {"remove": list(gateway.MARKS)}}}
    feedback = {
        "name": "feedback",
        "match": [{"uri": {"exact": f"/v2/models/{owner.name}/feedback"}}],
        "route": _destinations(owner, Route(route.stable)),
        **common,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": VIRTUAL_SERVICE,
        "metadata": owner.metadata(owner.name, owner.labels(ROUTER)),
        "spec": {
            "hosts": [owner.name, *mesh.hosts],
            **({"gateways": ["mesh", *mesh.gateways]} if mesh.gateways else {}),
            "http": [feedback, {"name": _ROUTE, "route": _destinations(owner, route), **common}],
        },
    }


def _destination_rule(owner: Owner, revision: str) -> Manifest:
    name = owner.backend(revision)
    return {
        "apiVersion": API_VERSION,
        "kind": DESTINATION_RULE,
        "metadata": owner.metadata(name, owner.labels(ROUTER)),
        "spec": {
            "host": name,
            "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}},
        },
    }


def _destinations(owner: Owner, route: Route) -> list[dict[str, Any]]:
    return [
        {"destination": {"host": owner.backend(revision), "port": {"number": PORT}}, "weight": weight}
        for revision, weight in gateway.shares(route)
    ]


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
