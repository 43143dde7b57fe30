"""The same job with a real Prometheus server as the source of all evidence, also while that is away."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo.environment import Cluster
from tests.e2e import prometheus_server
from tests.e2e.deployments import GOOD_ENOUGH, ModelDeployment, condition, decisions, epoch, steps
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 80
AWAY_SECONDS = 20  # several intervals, and longer than the step

Measured = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def server(cluster: Cluster, namespace: str) -> str:
    """The address of a Prometheus server that is ready."""
    return prometheus_server.install(cluster, namespace)


@pytest.fixture(scope="module")
def measured(serving: Callable[..., Any], server: str) -> Iterator[Measured]:
    with serving("measured", RPS, prometheus=server) as both:
        yield both


def test_a_better_model_is_promoted(measured: Measured, figures: Figures) -> None:
    mdep, traffic = measured
    mdep.apply(analysis={"interval": "2s"})
    mdep.serve("better")
    record = mdep.wait_decision("Promoted")

    assert all(metric["verdict"] in GOOD_ENOUGH for metric in record["metrics"])
    assert [one["weight"] for one in decisions(mdep.status)] == [0, 10, 50, 100]
    assert traffic.stats()["failed"] == 0
    figures.seconds_per_rollout["better, Prometheus"] = epoch(record["time"]) - mdep.applied_at


def test_it_holds_while_the_server_is_away_and_then_stops_a_harmful_model(
    cluster: Cluster, measured: Measured, figures: Figures
) -> None:
    mdep, traffic = measured
    mdep.apply(rollout={"steps": steps((5, 15), (50, 60))})
    mdep.serve("harmful")
    mdep.wait_weight(5)
    prometheus_server.scale(cluster, mdep.namespace, 0)
    status = mdep.wait("it cannot see", lambda s: condition(s, "MetricsAvailable").get("status") == "False")
    assert "Prometheus at" in condition(status, "MetricsAvailable")["message"]

    time.sleep(AWAY_SECONDS)
    status = mdep.status
    assert (status["phase"], status["weight"]) == ("Progressing", 5)
    assert condition(status, "MetricsAvailable")["status"] == "False"
    assert condition(status, "Reconciling")["reason"] == "CannotSee"
    assert [one["weight"] for one in decisions(status)] == [0, 5]

    back_at = time.time()
    prometheus_server.scale(cluster, mdep.namespace, 1)
    record = mdep.wait_decision("RolledBack")
    assert record["reason"] == "LessAccurate"
    assert epoch(record["time"]) > back_at
    figures.verdict_to_silence["harmful, Prometheus"] = traffic.silence(record)
    assert figures.verdict_to_silence["harmful, Prometheus"] < 2
    assert traffic.stats()["failed"] == 0


def test_a_harmful_shadow_is_dropped_by_the_pairs_that_the_server_has(measured: Measured) -> None:
    mdep, traffic = measured
    mdep.apply(rollout={"strategy": "Shadow", "shadow": {"percent": 100, "duration": "3s"}})
    mdep.serve("harmful", "harmful-shadow")
    record = mdep.wait_decision("RolledBack", 180)
    assert record["reason"] == "LessAccurate"
    accuracy = next(metric for metric in record["metrics"] if metric["name"] == "accuracy")
    assert "the answers differ in" in accuracy["message"]
    assert traffic.answered(record["fromRevision"]) == 0
    assert traffic.stats()["failed"] == 0
