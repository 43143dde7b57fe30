"""Routes as the API server takes them, by the Gateway API's and Istio's own definitions.

The definitions are copies in an API group of the tests' own, so that a gateway or a mesh in the cluster is left alone.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from tests.chart.tools import Kubectl, Manifest
from tests.cluster import routers
from tests.operator.build.test_manifests import CANARY, IMAGES, OWNER, ROLLING, STABLE
from tests.operator.build.test_own_route import BOTH, routed, slot
from tests.operator.build.test_own_route import SPEC as OWN_SPEC
from tests.operator.build.test_own_route import route as own_route
from tests.operator.build.test_routes import SERVING, SHADOW, TESTERS
from tests.operator.definition import make_spec

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Routing, Status
from serin_operator.build.manifests import manifests
from serin_operator.build.own_route import edits, weights

pytestmark = pytest.mark.cluster

KINDS = ("HTTPRoute", "GRPCRoute", "VirtualService", "DestinationRule")
FULL = {
    "gatewayAPI": {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https", "port": 443}],
        "hostnames": ["iris.example.com", "*.models.example.com"],
        "grpc": {"hostnames": ["grpc.example.com"]},
    },
    "istio": {"hosts": ["iris.example.com"], "gateways": ["istio-system/public"]},
}
LEAST = {"gatewayAPI": {"parentRefs": [{"name": "public"}], "grpc": {}}}
STATES = {
    "stable alone": SERVING,
    "a canary with weight": ROLLING,
    "a canary that starts": replace(ROLLING, weight=0),
    "all but one per cent": replace(ROLLING, weight=99),
    "a shadow": SHADOW,
}


@pytest.fixture(scope="module")
def own(kubectl: Kubectl) -> Iterator[Callable[[Manifest], Manifest]]:
    """Puts a route into the copies' group."""
    found = [
        document
        for file in (*routers.gateway_api(), routers.istio())
        for document in yaml.safe_load_all(file.read_text())
        if document and document["kind"] == "CustomResourceDefinition" and document["spec"]["names"]["kind"] in KINDS
    ]
    assert {document["spec"]["names"]["kind"] for document in found} == set(KINDS)
    for document in found:
        names = document["spec"]["names"]
        document["spec"]["group"] = kubectl.group
        document["metadata"] = {"name": f"{names['plural']}.{kubectl.group}"}
        document.pop("status", None)
        names.pop("shortNames", None)
        names.pop("categories", None)
    copies = [document["metadata"]["name"] for document in found]
    try:
        for document in found:
            kubectl.apply(document).must_succeed()
        kubectl.wait_known(*copies)
        yield lambda manifest: {**manifest, "apiVersion": f"{kubectl.group}/{manifest['apiVersion'].split('/')[1]}"}
    finally:
        kubectl("delete", "crd", *copies, "--ignore-not-found", "--wait=false").must_succeed()


@pytest.mark.parametrize("router", [FULL, LEAST], ids=["everything", "the least"])
@pytest.mark.parametrize("status", STATES.values(), ids=STATES.keys())
@pytest.mark.parametrize("kind", [RouterType.GATEWAY_API, RouterType.ISTIO])
def test_every_route_is_taken_as_it_is_written(
    kubectl: Kubectl, own: Callable[[Manifest], Manifest], kind: RouterType, status: Status, router: dict[str, Any]
) -> None:
    spec = make_spec(
        traffic={"router": {"type": kind.value, **router}, "timeout": "2500ms", "testers": TESTERS},
    )
    built = manifests(OWNER, spec, replace(status, routing=Routing(kind)), False, IMAGES)
    routes = [manifest for manifest in built if manifest["kind"] in KINDS]
    assert len(routes) >= 2
    for route in routes:
        in_here = {**route, "metadata": {"name": route["metadata"]["name"], "labels": route["metadata"]["labels"]}}
        kubectl.apply(own(in_here), dry_run=True).must_succeed()


def test_weights_of_a_route_that_a_user_owns_are_edited_and_nothing_else(
    kubectl: Kubectl, own: Callable[[Manifest], Manifest]
) -> None:
    """And not over an edit that was not seen."""
    raw = own({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", **own_route(BOTH)})
    raw["metadata"] = {"name": "public", "labels": raw["metadata"]["labels"]}
    kubectl.apply(raw).must_succeed()
    plural = f"httproutes.{kubectl.group}"
    before = kubectl.get(plural, "public")
    wanted = weights(OWNER, OWN_SPEC, routed(ROLLING, slot(STABLE), slot(CANARY)))
    assert wanted
    here = replace(wanted, key=(wanted.key[0], before["metadata"]["namespace"], "public"))
    patch = json.dumps(edits(here, before))
    kubectl("patch", plural, "public", "--type=json", "-p", patch).must_succeed()
    after = kubectl.get(plural, "public")
    assert [backend["weight"] for backend in after["spec"]["rules"][0]["backendRefs"]] == [75, 25]
    assert edits(here, after) == []
    for rule, weight in zip(before["spec"]["rules"][0]["backendRefs"], (75, 25), strict=True):
        rule["weight"] = weight
    assert after["spec"] == before["spec"]
    again = kubectl("patch", plural, "public", "--type=json", "-p", patch)
    assert again.code != 0, "the list of backends is another one by now"


def test_a_route_that_is_wrong_would_be_refused(kubectl: Kubectl, own: Callable[[Manifest], Manifest]) -> None:
    """The copies check what the originals do."""
    http = {"rules": [{"timeouts": {"request": "2.5s"}}]}
    wrong = {
        "HTTPRoute": {"apiVersion": "gateway.networking.k8s.io/v1", "spec": http},
        "VirtualService": {"apiVersion": "networking.istio.io/v1", "spec": {"http": [{"timeout": "soon"}]}},
    }
    for kind, manifest in wrong.items():
        answer = kubectl.apply(own({"kind": kind, "metadata": {"name": "wrong"}, **manifest}), dry_run=True)
        assert answer.code != 0
        assert "time" in answer.err
