"""Routes of the Gateway API: an HTTPRoute and, where it is asked for, a GRPCRoute, owned by Serin.

`rules` and `backendRefs` are atomic lists, so a route is Serin's as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from serin_operator.api.callers import Testers
from serin_operator.api.spec import GatewayRoute, Spec
from serin_operator.api.status import Status
from serin_operator.build.envoy import ATTEMPT_COUNT, FEEDBACK_METHOD, FEEDBACK_SERVICE, SHADOW_MARK, TESTER_MARK
from serin_operator.build.mirroring import GRPC_METHOD, GRPC_SERVICE
from serin_operator.build.owner import GRPC_PORT, PORT, ROUTER, SERVER, Images, Manifest, Owner, client_service
from serin_operator.decide.observed import Route
from serin_operator.decide.roles import candidate_of, route_of, running

API_VERSION = "gateway.networking.k8s.io/v1"
HTTP_ROUTE = "HTTPRoute"
GRPC_ROUTE = "GRPCRoute"
# What tells model servers that a request is no evidence, or a copy's twin: a router may say so, a client may not.
MARKS = (TESTER_MARK, SHADOW_MARK, ATTEMPT_COUNT)
_EVERYTHING = {"path": {"type": "PathPrefix", "value": "/"}}

Rule = dict[str, Any]


def write(owner: Owner, spec: Spec, status: Status, images: Images) -> list[Manifest]:
    """The routes with both revisions' weights; none before there is a revision, or where no Gateway is named."""
    route, gateway = route_of(status), spec.traffic.gateway
    if route is None or gateway is None:
        return []
    # Gateways learn of a backend and of its weight at different moments, so each revision is named before it gets
    # requests and after it had them: otherwise some are answered with 503.
    busy = {revision for revision, _ in shares(route)}
    idle = [revision.revision for revision in running(status) if revision.revision not in busy]
    tried = candidate_of(status) or route.stable
    written = [_route(owner, HTTP_ROUTE, gateway, _http_rules(owner, spec, route, idle, tried))]
    if gateway.grpc is not None:
        written.append(_route(owner, GRPC_ROUTE, gateway.grpc, _grpc_rules(owner, spec, route, idle, tried)))
    return written


def name_of(kind: str, name: str) -> str:
    """A ModelDeployment's route of this kind. Contour mixes up the statuses of two kinds' routes of one name."""
    return f"{name}-grpc" if kind == GRPC_ROUTE else name


def entry(owner: Owner, spec: Spec, status: Status) -> Manifest:
    """For clients inside the cluster, which pass no Gateway: they get the stable revision."""
    assert status.stable
    return client_service(owner, owner.labels(ROUTER), owner.labels(SERVER, status.stable.revision))


def _route(owner: Owner, kind: str, gateway: GatewayRoute, rules: list[dict[str, Any]]) -> Manifest:
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": owner.metadata(name_of(kind, owner.name), owner.labels(ROUTER)),
        "spec": {
            "parentRefs": [dict(parent) for parent in gateway.parents],
            **({"hostnames": list(gateway.hostnames)} if gateway.hostnames else {}),
            "rules": rules,
        },
    }


def _http_rules(owner: Owner, spec: Spec, route: Route, idle: Sequence[str], tried: str) -> list[Rule]:
    """As with the embedded router: labels go to stable, testers to the revision `tried`, everything else by weight.

    A Gateway looks for the longest path first, then for the most headers, and only then at the order: where there is a
    rule for inferences, testers need a match of their own for them.
    """
    model = f"/v2/models/{owner.name}"
    inferences = {"path": {"type": "Exact", "value": f"{model}/infer"}}
    weighted = _backends(owner, route, idle, PORT)
    stable = _backends(owner, Route(route.stable), (), PORT)
    rules = [_rule(stable, [{"path": {"type": "Exact", "value": f"{model}/feedback"}}])]
    if route.mirror or spec.rollout.shadow:
        rules.append(_closed_rule(stable, f"{model}/answers"))
    matches = [inferences, _EVERYTHING] if route.mirror else [_EVERYTHING]
    rules += _testers_rules(owner, spec.traffic.testers, matches, tried, PORT)
    if route.canary and route.mirror:
        rules.append(_with(_rule(weighted, [inferences], SHADOW_MARK), _copies(owner, route.canary, PORT)))
    rules.append(_rule(weighted, [_EVERYTHING]))
    return [rule | {"timeouts": {"request": _duration(spec.traffic.timeout)}} for rule in rules]


def _closed_rule(backends: list[Rule], path: str) -> Rule:
    """What model servers tell each other of requests is no client's to read. There is no rule that answers by itself,
    so that a server says 404 to a path that it does not know.
    """
    rule = _rule(backends, [{"path": {"type": "PathPrefix", "value": path}}])
    nowhere = {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/closed"}}
    return _with(rule, {"type": "URLRewrite", "urlRewrite": nowhere})


def _copies(owner: Owner, canary: str, port: int) -> Rule:
    """Of every request: a share of them is newer in the API, and not every Gateway keeps to it."""
    return {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": {"name": owner.backend(canary), "port": port}},
    }


def _grpc_rules(owner: Owner, spec: Spec, route: Route, idle: Sequence[str], tried: str) -> list[Rule]:
    """The same. A method goes before a header here; not every Gateway takes a service without one of its methods."""
    labels = {"method": {"type": "Exact", "service": FEEDBACK_SERVICE, "method": FEEDBACK_METHOD}}
    inferences = {"method": {"type": "Exact", "service": GRPC_SERVICE, "method": GRPC_METHOD}}
    weighted = _backends(owner, route, idle, GRPC_PORT)
    matches = [inferences, {}] if route.mirror else [{}]
    rules = [_rule(_backends(owner, Route(route.stable), (), GRPC_PORT), [labels])]
    rules += _testers_rules(owner, spec.traffic.testers, matches, tried, GRPC_PORT)
    if route.canary and route.mirror:
        rules.append(_with(_rule(weighted, [inferences], SHADOW_MARK), _copies(owner, route.canary, GRPC_PORT)))
    return [*rules, _rule(weighted)]


def _testers_rules(owner: Owner, testers: Testers | None, matches: Sequence[Rule], tried: str, port: int) -> list[Rule]:
    """One for what matches one of these and has the header; none where nobody tests."""
    if testers is None or testers.header is None:
        return []
    name, value = testers.header
    headers = [{"type": "Exact", "name": name, "value": value}]
    backends = _backends(owner, Route(tried), (), port)
    return [_rule(backends, [match | {"headers": headers} for match in matches], TESTER_MARK)]


def _rule(backends: list[Rule], matches: Sequence[Rule] = (), *marks: str) -> Rule:
    """Sets these marks. Those that clients send are removed."""
    others = [mark for mark in MARKS if mark not in marks]
    modifier = {
        **({"set": [{"name": mark, "value": "1"} for mark in marks]} if marks else {}),
        **({"remove": others} if others else {}),
    }
    return {
        **({"matches": list(matches)} if matches else {}),
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}],
        "backendRefs": backends,
    }


def _with(rule: Rule, extra: Rule) -> Rule:
    """The rule with a further filter."""
    return rule | {"filters": [*rule["filters"], extra]}


def _backends(owner: Owner, route: Route, idle: Sequence[str], port: int) -> list[dict[str, Any]]:
    """idle: revisions that get no requests, but may soon or did a moment ago."""
    named = [*shares(route), *((revision, 0) for revision in idle)]
    return [{"name": owner.backend(revision), "port": port, "weight": weight} for revision, weight in named]


def shares(route: Route) -> list[tuple[str, int]]:
    """Who gets how many per cent of the requests, stable first; `split` reads it back."""
    if route.canary is None or not route.weight:
        return [(route.stable, 100)]
    return [(route.stable, 100 - route.weight), (route.canary, route.weight)]


def live_route(owner: Owner, raw: Mapping[str, Any]) -> Route | None:
    """The route in an HTTPRoute or GRPCRoute as it stands; None when it is not one that `write` makes."""
    try:
        rules = raw["spec"]["rules"]
        found = [(owner.backend_revision(backend["name"]), backend["weight"]) for backend in rules[-1]["backendRefs"]]
        copies = [
            owner.backend_revision(each["requestMirror"]["backendRef"]["name"])
            for rule in rules
            for each in rule.get("filters", ())
            if each["type"] == "RequestMirror"
        ]
    except (LookupError, TypeError):
        return None
    route = split(found)
    return replace(route, canary=copies[0], mirror=100) if route and copies else route


def split(found: list[tuple[str | None, int]]) -> Route | None:
    """The route of one or two revisions with their weights, stable first; None when it is none of Serin's."""
    match [(revision, weight) for revision, weight in found if weight]:
        case [(str(stable), 100)]:
            return Route(stable)
        case [(str(stable), rest), (str(canary), weight)] if rest + weight == 100:
            return Route(stable, canary, weight)
    return None


def _duration(seconds: float) -> str:
    """As the Gateway API reads it: whole numbers of five digits at most. None at all would be no limit."""
    whole, rest = divmod(max(1, round(seconds * 1000)), 1000)
    return "".join(f"{number}{unit}" for number, unit in ((whole, "s"), (rest, "ms")) if number)
