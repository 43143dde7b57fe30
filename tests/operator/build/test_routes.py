"""Routes of the Gateway API and of Istio, and Services over pods: what they name; they read back as written."""

import re
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import CANARY, GONE, IMAGES, OLD, OWNER, ROLLING, STABLE
from tests.operator.definition import make_spec

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Routing, Status
from serin_operator.build import gateway, istio
from serin_operator.build.manifests import manifests
from serin_operator.build.owner import Manifest
from serin_operator.decide.observed import Route
from serin_operator.decide.roles import route_of

SERVING = replace(ROLLING, canary=None, previous=None, retiring=(), weight=0, rollout=None)
PUBLIC = {"parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}]}
NAMES = {revision: f"iris-{revision}-backend" for revision in (STABLE, CANARY, OLD, GONE)}


assert ROLLING.rollout
SHADOW = replace(ROLLING, weight=0, rollout=replace(ROLLING.rollout, mirror=100))
TESTERS = {"header": {"name": "X-Tester", "value": "yes"}}


def built(
    kind: RouterType, status: Status = ROLLING, traffic: dict[str, Any] | None = None, **router: Any
) -> dict[tuple[str, str], Manifest]:
    """All manifests of a ModelDeployment that has gone over to this router."""
    spec = make_spec(traffic={"router": {"type": kind.value, **router}, "timeout": "2500ms", **(traffic or {})})
    found = manifests(OWNER, spec, replace(status, routing=Routing(kind)), False, IMAGES)
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}


def backends(rule: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(backend["name"], backend["port"], backend["weight"]) for backend in rule["backendRefs"]]


def test_an_http_route_has_the_gateways_the_host_names_and_the_weights() -> None:
    found = built(RouterType.GATEWAY_API, gatewayAPI={**PUBLIC, "hostnames": ["iris.example.com"]})
    route = found["HTTPRoute", "iris"]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == PUBLIC["parentRefs"]
    assert route["spec"]["hostnames"] == ["iris.example.com"]
    labels, everything = route["spec"]["rules"]
    assert labels["matches"] == [{"path": {"type": "Exact", "value": "/v2/models/iris/feedback"}}]
    assert backends(labels) == [(NAMES[STABLE], 8080, 100)]
    assert everything["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert backends(everything) == [
        *((NAMES[STABLE], 8080, 75), (NAMES[CANARY], 8080, 25)),
        *((NAMES[OLD], 8080, 0), (NAMES[GONE], 8080, 0)),
    ]
    assert [rule["timeouts"] for rule in (labels, everything)] == [{"request": "2s500ms"}] * 2
    assert ("GRPCRoute", "iris-grpc") not in found


@pytest.mark.parametrize(
    ("timeout", "written"),
    [("30s", "30s"), ("1h", "3600s"), ("2500ms", "2s500ms"), ("2m30.5s", "150s500ms"), ("0.01ms", "1ms")],
)
def test_a_timeout_is_a_duration_of_the_gateway_api(timeout: str, written: str) -> None:
    """Which has at most five digits for a unit, and takes 0 for no limit."""
    found = built(RouterType.GATEWAY_API, traffic={"timeout": timeout}, gatewayAPI=PUBLIC)
    assert [rule["timeouts"]["request"] for rule in found["HTTPRoute", "iris"]["spec"]["rules"]] == [written] * 2
    assert re.fullmatch("([0-9]{1,5}(h|m|s|ms)){1,4}", written)


def test_no_timeout_of_a_mesh_is_rounded_to_nothing() -> None:
    rules = built(RouterType.ISTIO, traffic={"timeout": "0.01ms"})["VirtualService", "iris"]["spec"]["http"]
    assert {rule["timeout"] for rule in rules} == {"1ms"}


def test_without_host_names_a_route_takes_those_of_the_listeners() -> None:
    assert "hostnames" not in built(RouterType.GATEWAY_API, gatewayAPI=PUBLIC)["HTTPRoute", "iris"]["spec"]


def test_labels_go_to_stable_over_both_protocols() -> None:
    found = built(RouterType.GATEWAY_API, gatewayAPI={**PUBLIC, "grpc": {}})
    http, grpc = (found[kind, gateway.name_of(kind, "iris")]["spec"]["rules"][0] for kind in ("HTTPRoute", "GRPCRoute"))
    assert http["matches"] == [{"path": {"type": "Exact", "value": "/v2/models/iris/feedback"}}]
    method = {"type": "Exact", "service": "serin.FeedbackService", "method": "Feedback"}
    assert grpc["matches"] == [{"method": method}]
    assert [backends(rule) for rule in (http, grpc)] == [[(NAMES[STABLE], port, 100)] for port in (8080, 8081)]


def test_grpc_has_a_route_of_its_own_with_the_same_weights() -> None:
    found = built(RouterType.GATEWAY_API, gatewayAPI={**PUBLIC, "grpc": {"hostnames": ["grpc.example.com"]}})
    route = found["GRPCRoute", "iris-grpc"]["spec"]
    assert (route["parentRefs"], route["hostnames"]) == (PUBLIC["parentRefs"], ["grpc.example.com"])
    assert backends(route["rules"][-1])[:2] == [(NAMES[STABLE], 8081, 75), (NAMES[CANARY], 8081, 25)]


def test_a_canary_is_named_before_it_gets_requests() -> None:
    """A Gateway that learns of a backend together with its weight has answered with 503."""
    found = built(RouterType.GATEWAY_API, replace(ROLLING, weight=0), gatewayAPI=PUBLIC)
    rule = found["HTTPRoute", "iris"]["spec"]["rules"][-1]
    assert (NAMES[CANARY], 8080, 0) in backends(rule)


def marks(rule: dict[str, Any]) -> tuple[set[str], set[str]]:
    """What a rule sets, and what it removes of what clients send."""
    (change,) = [one["requestHeaderModifier"] for one in rule["filters"] if one["type"] == "RequestHeaderModifier"]
    return {header["name"] for header in change.get("set", [])}, set(change.get("remove", []))


def with_testers(status: Status) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rules for HTTP, and those for gRPC."""
    found = built(RouterType.GATEWAY_API, status, {"testers": TESTERS}, gatewayAPI={**PUBLIC, "grpc": {}})
    return found["HTTPRoute", "iris"]["spec"]["rules"], found["GRPCRoute", "iris-grpc"]["spec"]["rules"]


def test_testers_have_a_rule_of_their_own_that_marks_what_they_send() -> None:
    http, grpc = with_testers(ROLLING)
    header = {"type": "Exact", "name": "x-tester", "value": "yes"}
    assert http[-2]["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [header]}]
    assert http[-2]["timeouts"] == {"request": "2s500ms"}
    assert grpc[-2]["matches"] == [{"headers": [header]}]
    assert [backends(rules[-2]) for rules in (http, grpc)] == [
        [(NAMES[CANARY], 8080, 100)],
        [(NAMES[CANARY], 8081, 100)],
    ]
    assert marks(http[-2]) == marks(grpc[-2]) == ({"x-serin-tester"}, {"x-serin-shadow", "x-envoy-attempt-count"})


def test_testers_reach_stable_while_no_candidate_is_ready() -> None:
    assert ROLLING.canary
    starting = replace(ROLLING, weight=0, canary=replace(ROLLING.canary, ready_replicas=0))
    waiting = replace(starting, canary=replace(ROLLING.canary, ready_replicas=1))
    for status, answers in ((SERVING, STABLE), (starting, STABLE), (waiting, CANARY)):
        assert [backends(rules[-2])[0][0] for rules in with_testers(status)] == [NAMES[answers]] * 2


@pytest.mark.parametrize("traffic", [{}, {"testers": TESTERS}], ids=["nobody tests", "testers"])
def test_no_client_marks_its_own_requests(traffic: dict[str, Any]) -> None:
    found = built(RouterType.GATEWAY_API, ROLLING, traffic, gatewayAPI={**PUBLIC, "grpc": {}})
    for kind in ("HTTPRoute", "GRPCRoute"):
        for rule in found[kind, gateway.name_of(kind, "iris")]["spec"]["rules"]:
            ours, removed = marks(rule)
            assert ours | removed == {"x-serin-tester", "x-serin-shadow", "x-envoy-attempt-count"}


def test_a_shadow_gets_a_copy_of_every_inference_which_both_know_by_a_mark() -> None:
    found = built(RouterType.GATEWAY_API, SHADOW, gatewayAPI={**PUBLIC, "grpc": {}})
    http, grpc = (
        found[kind, gateway.name_of(kind, "iris")]["spec"]["rules"][-2] for kind in ("HTTPRoute", "GRPCRoute")
    )
    assert http["matches"] == [{"path": {"type": "Exact", "value": "/v2/models/iris/infer"}}]
    method = {"type": "Exact", "service": "inference.GRPCInferenceService", "method": "ModelInfer"}
    assert grpc["matches"] == [{"method": method}]
    for rule, port in ((http, 8080), (grpc, 8081)):
        assert [backend for backend in backends(rule) if backend[2]] == [(NAMES[STABLE], port, 100)]
        assert marks(rule) == ({"x-serin-shadow"}, {"x-serin-tester", "x-envoy-attempt-count"})
        (copies,) = [one["requestMirror"] for one in rule["filters"] if one["type"] == "RequestMirror"]
        assert copies == {"backendRef": {"name": NAMES[CANARY], "port": port}}
    assert http["timeouts"] == {"request": "2s500ms"}


def test_a_tester_s_inference_is_not_taken_for_one_to_copy() -> None:
    """Gateways prefer an exact path, or a method, to a header."""
    http, grpc = with_testers(SHADOW)
    testers = [next(rule for rule in rules if "x-serin-tester" in marks(rule)[0]) for rules in (http, grpc)]
    assert {match["path"]["value"] for match in testers[0]["matches"]} == {"/", "/v2/models/iris/infer"}
    assert [match.get("method", {}).get("method") for match in testers[1]["matches"]] == ["ModelInfer", None]
    assert all(match["headers"] for rule in testers for match in rule["matches"])
    assert [rules.index(rule) < len(rules) - 2 for rules, rule in zip((http, grpc), testers, strict=True)] == [True] * 2


@pytest.mark.parametrize("status", [SHADOW, ROLLING])
def test_what_servers_tell_each_other_of_a_shadow_is_not_reached_from_a_gateway(status: Status) -> None:
    """Also after the shadow: servers remember."""
    found = manifests(
        OWNER,
        make_spec(
            traffic={"router": {"type": "GatewayAPI", "gatewayAPI": PUBLIC}}, rollout={"shadow": {"percent": 100}}
        ),
        replace(status, routing=Routing(RouterType.GATEWAY_API)),
        False,
        IMAGES,
    )
    (route,) = [manifest for manifest in found if manifest["kind"] == "HTTPRoute"]
    (closed,) = [rule for rule in route["spec"]["rules"] if rule["matches"][0]["path"]["value"].endswith("/answers")]
    assert closed["matches"] == [{"path": {"type": "PathPrefix", "value": "/v2/models/iris/answers"}}]
    assert closed["filters"][1]["urlRewrite"]["path"] == {"type": "ReplaceFullPath", "replaceFullPath": "/closed"}


@pytest.mark.parametrize("kind", [RouterType.GATEWAY_API, RouterType.ISTIO])
def test_every_revision_that_runs_has_a_service_that_is_not_headless(kind: RouterType) -> None:
    found = built(kind, gatewayAPI=PUBLIC)
    for revision, name in NAMES.items():
        spec = found["Service", name]["spec"]
        assert "clusterIP" not in spec
        assert spec["selector"]["serin.dev/revision"] == revision
        assert {port["name"]: port["port"] for port in spec["ports"]} == {"http": 8080, "grpc": 8081}
        assert found["Service", f"iris-{revision}"]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("kind", [RouterType.GATEWAY_API, RouterType.ISTIO])
def test_clients_that_pass_the_router_by_get_the_stable_revision(kind: RouterType) -> None:
    found = built(kind, gatewayAPI=PUBLIC)
    service = found["Service", "iris"]["spec"]
    assert service["selector"]["serin.dev/component"] == "server"
    assert service["selector"]["serin.dev/revision"] == STABLE
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(80, "http")]
    assert ("Deployment", "iris-router") not in found


def test_a_virtual_service_is_for_the_service_and_splits_by_hosts() -> None:
    found = built(RouterType.ISTIO)
    spec = found["VirtualService", "iris"]["spec"]
    assert spec["hosts"] == ["iris"]
    assert "gateways" not in spec
    labels, everything = spec["http"]
    assert labels["match"] == [{"uri": {"exact": "/v2/models/iris/feedback"}}]
    assert [to["destination"]["host"] for to in labels["route"]] == [NAMES[STABLE]]
    assert "match" not in everything
    assert [(to["destination"]["host"], to["weight"]) for to in everything["route"]] == [
        (NAMES[STABLE], 75),
        (NAMES[CANARY], 25),
    ]
    assert {rule["timeout"] for rule in spec["http"]} == {"2500ms"}
    for rule in spec["http"]:
        assert rule["headers"]["request"]["remove"] == ["x-serin-tester", "x-serin-shadow", "x-envoy-attempt-count"]


def test_a_mesh_with_an_ingress_keeps_the_mesh() -> None:
    spec = built(RouterType.ISTIO, istio={"hosts": ["iris.example.com"], "gateways": ["istio-system/public"]})[
        "VirtualService", "iris"
    ]["spec"]
    assert spec["hosts"] == ["iris", "iris.example.com"]
    assert spec["gateways"] == ["mesh", "istio-system/public"]


def test_every_host_of_a_mesh_has_its_rule_before_something_sends_to_it() -> None:
    found = list(built(RouterType.ISTIO).items())
    kinds = [kind for (kind, _), _ in found]
    rules = {manifest["spec"]["host"] for (kind, _), manifest in found if kind == "DestinationRule"}
    assert rules == set(NAMES.values())
    assert max(i for i, kind in enumerate(kinds) if kind == "DestinationRule") < kinds.index("VirtualService")


@pytest.mark.parametrize("status", [SERVING, ROLLING, replace(ROLLING, weight=99), replace(ROLLING, weight=0)])
def test_what_is_written_is_what_is_read(status: Status) -> None:
    over_gateway = built(RouterType.GATEWAY_API, status, {"testers": TESTERS}, gatewayAPI={**PUBLIC, "grpc": {}})
    assert gateway.live_route(OWNER, over_gateway["HTTPRoute", "iris"]) == route_of(status)
    assert gateway.live_route(OWNER, over_gateway["GRPCRoute", "iris-grpc"]) == route_of(status)
    in_mesh = built(RouterType.ISTIO, status)
    assert istio.live_route(OWNER, in_mesh["VirtualService", "iris"]) == route_of(status)


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_copies_that_are_written_are_read(kind: str) -> None:
    found = built(RouterType.GATEWAY_API, SHADOW, {"testers": TESTERS}, gatewayAPI={**PUBLIC, "grpc": {}})
    assert (
        gateway.live_route(OWNER, found[kind, gateway.name_of(kind, "iris")])
        == route_of(SHADOW)
        == Route(STABLE, CANARY, 0, 100)
    )


@pytest.mark.parametrize(
    "refs",
    [
        [],
        [{"name": "other", "weight": 100}],
        [{"name": NAMES[STABLE]}],
        [{"name": NAMES[STABLE], "weight": 90}],
        [{"name": NAMES[STABLE], "weight": 90}, {"name": NAMES[CANARY], "weight": 20}],
        [{"name": NAMES[STABLE], "weight": 90}, {"name": "other", "weight": 10}],
        [{"name": "iris--backend", "weight": 100}],
    ],
    ids=str,
)
def test_what_serin_would_not_write_is_no_route(refs: list[dict[str, Any]]) -> None:
    assert gateway.live_route(OWNER, {"spec": {"rules": [{"backendRefs": refs}]}}) is None


def test_a_route_without_rules_is_none_either() -> None:
    assert gateway.live_route(OWNER, {"spec": {}}) is None
    assert istio.live_route(OWNER, {"spec": {"http": [{"name": "other"}]}}) is None


@pytest.mark.parametrize(
    ("status", "named"),
    [
        pytest.param(SERVING, STABLE, id="stable alone"),
        pytest.param(replace(ROLLING, weight=0), STABLE, id="a canary that starts"),
        pytest.param(ROLLING, None, id="a canary with weight"),
    ],
)
def test_a_service_over_pods_names_one_revision_or_none(status: Status, named: str | None) -> None:
    found = built(RouterType.REPLICA_RATIO, status)
    assert found["Service", "iris"]["spec"]["selector"].get("serin.dev/revision") == named
    assert not [kind for kind, _ in found if kind in ("ConfigMap", "HTTPRoute", "VirtualService")]


def test_while_routers_change_both_have_the_route_and_clients_reach_the_old_one() -> None:
    spec = make_spec(traffic={"router": {"type": "GatewayAPI", "gatewayAPI": PUBLIC}})
    coming = replace(ROLLING, routing=Routing(RouterType.EMBEDDED, next=RouterType.GATEWAY_API))
    gone_over = Routing(RouterType.GATEWAY_API, leaving=RouterType.EMBEDDED, leaving_until=1.0)
    before, after = (
        {(m["kind"], m["metadata"]["name"]): m for m in manifests(OWNER, spec, status, False, IMAGES)}
        for status in (coming, replace(ROLLING, routing=gone_over))
    )
    for found in (before, after):
        assert {("ConfigMap", "iris-router"), ("Deployment", "iris-router"), ("HTTPRoute", "iris")} <= found.keys()
        assert gateway.live_route(OWNER, found["HTTPRoute", "iris"]) == Route(STABLE, CANARY, 25)
    assert before["Service", "iris"]["spec"]["selector"]["serin.dev/component"] == "router"
    assert after["Service", "iris"]["spec"]["selector"]["serin.dev/component"] == "server"
