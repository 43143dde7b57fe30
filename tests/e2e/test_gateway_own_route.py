"""A user's own HTTPRoute at a real gateway: Serin moves the weights in it, under load, and nothing else.

At last the operator is killed while it does, again and again.
"""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from demo.environment import Cluster
from tests.e2e import gateways
from tests.e2e.cluster import Manifest
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment, Status, condition, decisions, eventually, steps
from tests.e2e.figures import Figures
from tests.e2e.installed import Operator, Reaper, kill_when
from tests.e2e.traffic import Traffic
from tests.e2e.watching import Watch

RPS = 60
NAME = "owned"
ROUTE = "mine"
KIND = "httproute.gateway.networking.k8s.io"


@dataclass
class Owned:
    """A ModelDeployment whose route somebody else wrote."""

    mdep: ModelDeployment
    outside: Traffic
    url: str
    gateway: str

    def write(self, *colours: str) -> None:
        """As its author applies it, with these Services in the rule that splits."""
        parents = [{"name": gateways.NAME, "namespace": self.gateway}]
        backends = [{"name": f"{NAME}-{colour}", "port": 8080, "weight": 1} for colour in colours]
        marks = {"set": [{"name": "x-mine", "value": "yes"}], "remove": ["x-serin-tester"]}
        rules = [
            {
                "matches": [{"path": {"type": "Exact", "value": f"/v2/models/{NAME}/feedback"}}],
                "backendRefs": [{"name": NAME, "port": 80}],
            },
            {
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": marks}],
                "backendRefs": backends,
                "timeouts": {"request": "20s"},
            },
        ]
        metadata = {"name": ROUTE, "namespace": self.mdep.namespace, "labels": {"serin.dev/model-deployment": NAME}}
        spec = {"parentRefs": parents, "rules": rules}
        api = "gateway.networking.k8s.io/v1"
        self.mdep.cluster.apply([{"apiVersion": api, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}])

    def route(self) -> Manifest:
        return self.mdep.cluster.get(KIND, ROUTE, self.mdep.namespace)

    def weights(self) -> dict[str, int]:
        """By revision, of those that have some."""
        routing = self.mdep.status["routing"]
        given = {one["name"]: one["weight"] for one in self.route()["spec"]["rules"][1]["backendRefs"]}
        found = {routing[c]["revision"]: given[f"{NAME}-{c}"] for c in ("blue", "green") if c in routing}
        return {revision: weight for revision, weight in found.items() if weight}

    def patch(self, *operations: dict[str, Any]) -> None:
        command = ("patch", KIND, ROUTE, "-n", self.mdep.namespace, "--type=json", "-p", json.dumps(operations))
        self.mdep.cluster.kubectl(*command)


def without_weights(route: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(route["spec"])
    for rule in spec["rules"]:
        for backend in rule["backendRefs"]:
            backend.pop("weight", None)
    return spec


@pytest.fixture(scope="module")
def owned(
    cluster: Cluster,
    gateway_operator: Operator,
    new_model_deployment: NewModelDeployment,
    figures: Figures,
    tools_namespace: str,
) -> Iterator[Owned]:
    gateways.install_definitions(cluster)
    with gateways.running(cluster, tools_namespace) as url:
        mdep = new_model_deployment(NAME)
        owned = Owned(mdep, Traffic(cluster, mdep.namespace, NAME, figures, by="-owned"), url, tools_namespace)
        try:
            mdep.wait_serving(mdep.serve("first"))
            yield owned
        finally:
            mdep.delete(wait=False)
            cluster.kubectl("delete", KIND, ROUTE, "-n", mdep.namespace, "--ignore-not-found")


@pytest.fixture(scope="module")
def told(owned: Owned) -> list[str]:
    """What is said of a route that is not there, and of one that names one Service, in this order."""
    owned.mdep.apply(traffic={"router": {"type": "GatewayAPI", "gatewayAPI": {"routeRef": {"name": ROUTE}}}})

    def says(reason: str) -> Status:
        return owned.mdep.wait(reason, lambda s: condition(s, "RouterReady").get("reason") == reason)

    missing = says("RouteNotFound")
    owned.write("blue")
    unfit = says("RouteNotUsable")
    assert [status["phase"] for status in (missing, unfit)] == ["Serving", "Serving"]
    return [condition(status, "RouterReady")["message"] for status in (missing, unfit)]


@pytest.fixture(scope="module")
def through(owned: Owned, told: list[str]) -> Iterator[Traffic]:
    """Its author has mended it, and clients call the Gateway."""
    owned.write("blue", "green")
    owned.mdep.wait("it has gone over", lambda s: s.get("routing", {}).get("router") == "GatewayAPI", 90)
    owned.outside.start(RPS, url=owned.url)
    owned.outside.wait_for(RPS)
    yield owned.outside
    owned.outside.stop()


@pytest.fixture(scope="module")
def promotion(owned: Owned, through: Traffic) -> dict[str, Any]:
    owned.mdep.apply(rollout={"steps": steps((10, 5), (50, 5))})
    owned.mdep.serve("better")
    return owned.mdep.wait_decision("Promoted")


def test_a_route_that_is_missing_or_unfit_is_told_and_stable_serves_on(told: list[str]) -> None:
    assert told[0] == f"There is no HTTPRoute {ROUTE} with the label serin.dev/model-deployment: {NAME}."
    assert told[1].startswith(f"Rule 1 of HTTPRoute {ROUTE} must name {NAME}-blue and {NAME}-green")


def test_a_promotion_moves_the_weights_and_nothing_else(
    owned: Owned, through: Traffic, promotion: dict[str, Any]
) -> None:
    eventually(lambda: owned.weights() == {promotion["toRevision"]: 100})
    answered = through.stats()["by_revision"]
    assert set(answered) == {promotion["fromRevision"], promotion["toRevision"]}
    before = without_weights(owned.route())
    assert before["rules"][1]["filters"][0]["requestHeaderModifier"]["set"] == [{"name": "x-mine", "value": "yes"}]
    through.wait_for(RPS)
    assert through.stats()["failed"] == 0


def test_a_harmful_model_takes_the_other_turn_and_is_rolled_back(
    owned: Owned, through: Traffic, promotion: dict[str, Any], figures: Figures
) -> None:
    before = without_weights(owned.route())
    owned.mdep.apply(rollout={"steps": steps((30, 3), (50, 60))})
    owned.mdep.serve("harmful")
    record = owned.mdep.wait_decision("RolledBack")
    assert record["reason"] == "LessAccurate"
    figures.verdict_to_silence["harmful, a route of one's own"] = through.silence(record)
    assert figures.verdict_to_silence["harmful, a route of one's own"] < 2
    assert owned.weights() == {promotion["toRevision"]: 100}
    assert without_weights(owned.route()) == before
    assert through.stats()["failed"] == 0


def test_weights_that_somebody_changes_are_put_right_and_the_rest_stays(
    owned: Owned, through: Traffic, promotion: dict[str, Any]
) -> None:
    path = "/spec/rules/1"
    blue, green = (one["weight"] for one in owned.route()["spec"]["rules"][1]["backendRefs"])
    owned.patch(
        {"op": "replace", "path": f"{path}/backendRefs/0/weight", "value": max(blue - 1, 0)},
        {"op": "replace", "path": f"{path}/timeouts/request", "value": "9s"},
    )
    owned.patch({"op": "replace", "path": f"{path}/backendRefs/1/weight", "value": max(green - 1, 0)})
    eventually(lambda: owned.weights() == {promotion["toRevision"]: 100})
    assert owned.route()["spec"]["rules"][1]["timeouts"]["request"] == "9s"

    def reasons() -> str:
        selector = f"involvedObject.name={NAME},reason=RoutePutRight"
        return owned.mdep.cluster.kubectl("get", "events", "-n", owned.mdep.namespace, f"--field-selector={selector}")

    eventually(lambda: ROUTE in reasons())
    assert through.stats()["failed"] == 0


def test_another_version_takes_over_by_turns(owned: Owned, through: Traffic, promotion: dict[str, Any]) -> None:
    owned.mdep.apply(rollout={"steps": steps((50, 5))})
    owned.mdep.serve("better", "better-again")
    record = owned.mdep.wait_decision("Promoted")
    eventually(lambda: owned.weights() == {record["toRevision"]: 100})
    through.wait_for(RPS)
    assert through.stats()["failed"] == 0


@dataclass
class Turns:
    """Every state of the route and of all Services, in the order in which the API server wrote them."""

    routes: Watch
    services: Watch

    def wait_current(self, owned: Owned) -> None:
        """Until the watches have told of what there is now."""
        for watch, kind, name in (
            (self.routes, KIND, ROUTE),
            (self.services, "service", f"{NAME}-blue"),
            (self.services, "service", f"{NAME}-green"),
        ):
            newest = resource_version(owned.mdep.cluster.get(kind, name, owned.mdep.namespace))
            assert watch.until(name, lambda state, newest=newest: resource_version(state) >= newest, 30)  # type: ignore[misc]

    def taken(self) -> list[tuple[str, int]]:
        """Each turn of a Service, oldest first: which revision it was led to, and the weight that it had just then."""
        services = (self.services.states(f"{NAME}-{colour}") for colour in ("blue", "green"))
        turns = [after for states in services for before, after in pairwise(states) if leads(before) != leads(after)]
        return [(leads(service), self._weight(service)) for service in sorted(turns, key=resource_version)]

    def _weight(self, service: Manifest) -> int:
        """What the route gave it when it was written: versions are those of one store, whatever the kind."""
        before = [route for route in self.routes.states(ROUTE) if resource_version(route) < resource_version(service)]
        backends = max(before, key=resource_version)["spec"]["rules"][1]["backendRefs"]
        return next(int(one["weight"]) for one in backends if one["name"] == service["metadata"]["name"])


def resource_version(state: Manifest) -> int:
    return int(state["metadata"]["resourceVersion"])


def leads(service: Manifest) -> str:
    return str(service["spec"]["selector"]["serin.dev/revision"])


def its_authors(route: Manifest) -> dict[str, Any]:
    """What Serin has no business with."""
    metadata = {key: route["metadata"].get(key) for key in ("uid", "labels", "annotations")}
    return {"metadata": metadata, "spec": without_weights(route)}


@pytest.fixture
def turns(owned: Owned, promotion: dict[str, Any]) -> Iterator[Turns]:
    cluster, namespace = owned.mdep.cluster, owned.mdep.namespace
    with Watch(cluster, namespace, KIND) as routes, Watch(cluster, namespace, "services") as services:
        turns = Turns(routes, services)
        turns.wait_current(owned)
        yield turns


def test_killed_in_every_phase_of_a_promotion(owned: Owned, through: Traffic, turns: Turns, reaper: Reaper) -> None:
    mdep = owned.mdep
    # A step outlasts the time that its successor takes to lead and to be aimed at.
    mdep.apply(rollout={"steps": steps((10, 25), (50, 25))})
    reaper.aim()
    mdep.serve("better", "killed")
    kill_when(mdep, reaper, "it has a Service", lambda s: has_turn(s, "killed"))
    kill_when(mdep, reaper, "step 0 begins", lambda s: is_at(s, "killed", 0), 90)
    kill_when(mdep, reaper, "step 1 begins", lambda s: is_at(s, "killed", 1), 90)
    status = kill_when(mdep, reaper, "it is promoted", lambda s: s["stable"]["version"] == "killed", 150)
    assert told_of(status) == [("Started", 0), ("Advanced", 10), ("Advanced", 50), ("Promoted", 100)]
    ends_well(owned, through, turns, status["stable"]["revision"])


def test_killed_around_the_next_turn(owned: Owned, through: Traffic, turns: Turns, reaper: Reaper) -> None:
    """The Service that the canary takes has had a weight until a moment ago."""
    mdep = owned.mdep
    mdep.apply(rollout={"steps": steps((50, 25))})
    reaper.aim()
    mdep.serve("better", "killed-again")
    kill_when(mdep, reaper, "its Service has no weight", lambda s: waits_for_turn(s, "killed-again"))
    kill_when(mdep, reaper, "it has a Service", lambda s: has_turn(s, "killed-again"))
    record = mdep.wait_decision("Promoted", 180)
    assert told_of(mdep.status) == [("Started", 0), ("Advanced", 50), ("Promoted", 100)]
    ends_well(owned, through, turns, record["toRevision"])


def ends_well(owned: Owned, through: Traffic, turns: Turns, revision: str) -> None:
    """This revision has taken one turn, when its Service had no weight, and is all that changed in the route."""
    eventually(lambda: owned.weights() == {revision: 100})
    turns.wait_current(owned)
    assert turns.taken() == [(revision, 0)]
    first, *others = (its_authors(state) for state in turns.routes.states(ROUTE))
    assert [other for other in others if other != first] == []
    through.wait_for(RPS)
    assert through.stats()["failed"] == 0


def slots(status: Status) -> list[dict[str, Any]]:
    """The turns of the two Services, of those that have one."""
    return [status["routing"][colour] for colour in ("blue", "green") if colour in status.get("routing", {})]


def waits_for_turn(status: Status, version: str) -> bool:
    return status.get("canary", {}).get("version") == version and any("idle" in slot for slot in slots(status))


def has_turn(status: Status, version: str) -> bool:
    canary = status.get("canary", {})
    return canary.get("version") == version and canary["revision"] in [slot["revision"] for slot in slots(status)]


def is_at(status: Status, version: str, step: int) -> bool:
    canary = status.get("canary", {})
    return bool(canary.get("version") == version and status["rollout"].get("step") == step)


def told_of(status: Status) -> list[tuple[str, int]]:
    """The last rollout, oldest decision first."""
    return [(one["decision"], one["weight"]) for one in decisions(status)]
