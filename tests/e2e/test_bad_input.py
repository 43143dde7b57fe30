"""What can be wrong with what a user asks for: each has its clear message, and the stable revision serves on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from demo.environment import CommandError
from demo.manifests import model_uri
from tests.e2e.deployments import ModelDeployment, Status, condition, decisions, is_true, steps
from tests.e2e.traffic import Traffic

RPS = 30
WRONG_DIGEST = "0" * 64


@pytest.fixture(scope="module")
def stable(serving: Callable[..., Any]) -> Iterator[tuple[ModelDeployment, Traffic]]:
    with serving("sturdy", RPS) as both:
        yield both


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("model", {"uri": "s3://bucket/first.joblib"}, "model.uri must begin with https://, http:// or pvc://"),
        ("rollout", {"steps": steps((50, 5), (10, 5))}, "the weights of rollout.steps must rise from step to step"),
        ("rollout", {"steps": steps((100, 5))}, "a step's weight must be from 1 to 99 percent"),
        ("analysis", {"metrics": [{"name": "latency", "margin": 0.1}]}, "metric latency needs slowerThan"),
        ("analysis", {"metrics": [{"name": "errors"}]}, "margin"),
        ("server", {"replica": 2}, ".spec.server.replica: field not declared in schema"),
    ],
    ids=["scheme", "falling-steps", "whole-weight", "no-bound", "no-margin", "unknown-field"],
)
def test_the_api_server_refuses_an_invalid_spec_and_says_what_to_write(
    stable: tuple[ModelDeployment, Traffic], section: str, value: dict[str, Any], message: str
) -> None:
    mdep, traffic = stable
    good, before = mdep.spec, mdep.watch.latest(mdep.name)["metadata"]["generation"]
    mdep.spec = {key: dict(part) for key, part in good.items()}
    try:
        with pytest.raises(CommandError) as refused:
            mdep.apply(**{section: value})
    finally:
        mdep.spec = good
    assert message in str(refused.value)
    assert mdep.watch.latest(mdep.name)["metadata"]["generation"] == before
    assert traffic.stats()["failed"] == 0


@dataclass(frozen=True)
class Bad:
    """A model that can not be served, and the words of the status about it."""

    model: dict[str, str]
    reason: str
    message: str
    ready_timeout: str = "2m"
    seconds: float = 60


UNRESOLVED = [
    Bad(
        {"uri": "http://no-such-host.invalid/model.joblib", "version": "unreachable"},
        "Unreachable",
        "http://no-such-host.invalid/model.joblib cannot be reached",
    ),
    Bad({"uri": model_uri("no-such-model"), "version": "missing"}, "NotFound", "404"),
]
UNFIT = [
    Bad({"uri": model_uri("better"), "version": "other-bytes", "sha256": WRONG_DIGEST}, "DigestMismatch", WRONG_DIGEST),
    Bad({"uri": model_uri("not-a-model"), "version": "page"}, "NotAModel", "not one that joblib can load"),
    Bad({"uri": model_uri("without-predict"), "version": "dict"}, "NotAModel", "without a predict method"),
    Bad({"uri": model_uri("missing-module"), "version": "module"}, "MissingModule", "'acme_features'"),
    Bad({"uri": model_uri("other-version"), "version": "old"}, "VersionMismatch", "1.2.3"),
    Bad({"uri": model_uri("crash-on-load"), "version": "crash"}, "Crashed", "exit code 42", seconds=120),
    Bad({"uri": model_uri("never-ready"), "version": "slow-start"}, "NotReady", "was ready for 10 s", "10s"),
]


@pytest.mark.parametrize("bad", UNRESOLVED, ids=lambda bad: bad.model["version"])
def test_a_model_that_cannot_be_read_is_told_and_changes_nothing(
    stable: tuple[ModelDeployment, Traffic], bad: Bad
) -> None:
    mdep, traffic = stable
    before = mdep.status["stable"]
    mdep.spec["model"] = bad.model
    generation = mdep.apply()
    status = mdep.wait(f"{bad.reason} is told", lambda s: bool(_unresolved(s)), bad.seconds, generation)

    assert bad.message in _unresolved(status)
    assert status["lastFailure"]["reason"] == bad.reason
    assert "canary" not in status
    _nobody_noticed(mdep, traffic, before)


@pytest.mark.parametrize("bad", UNFIT, ids=lambda bad: bad.model["version"])
def test_a_revision_that_cannot_run_is_rejected_with_its_reason(
    stable: tuple[ModelDeployment, Traffic], bad: Bad
) -> None:
    mdep, traffic = stable
    before = mdep.status["stable"]
    mdep.spec["model"] = bad.model
    generation = mdep.apply(server={"readyTimeout": bad.ready_timeout})
    record = mdep.wait_decision("Rejected", bad.seconds)

    assert (record["reason"], record["weight"]) == (bad.reason, 0)
    assert bad.message in record["message"]
    status = mdep.wait("it is stalled", lambda s: is_true(s, "Stalled"), 10, generation)
    assert condition(status, "Stalled")["reason"] == bad.reason
    assert bad.message in condition(status, "Stalled")["message"]
    assert is_true(status, "Ready")
    assert (status["rejected"]["revision"], status["rejected"]["reason"]) == (record["fromRevision"], bad.reason)
    _nobody_noticed(mdep, traffic, before)


def _unresolved(status: Status) -> str:
    """What a condition says about a digest that can not be read; empty when none does."""
    said = [one["message"] for one in status["conditions"] if one["reason"] == "ModelUnresolved"]
    return said[0] if said else ""


def _nobody_noticed(mdep: ModelDeployment, traffic: Traffic, stable: dict[str, Any]) -> None:
    """The same stable revision has answered every request so far."""
    assert mdep.status["stable"]["revision"] == stable["revision"]
    traffic.wait_for(RPS)
    stats = traffic.stats()
    assert set(stats["by_revision"]) == {stable["revision"]}
    assert stats["failed"] == 0


def test_a_newer_spec_drops_the_canary_under_way(stable: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = stable
    mdep.apply(server={"readyTimeout": "2m"}, rollout={"steps": steps((10, 60))})
    mdep.serve("better", "older")
    older = mdep.wait_weight(10)["canary"]["revision"]
    mdep.spec["rollout"]["steps"] = steps((20, 2), (50, 2))
    mdep.serve("better", "newer")
    mdep.wait_decision("Promoted")

    dropped = [one for one in mdep.status["history"] if one["decision"] == "Superseded"]
    assert [one["fromRevision"] for one in dropped] == [older]
    assert [one["decision"] for one in decisions(mdep.status)] == ["Started", "Advanced", "Advanced", "Promoted"]
    assert mdep.status["stable"]["version"] == "newer"
    mdep.wait_pods_gone(older)
    assert traffic.stats()["failed"] == 0


def test_two_specs_within_a_second_leave_the_newer_one(stable: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = stable
    mdep.serve("harmful", "hasty")
    mdep.serve("better", "considered")
    mdep.wait_decision("Promoted")

    assert mdep.status["stable"]["version"] == "considered"
    assert all(one["decision"] not in ("RolledBack", "Rejected") for one in decisions(mdep.status))
    assert traffic.stats()["failed"] == 0


def test_deleting_in_mid_rollout_leaves_nothing(stable: tuple[ModelDeployment, Traffic]) -> None:
    mdep, traffic = stable
    mdep.apply(rollout={"steps": steps((10, 60))})
    mdep.serve("better", "unfinished")
    mdep.wait_weight(10)
    traffic.rate(0)
    traffic.settled()
    kinds = {item["kind"] for item in mdep.owned()}
    assert {"Deployment", "Service", "ConfigMap", "Secret", "Pod"} <= kinds
    mdep.delete()
    assert mdep.owned() == []
