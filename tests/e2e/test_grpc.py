"""Clients that speak gRPC, through the embedded router and through a real Gateway, and none of their calls fails.

Others speak HTTP beside them and send the labels, except to the shadow: that is judged by calls alone.
"""

from collections.abc import Callable
from typing import Any

from demo.environment import Cluster
from tests.e2e import gateways
from tests.e2e.conftest import NewModelDeployment
from tests.e2e.deployments import ModelDeployment, steps
from tests.e2e.figures import Figures
from tests.e2e.grpc_calls import Calls, calling
from tests.e2e.installed import Operator
from tests.e2e.traffic import Traffic

RPS, HTTP_RPS = 60, 30
HOST = "grpc.example.com"


def test_the_embedded_router_splits_and_copies_calls(serving: Callable[..., Any]) -> None:
    with serving("called", HTTP_RPS) as (mdep, traffic), calling(mdep, f"{mdep.name}:80", RPS) as calls:
        are_split(mdep, calls)
        are_copied(mdep, traffic, calls)


def test_a_gateway_splits_calls(
    gateway_operator: Operator,
    cluster: Cluster,
    new_model_deployment: NewModelDeployment,
    tools_namespace: str,
    figures: Figures,
) -> None:
    gateways.install_definitions(cluster)
    mdep = new_model_deployment("called-outside")
    traffic = Traffic(cluster, mdep.namespace, mdep.name, figures)
    parents = [{"name": gateways.NAME, "namespace": tools_namespace}]
    route = {"parentRefs": parents, "grpc": {"hostnames": [HOST]}}
    mdep.spec["traffic"]["router"] = {"type": "GatewayAPI", "gatewayAPI": route}
    with gateways.running(cluster, tools_namespace) as url:
        try:
            mdep.wait_serving(mdep.serve("first"))
            traffic.start(HTTP_RPS, url=url)
            with calling(mdep, f"{gateways.NAME}.{tools_namespace}:80", RPS, HOST) as calls:
                are_split(mdep, calls)
            traffic.stop()
        finally:
            mdep.delete(wait=False)


def are_split(mdep: ModelDeployment, calls: Calls) -> None:
    """The better model is promoted; before that it answered some of the calls, and after that all."""
    calls.wait_for(RPS)
    mdep.apply(rollout={"steps": steps((50, 5))})
    mdep.serve("better")
    canary = mdep.wait_weight(50)["canary"]["revision"]
    calls.wait_for(3 * RPS)
    assert calls.answered(canary) > 0
    record = mdep.wait_decision("Promoted")
    assert record["toRevision"] == canary
    calls.wait_for(3 * RPS)
    before = calls.answered(record["fromRevision"])
    calls.wait_for(RPS)
    assert calls.answered(record["fromRevision"]) == before


def are_copied(mdep: ModelDeployment, traffic: Traffic, calls: Calls) -> None:
    """The same model once more as a shadow is promoted by calls alone, and answered none before."""
    traffic.rate(0)
    traffic.settled()
    mdep.apply(rollout={"strategy": "Shadow", "shadow": {"percent": 100, "duration": "3s"}})
    mdep.serve("better", "better-again")
    record = mdep.wait_decision("Promoted", 180)
    accuracy = next(one for one in record["metrics"] if one["name"] == "accuracy")
    assert "requests that both answered" in accuracy["message"]
    assert {status["weight"] for status in mdep.statuses if "rollout" in status} == {0}
    calls.wait_for(RPS)
    assert calls.answered(record["toRevision"]) > 0
