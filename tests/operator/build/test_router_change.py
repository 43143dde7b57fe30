"""While one router takes over from another: the one that serves keeps its traffic settings until it has left.

The definition forbids most of them beside another type of router, so that a spec that asks for that has dropped them.
Between any two passes the operator is killed: what is known is what was written.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from tests.operator.build.test_manifests import CANARY, IMAGES, NOW, OWNER, ROLLING, STABLE
from tests.operator.decide.world import DEFAULTS, NAME
from tests.operator.definition import make_spec, status_problems
from tests.operator.observe.test_gateways import Cached

from serin_operator.api.spec import RouterType, Spec
from serin_operator.api.status import Phase, Routing, Slot, Status, dump_status, parse_status
from serin_operator.build.manifests import manifests
from serin_operator.build.own_route import weights
from serin_operator.build.owner import Manifest
from serin_operator.decide import certificate
from serin_operator.decide.observed import Observed, Route, Router
from serin_operator.decide.roles import route_of
from serin_operator.decide.routing import SWITCH_DRAIN_SECONDS, follow
from serin_operator.observe.routing import Sight, verify

EMBEDDED = {
    "router": {"type": "Embedded", "replicas": 2, "resources": {"requests": {"cpu": 1, "memory": "1Gi"}}},
    "timeout": "40s",
    "tls": {"secretName": "iris-tls"},
    "sticky": {"cookie": "session"},
    "testers": {"cookie": {"name": "tester", "value": "yes"}},
    "accessLog": {"sample": 0},
}
PARENTS = [{"name": "public", "namespace": "gateways", "port": 443}]
GATEWAY = {
    "router": {
        "type": "GatewayAPI",
        "gatewayAPI": {
            "parentRefs": PARENTS,
            "hostnames": ["iris.example.com"],
            "grpc": {"hostnames": ["grpc.example.com"]},
        },
    },
    "testers": {"header": {"name": "X-Tester", "value": "yes"}},
}
MESH = {
    "router": {"type": "Istio", "istio": {"hosts": ["iris.example.com"], "gateways": ["istio-system/public"]}},
    "timeout": "50s",
}
OWN = {"router": {"type": "GatewayAPI", "gatewayAPI": {"routeRef": {"name": "public"}}}}
PLAIN_EMBEDDED: dict[str, Any] = {"router": {"type": "Embedded"}}
PLAIN_MESH: dict[str, Any] = {"router": {"type": "Istio"}}
PLAIN_GATEWAY: dict[str, Any] = {"router": {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": PARENTS}}}
SERVICE = ("Service", "iris")

Built = dict[tuple[str, str], Manifest]


@dataclass
class Rollout:
    """A rollout that stands still, pass by pass, with the definition of that moment."""

    status: Status
    spec: Spec
    now: float = NOW

    def ask(self, traffic: dict[str, Any], next_router: Router | None = None) -> Built:
        """One pass of an operator that has just started, with this `spec.traffic`; what it applies."""
        self.spec = make_spec(traffic=traffic)
        seen = Observed(NAME, 1, None, self.spec, self.status, DEFAULTS, router=self.ready, next_router=next_router)
        raw = json.loads(json.dumps(dump_status(follow(seen, self.status, self.now))))
        assert status_problems(raw) == []
        self.status = parse_status(raw)
        found = manifests(OWNER, self.spec, self.status, False, IMAGES)
        return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}

    @property
    def ready(self) -> Router:
        """A router that serves what it is to serve."""
        route = route_of(self.status)
        assert route
        return Router(1, (route,), ({STABLE: 1, CANARY: 1},))

    def switch(self, traffic: dict[str, Any]) -> Built:
        """The next router takes over."""
        found = self.ask(traffic, next_router=self.ready)
        assert self.status.routing and self.status.routing.leaving
        return found

    def drain(self) -> None:
        self.now += SWITCH_DRAIN_SECONDS


def under(traffic: dict[str, Any]) -> Rollout:
    """A rollout with the router that this asks for, after a pass or two."""
    spec = make_spec(traffic=traffic)
    kind = spec.traffic.router
    routing = None if kind is RouterType.EMBEDDED else Routing(kind, blue=Slot(STABLE, NOW, True))
    rollout = Rollout(replace(ROLLING, routing=routing), spec)
    rollout.ask(traffic)
    return rollout


def changed(before: Built, after: Built) -> set[tuple[str, str]]:
    """What was applied before and is gone or otherwise now."""
    return {key for key, manifest in before.items() if after.get(key) != manifest}


CHANGES = [
    pytest.param(EMBEDDED, PLAIN_GATEWAY, id="embedded to gateway"),
    pytest.param(EMBEDDED, PLAIN_MESH, id="embedded to mesh"),
    pytest.param(GATEWAY, PLAIN_EMBEDDED, id="gateway to embedded"),
    pytest.param(GATEWAY, PLAIN_MESH, id="gateway to mesh"),
    pytest.param(MESH, PLAIN_EMBEDDED, id="mesh to embedded"),
    pytest.param(MESH, PLAIN_GATEWAY, id="mesh to gateway"),
    pytest.param(OWN, PLAIN_EMBEDDED, id="own route to embedded"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_nothing_of_the_router_that_serves_changes_until_it_has_left(old: dict[str, Any], new: dict[str, Any]) -> None:
    rollout = under(old)
    before = rollout.ask(old)
    for _ in range(3):
        assert changed(before, rollout.ask(new)) == set()
    assert changed(before, rollout.switch(new)) <= {SERVICE}
    assert changed(before, rollout.ask(new)) <= {SERVICE}
    rollout.drain()
    assert rollout.ask(new) == under(new).ask(new)
    assert rollout.status.traffic == under(new).status.traffic


def test_clients_of_tls_are_served_until_the_service_leads_elsewhere() -> None:
    rollout = under(EMBEDDED)
    ports = [port["port"] for port in rollout.ask(PLAIN_GATEWAY)[SERVICE]["spec"]["ports"]]
    assert ports == [80, 443]
    found = rollout.switch(PLAIN_GATEWAY)
    assert [port["port"] for port in found[SERVICE]["spec"]["ports"]] == [80]
    assert "inference-tls" in found["ConfigMap", "iris-router"]["data"]["bootstrap.json"]
    volumes = found["Deployment", "iris-router"]["spec"]["template"]["spec"]["volumes"]
    assert "iris-tls" in [volume.get("secret", {}).get("secretName") for volume in volumes]


def test_the_next_router_is_as_the_spec_says_from_the_beginning() -> None:
    found = under(EMBEDDED).ask(GATEWAY | {"timeout": "7s"})
    route = found["HTTPRoute", "iris"]["spec"]
    assert route["hostnames"] == ["iris.example.com"]
    assert {rule["timeouts"]["request"] for rule in route["rules"]} == {"7s"}


def test_settings_of_the_router_that_is_asked_for_take_effect_at_once() -> None:
    rollout = under(EMBEDDED)
    found = rollout.ask(EMBEDDED | {"tls": {"secretName": "other"}, "timeout": "90s"})
    assert '"90s"' in found["ConfigMap", "iris-router"]["data"]["rds.json"]
    assert changed(found, rollout.ask(PLAIN_GATEWAY)) == set()


def test_a_change_of_mind_brings_the_specs_settings_back() -> None:
    rollout = under(EMBEDDED)
    before = rollout.ask(EMBEDDED)
    rollout.ask(GATEWAY)
    assert rollout.ask(EMBEDDED) == before
    rollout.ask(GATEWAY)
    without_tls = {key: value for key, value in EMBEDDED.items() if key != "tls"}
    assert rollout.ask(without_tls) == under(without_tls).ask(without_tls)
    assert rollout.status.traffic == (make_spec(traffic=without_tls).traffic,)


def test_while_one_router_drains_the_one_that_serves_keeps_its_settings_too() -> None:
    """Embedded drains, Gateways serve, and a mesh is asked for: three at once."""
    rollout = under(EMBEDDED)
    before = rollout.ask(EMBEDDED)
    rollout.ask(GATEWAY)
    serving = rollout.switch(GATEWAY)
    found = rollout.ask(PLAIN_MESH)
    assert changed(before, found) == {SERVICE}
    assert changed(serving, found) == set()
    assert found["VirtualService", "iris"]["spec"]["hosts"] == ["iris"]


def test_going_back_while_the_old_router_drains_keeps_the_route_of_the_new_one() -> None:
    rollout = under(EMBEDDED)
    rollout.ask(GATEWAY)
    serving = rollout.switch(GATEWAY)
    for _ in range(2):
        found = rollout.ask(EMBEDDED)
        for route in (("HTTPRoute", "iris"), ("GRPCRoute", "iris-grpc")):
            assert found[route] == serving[route]
    rollout.switch(EMBEDDED)
    rollout.drain()
    assert rollout.ask(EMBEDDED) == under(EMBEDDED).ask(EMBEDDED)


def test_a_route_of_your_own_gets_weights_and_keeps_its_services_until_it_has_left() -> None:
    rollout = under(OWN)
    rollout.ask(PLAIN_EMBEDDED)
    wanted = weights(OWNER, rollout.spec, rollout.status)
    assert wanted and wanted.key == ("HTTPRoute", "shop", "public")
    found = rollout.switch(PLAIN_EMBEDDED)
    assert found["Service", "iris-blue"]["spec"]["selector"]["serin.dev/revision"] == STABLE
    assert found["Service", "iris-green"]["spec"]["selector"]["serin.dev/revision"] == CANARY
    rollout.drain()
    assert ("Service", "iris-blue") not in rollout.ask(PLAIN_EMBEDDED)


def test_what_is_remembered_is_written_once() -> None:
    rollout = under(EMBEDDED)
    for traffic in (EMBEDDED, PLAIN_GATEWAY):
        rollout.ask(traffic)
        status = rollout.status
        rollout.ask(traffic)
        assert rollout.status == status


def test_nothing_is_remembered_of_routers_that_have_left_or_never_served() -> None:
    rollout = under(EMBEDDED)
    assert [traffic.router for traffic in rollout.status.traffic] == ["Embedded"]
    pending = Rollout(replace(ROLLING, phase=Phase.PENDING, traffic=rollout.status.traffic), rollout.spec)
    pending.ask(GATEWAY)
    assert pending.status.traffic == (make_spec(traffic=GATEWAY).traffic,)
    assert Rollout(Status(), rollout.spec).status.traffic == ()


def test_a_status_that_remembers_nothing_goes_by_the_spec() -> None:
    """Of an operator that knew nothing of this, which was replaced in the middle of a change."""
    routing = Routing(RouterType.EMBEDDED, next=RouterType.GATEWAY_API)
    rollout = Rollout(replace(ROLLING, routing=routing), make_spec())
    found = rollout.ask(PLAIN_GATEWAY)
    assert [port["port"] for port in found[SERVICE]["spec"]["ports"]] == [80]
    assert [traffic.router for traffic in rollout.status.traffic] == ["GatewayAPI"]


def test_the_certificate_is_told_as_long_as_it_is_served() -> None:
    rollout = under(EMBEDDED)
    served = Router(1, (Route(STABLE),), certificates=(NOW + 86400,))
    rollout.ask(PLAIN_GATEWAY)
    seen = Observed(NAME, 1, None, rollout.spec, rollout.status, DEFAULTS, router=served)
    told = certificate.told(seen, rollout.status, NOW)
    assert told and "iris-tls" in told.message
    rollout.switch(PLAIN_GATEWAY)
    assert certificate.told(seen, rollout.status, NOW) is None


async def test_a_route_of_your_own_is_looked_at_as_long_as_it_serves() -> None:
    rollout = under(OWN)
    rollout.ask(PLAIN_EMBEDDED)
    sight = Sight(cast(Any, None), ("shop", "iris"), (), rollout.spec, rollout.status, Cached(), None)
    router = await verify(RouterType.GATEWAY_API, sight)
    assert router.problem and "no HTTPRoute public" in router.problem


def pods_may_take(found: Built) -> int:
    seconds: int = found["Deployment", f"iris-{STABLE}"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    return seconds


def test_pods_may_take_as_long_to_end_as_any_router_lets_a_request_take() -> None:
    rollout = under(EMBEDDED)
    assert pods_may_take(rollout.ask(PLAIN_GATEWAY | {"timeout": "2s"})) == 40 + 60
    assert pods_may_take(rollout.ask(PLAIN_GATEWAY | {"timeout": "90s"})) == 90 + 60
