"""Routes of the Gateway API, with a real gateway: missing at first, then installed under load, rolled out, and left.

One ModelDeployment goes through all of it. Clients inside the cluster call its Service from the beginning to the end.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from demo.environment import Cluster
from tests.e2e import gateways
from tests.e2e.calls import ask, counted
from tests.e2e.cluster import Manifest, try_kubectl
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment, Status, condition, epoch, eventually, steps
from tests.e2e.figures import Figures
from tests.e2e.installed import Operator
from tests.e2e.traffic import Traffic

RPS, INSIDE_RPS = 90, 20
WEIGHTS = (10, 50)
MOST_STANDARD_DEVIATIONS = 4
ROUTE = "httproute.gateway.networking.k8s.io"


@dataclass
class Routed:
    """A ModelDeployment behind the Gateway, with those who call its Service and those who call the Gateway."""

    mdep: ModelDeployment
    inside: Traffic
    outside: Traffic

    def route(self) -> Manifest:
        return self.mdep.cluster.get(ROUTE, self.mdep.name, self.mdep.namespace)

    def edit(self, operation: dict[str, Any]) -> None:
        """As somebody does by hand."""
        patch = json.dumps([operation])
        self.mdep.cluster.kubectl("patch", ROUTE, self.mdep.name, "-n", self.mdep.namespace, "--type=json", "-p", patch)

    def told(self, reason: str) -> int:
        """How many of its Events said so."""
        selector = f"involvedObject.name={self.mdep.name},reason={reason}"
        command = ("get", "events", "-n", self.mdep.namespace, f"--field-selector={selector}", "-o", "json")
        return len(json.loads(self.mdep.cluster.kubectl(*command))["items"])


@pytest.fixture(scope="module")
def routed(
    cluster: Cluster, gateway_operator: Operator, new_model_deployment: NewModelDeployment, figures: Figures
) -> Iterator[Routed]:
    mdep = new_model_deployment("routed")
    inside, outside = (Traffic(cluster, mdep.namespace, mdep.name, figures, by=by) for by in ("-inside", "-outside"))
    try:
        mdep.wait_serving(mdep.serve("first"))
        inside.start(INSIDE_RPS)
        yield Routed(mdep, inside, outside)
    finally:
        mdep.delete(wait=False)


@pytest.fixture(scope="module")
def waiting(routed: Routed, tools_namespace: str) -> Status:
    """The Gateway API is asked for and is not there."""
    parents = [{"name": gateways.NAME, "namespace": tools_namespace}]
    routed.mdep.apply(traffic={"router": {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": parents}}})
    return routed.mdep.wait("it tells", lambda s: condition(s, "RouterReady").get("reason") == "RouterNotInstalled")


@pytest.fixture(scope="module")
def gateway(routed: Routed, waiting: Status, cluster: Cluster, tools_namespace: str) -> Iterator[str]:
    """The Gateway API is installed, and Serin has gone over to it by itself."""
    gateways.install_definitions(cluster)
    with gateways.running(cluster, tools_namespace) as url:
        yield url


@pytest.fixture(scope="module")
def through(routed: Routed, gateway: str) -> Iterator[Traffic]:
    """Clients that call the Gateway."""
    routed.mdep.wait("it has gone over", lambda s: s.get("routing", {}).get("router") == "GatewayAPI", 90)
    routed.inside.rate(0)  # who passes the Gateway by gets the stable revision: the share would not be the weight
    routed.outside.start(RPS, url=gateway)
    routed.outside.wait_for(RPS)
    yield routed.outside
    routed.outside.stop()


@pytest.fixture(scope="module")
def promotion(routed: Routed, through: Traffic) -> dict[str, Any]:
    """The better model takes over, in two steps."""
    routed.mdep.apply(rollout={"steps": steps((WEIGHTS[0], 12), (WEIGHTS[1], 10))})
    routed.mdep.serve("better")
    return routed.mdep.wait_decision("Promoted")


def test_a_gateway_api_that_is_missing_is_told_and_stable_serves_on(
    routed: Routed, waiting: Status, gateway_operator: Operator
) -> None:
    told = condition(waiting, "RouterReady")["message"]
    assert "install the Gateway API" in told
    assert condition(waiting, "Reconciling")["reason"] == "SwitchingRouter"
    assert (waiting["phase"], condition(waiting, "Ready")["status"]) == ("Serving", "True")
    assert "Embedded serves on" in condition(waiting, "Reconciling")["message"]
    pod = gateway_operator.wait_ready()
    routed.inside.wait_for(3 * INSIDE_RPS)
    assert routed.inside.stats()["failed"] == 0
    assert gateway_operator.wait_ready()["metadata"]["name"] == pod["metadata"]["name"]
    assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0]


def test_once_it_is_installed_the_route_goes_over_under_load(routed: Routed, gateway: str) -> None:
    status = routed.mdep.wait(
        "only the Gateway is left",
        lambda s: s.get("routing") == {"router": "GatewayAPI"} and not condition(s, "RouterReady"),
        120,
    )
    assert [one["reason"] for one in status["history"][:1]] == ["RouterChanged"]
    eventually(lambda: f"{routed.mdep.name}-router" not in _names(routed.mdep, "deployments"))
    routed.inside.wait_for(2 * INSIDE_RPS)
    assert routed.inside.stats()["failed"] == 0


def test_host_names_that_somebody_adds_to_the_route_are_taken_away(routed: Routed, gateway: str) -> None:
    """A server-side apply leaves them there. Before clients come: to theirs, the Gateway would know no route."""
    assert "hostnames" not in routed.route()["spec"]
    routed.edit({"op": "add", "path": "/spec/hostnames", "value": ["elsewhere.example.com"]})
    eventually(lambda: "hostnames" not in routed.route()["spec"])
    eventually(lambda: routed.told("RoutePutRight") > 0)

    def followed() -> bool:
        route = routed.route()
        seen = {one["observedGeneration"] for parent in route["status"]["parents"] for one in parent["conditions"]}
        return seen == {route["metadata"]["generation"]}

    eventually(followed)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_clients_of_the_gateway_see_the_weight(
    routed: Routed, through: Traffic, promotion: dict[str, Any], figures: Figures, weight: int
) -> None:
    answers = through.between(*_window(routed.mdep, promotion, weight))
    assert set(answers) == {promotion["fromRevision"], promotion["toRevision"]}
    canary, total = answers[promotion["toRevision"]], sum(answers.values())
    expected = total * weight / 100
    deviations = (canary - expected) / math.sqrt(expected * (1 - weight / 100))
    figures.split[f"{weight} %, Gateway API"] = f"{canary} of {total} ({deviations:+.1f} sigma)"
    assert total > 300
    assert abs(deviations) <= MOST_STANDARD_DEVIATIONS


def test_a_promotion_loses_nothing(routed: Routed, through: Traffic, promotion: dict[str, Any]) -> None:
    routed.mdep.wait_serving()
    eventually(lambda: _backends(routed.route()) == {_backend(routed.mdep, promotion["toRevision"]): 100})
    through.wait_for(RPS)
    assert through.stats()["failed"] == 0


def test_a_harmful_model_is_rolled_back(
    routed: Routed, through: Traffic, promotion: dict[str, Any], figures: Figures
) -> None:
    routed.mdep.apply(rollout={"steps": steps((30, 3), (50, 60))})
    routed.mdep.serve("harmful")
    record = routed.mdep.wait_decision("RolledBack")
    assert record["reason"] == "LessAccurate"
    figures.verdict_to_silence["harmful, Gateway API"] = through.silence(record)
    assert figures.verdict_to_silence["harmful, Gateway API"] < 2
    assert _backends(routed.route()) == {_backend(routed.mdep, promotion["toRevision"]): 100}
    assert through.stats()["failed"] == 0


def test_testers_meet_the_candidate_and_nobody_else_passes_for_one(
    routed: Routed, through: Traffic, gateway: str, promotion: dict[str, Any]
) -> None:
    """The candidate is ready and gets no weight."""
    mdep, stable = routed.mdep, promotion["toRevision"]
    mdep.apply(traffic={"testers": {"header": {"name": "X-Tester", "value": "yes"}}}, rollout={"paused": True})
    generation = mdep.serve("equal")
    waiting = mdep.wait(
        "the candidate is ready", lambda s: s.get("canary", {}).get("readyReplicas", 0) > 0, 60, generation
    )
    canary = waiting["canary"]["revision"]
    eventually(lambda: ask(mdep, through, 1, base=gateway, x_tester="yes") == {canary: 1})
    assert ask(mdep, through, 20, base=gateway, x_tester="yes") == {canary: 20}
    assert ask(mdep, through, 20, base=gateway, x_serin_tester="1") == {stable: 20}
    assert mdep.status["weight"] == 0
    assert counted(mdep, canary, "tester") >= 21
    assert counted(mdep, canary, "first") == 0
    assert counted(mdep, stable, "tester") == 0
    assert through.stats()["failed"] == 0


def test_a_shadow_is_promoted_by_pairs_that_the_gateway_makes(
    routed: Routed, through: Traffic, promotion: dict[str, Any], tools_namespace: str
) -> None:
    """The same candidate, which now gets copies of all requests."""
    mdep = routed.mdep
    mdep.apply(rollout={"paused": False, "strategy": "Shadow", "shadow": {"percent": 100, "duration": "3s"}})
    mdep.serve("better", "better-again")
    mdep.wait("it gets copies", lambda s: "stepStartedAt" in s.get("rollout", {}) and s["rollout"].get("mirror") == 100)
    told = f"/services/{gateways.NAME}:80/proxy/v2/models/{mdep.name}/answers/new"
    said = try_kubectl(mdep.cluster, "get", "--raw", f"/api/v1/namespaces/{tools_namespace}{told}")
    assert "could not find the requested resource" in said
    record = mdep.wait_decision("Promoted", 180)
    accuracy = next(one for one in record["metrics"] if one["name"] == "accuracy")
    assert "requests that both answered" in accuracy["message"]
    assert {status["weight"] for status in mdep.statuses if "rollout" in status} == {0}
    assert through.stats()["failed"] == 0


def test_a_route_that_somebody_changes_is_put_right_and_told(
    routed: Routed, through: Traffic, promotion: dict[str, Any]
) -> None:
    """Other parts of it may change meanwhile: a revision that ends is no longer named."""

    def timeouts() -> list[str]:
        return [rule["timeouts"]["request"] for rule in routed.route()["spec"]["rules"]]

    before, told = timeouts(), routed.told("RoutePutRight")
    routed.edit({"op": "replace", "path": "/spec/rules/1/timeouts/request", "value": "9s"})
    eventually(lambda: timeouts() == before)
    eventually(lambda: routed.told("RoutePutRight") > told)
    assert through.stats()["failed"] == 0


def test_going_back_to_the_embedded_router_loses_nothing(
    routed: Routed, through: Traffic, promotion: dict[str, Any]
) -> None:
    """Last: the Gateway's own clients have to go before their route does, which the spec names no more."""
    routed.inside.rate(INSIDE_RPS)
    generation = routed.mdep.apply(traffic={"router": {"type": "Embedded"}})
    gone_over = "the Service leads to the embedded router"
    routed.mdep.wait(gone_over, lambda s: s.get("routing", {}).get("router") == "Embedded", 90, generation)
    through.rate(0)
    assert through.stats()["failed"] == 0
    routed.mdep.wait("the embedded router is alone", lambda s: "routing" not in s, 120)
    eventually(lambda: routed.mdep.name not in _names(routed.mdep, ROUTE))
    routed.inside.wait_for(2 * INSIDE_RPS)
    routed.inside.stop()


def _names(mdep: ModelDeployment, kinds: str) -> set[str]:
    return {item["metadata"]["name"] for item in mdep.owned(kinds)}


def _backend(mdep: ModelDeployment, revision: str) -> str:
    return f"{mdep.name}-{revision}-backend"


def _backends(route: Manifest) -> dict[str, int]:
    """Who gets everything that is no label, by weight."""
    named = {backend["name"]: backend["weight"] for backend in route["spec"]["rules"][-1]["backendRefs"]}
    return {name: weight for name, weight in named.items() if weight}


def _window(mdep: ModelDeployment, promotion: dict[str, Any], weight: int) -> tuple[float, float]:
    """From when a weight was seen serving until the next decision was taken."""
    rollouts = [
        state["status"]
        for state in mdep.watch.states(mdep.name)
        if state.get("status", {}).get("weight") == weight
        and state["status"].get("canary", {}).get("revision") == promotion["toRevision"]
        and "stepStartedAt" in state["status"].get("rollout", {})
    ]
    after = [
        one
        for one in reversed(mdep.status["history"])
        if epoch(one["time"]) > epoch(rollouts[0]["rollout"]["stepStartedAt"])
    ]
    return epoch(rollouts[0]["rollout"]["stepStartedAt"]), epoch(after[0]["time"])
