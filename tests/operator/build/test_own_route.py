"""A user's own route: the two Services, the weights of each, and a patch that touches nothing but them."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import CANARY, IMAGES, NOW, OLD, OWNER, ROLLING, STABLE
from tests.operator.build.test_routes import SERVING
from tests.operator.definition import make_spec
from tests.operator.json_patch import patched

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Routing, Slot, Status
from serin_operator.build.manifests import manifests
from serin_operator.build.own_route import UnusableError, edits, live_route, shared_rules, weights
from serin_operator.decide.observed import Route

SPEC = make_spec(traffic={"router": {"type": "GatewayAPI", "gatewayAPI": {"routeRef": {"name": "public"}}}})
LABEL = "serin.dev/model-deployment"


def slot(revision: str, settled: bool = True) -> Slot:
    return Slot(revision, NOW, settled)


def routed(status: Status, blue: Slot | None, green: Slot | None = None) -> Status:
    return replace(status, routing=Routing(RouterType.GATEWAY_API, blue=blue, green=green))


def backend(name: str, weight: int | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": 8080, **({} if weight is None else {"weight": weight}), **more}


def route(*rules: list[dict[str, Any]], label: str = "iris") -> dict[str, Any]:
    """As a user may have written it."""
    return {
        "metadata": {"name": "public", "namespace": "shop", "uid": "u1", "labels": {LABEL: label}},
        "spec": {
            "parentRefs": [{"name": "public"}],
            "hostnames": ["iris.example.com"],
            "rules": [{"backendRefs": list(backends), "timeouts": {"request": "3s"}} for backends in rules],
        },
    }


BOTH = [backend("iris-blue", 1), backend("iris-green", 0)]


def of(status: Status) -> dict[str, int]:
    wanted = weights(OWNER, SPEC, status)
    assert wanted
    return dict(wanted.of)


def test_both_services_are_there_and_lead_to_their_revision_or_to_nobody() -> None:
    found = {
        manifest["metadata"]["name"]: manifest
        for manifest in manifests(OWNER, SPEC, routed(SERVING, slot(STABLE)), False, IMAGES)
        if manifest["kind"] in ("Service", "HTTPRoute")
    }
    assert {"iris-blue", "iris-green", "iris"} <= found.keys()
    assert found["iris-blue"]["spec"]["selector"]["serin.dev/revision"] == STABLE
    assert found["iris-green"]["spec"]["selector"]["serin.dev/revision"] == "none"
    assert [port["port"] for port in found["iris-blue"]["spec"]["ports"]] == [8080]
    assert "HTTPRoute" not in {manifest["kind"] for manifest in found.values()}
    assert f"iris-{STABLE}-backend" not in found


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(routed(SERVING, slot(STABLE)), (100, 0), id="stable alone"),
        pytest.param(routed(SERVING, slot(OLD), slot(STABLE)), (0, 100), id="stable is green"),
        pytest.param(routed(ROLLING, slot(STABLE), slot(CANARY)), (75, 25), id="a canary with weight"),
        pytest.param(routed(ROLLING, slot(CANARY), slot(STABLE)), (25, 75), id="the canary is blue"),
        pytest.param(routed(ROLLING, slot(STABLE), slot(CANARY, False)), (100, 0), id="a slot Gateways may not know"),
        pytest.param(routed(ROLLING, slot(STABLE)), (100, 0), id="a canary without a slot"),
        pytest.param(routed(ROLLING, slot(OLD), slot(CANARY)), (100, 0), id="stable without one: who served goes on"),
        pytest.param(routed(SERVING, slot(STABLE, False)), (100, 0), id="the first of all"),
    ],
)
def test_weights_follow_the_revisions_wherever_they_are(status: Status, expected: tuple[int, int]) -> None:
    assert of(status) == dict(zip(("iris-blue", "iris-green"), expected, strict=True))


def test_a_patch_changes_the_weights_and_nothing_else() -> None:
    mirror = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "audit", "port": 80}}}]
    raw = route([backend("login")], [backend("iris-green", 1, filters=mirror), backend("iris-blue")], BOTH)
    wanted = weights(OWNER, SPEC, routed(ROLLING, slot(STABLE), slot(CANARY)))
    assert wanted
    after = patched(raw, edits(wanted, raw))
    assert [one["weight"] for one in after["spec"]["rules"][1]["backendRefs"]] == [25, 75]
    assert [one["weight"] for one in after["spec"]["rules"][2]["backendRefs"]] == [75, 25]
    for rule in (after, raw):
        for backends in rule["spec"]["rules"][1:]:
            for one in backends["backendRefs"]:
                one.pop("weight", None)
    assert after == raw
    assert wanted.key == ("HTTPRoute", "shop", "public")


def test_what_has_its_weights_gets_no_patch() -> None:
    wanted = weights(OWNER, SPEC, routed(ROLLING, slot(STABLE), slot(CANARY)))
    assert wanted
    assert edits(wanted, route([backend("iris-blue", 75), backend("iris-green", 25)])) == []


@pytest.mark.parametrize("change", ["a header", "another route of this name"])
def test_a_patch_is_refused_when_somebody_edits_the_rule_meanwhile(change: str) -> None:
    raw = route(BOTH)
    wanted = weights(OWNER, SPEC, routed(ROLLING, slot(STABLE), slot(CANARY)))
    assert wanted
    patch = edits(wanted, raw)
    edited = deepcopy(raw)
    if change == "a header":
        edited["spec"]["rules"][0]["backendRefs"][0]["filters"] = [{"type": "RequestHeaderModifier"}]
    else:
        edited["metadata"]["uid"] = "u2"
    with pytest.raises(AssertionError):
        patched(edited, patch)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        pytest.param(route([backend("other", 1)]), "No rule of HTTPRoute public names", id="other Services"),
        pytest.param(route(), "No rule of HTTPRoute public names", id="no rules"),
        pytest.param(route(BOTH, BOTH[:1]), "Rule 1 of HTTPRoute public must name", id="one of the two"),
        pytest.param(route([*BOTH, backend("other", 1)]), "and nothing else", id="a third"),
        pytest.param(route([*BOTH, BOTH[0]]), "each once", id="one of them twice"),
        pytest.param(
            route([backend("iris-blue", 1, namespace="else"), backend("iris-green", 0, kind="Other")]),
            "No rule",
            id="the same names elsewhere",
        ),
        pytest.param(route(BOTH, label="other"), "labelled for the ModelDeployment other", id="another's"),
        pytest.param(
            {**route(BOTH), "spec": {"rules": [{"backendRefs": BOTH}]}}, "names no Gateway", id="without a Gateway"
        ),
    ],
)
def test_a_route_that_can_not_be_used_says_why(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(UnusableError, match=words):
        shared_rules("iris", "shop", raw)


def test_only_rules_that_split_between_the_two_are_edited() -> None:
    assert shared_rules("iris", "shop", route([backend("login")], BOTH, [backend("iris", 1)])) == [1]


@pytest.mark.parametrize(
    ("blue", "green", "found"),
    [
        (100, 0, Route(STABLE)),
        (75, 25, Route(STABLE, CANARY, 25)),
        (0, 100, Route(CANARY)),
        (1, 0, None),
        (50, 51, None),
    ],
)
def test_weights_are_read_as_the_services_lead(blue: int, green: int, found: Route | None) -> None:
    backends = [backend("iris-blue", blue), backend("iris-green", green)]
    assert live_route(backends, {"iris-blue": STABLE, "iris-green": CANARY}, STABLE) == found
    assert live_route(backends[::-1], {"iris-blue": STABLE, "iris-green": CANARY}, STABLE) == found
    assert live_route(backends, {"other": STABLE}, STABLE) is None
