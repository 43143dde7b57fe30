"""A model server with all its options, in a pod: vouched for, in two processes, counting on its reference's bins."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from demo.manifests import model_uri
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.deployments import ModelDeployment, condition, is_true
from tests.e2e.traffic import Traffic
from tests.e2e.vouched import NAME, Vouched

RPS = 60
SERVER_PORT = 8080

Guarded = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def guarded(serving: Callable[..., Any], vouched: Vouched) -> Iterator[Guarded]:
    with serving("guarded", RPS) as (mdep, traffic):
        mdep.spec["server"] = {"processes": 2, "accessLog": {"sample": 0.01}}
        mdep.spec["analysis"]["drift"] = {"period": "1m"}
        uri = f"{model_uri(NAME)}.profile.json"
        profile = {"uri": uri, "sha256": vouched.profile_sha256}
        mdep.serve(NAME, profile=profile, signature={"publicKey": vouched.public_key})
        mdep.wait_decision("Promoted")
        yield mdep, traffic


def test_one_scrape_has_what_all_processes_answered(guarded: Guarded) -> None:
    mdep, traffic = guarded
    traffic.wait_for(5 * RPS)
    traffic.rate(0)
    revision = mdep.status["stable"]["revision"]
    answered = traffic.settled()["by_revision"][revision]["n"]
    samples = _scrape(mdep, revision)
    assert samples("serin_requests_total", code="200") == answered
    assert samples("serin_feature_bin_total", feature="(prediction)") == answered
    traffic.rate(RPS)


def test_traffic_that_is_like_the_reference_is_no_drift_until_it_is_not(guarded: Guarded) -> None:
    mdep, traffic = guarded
    mdep.wait("a period was judged", lambda s: condition(s, "Drifted").get("reason") == "NoDriftFound", 200)
    assert mdep.shown()["REASON"] == "Serving"
    traffic.shares({9: 0.9})
    status = mdep.wait("drift is found", lambda s: is_true(s, "Drifted"), 200)
    assert "(prediction)" in condition(status, "Drifted")["message"]
    assert mdep.shown()["REASON"] == "DriftFound"
    assert is_true(status, "Ready")


def test_a_model_that_somebody_else_signed_is_not_loaded(guarded: Guarded, vouched: Vouched) -> None:
    mdep, traffic = guarded
    before = mdep.status["stable"]["revision"]
    mdep.serve(NAME, "foreign", signature={"publicKey": vouched.other_key})
    record = mdep.wait_decision("Rejected")
    assert record["reason"] == "SignatureInvalid"
    assert mdep.status["stable"]["revision"] == before
    assert traffic.stats()["failed"] == 0


def _scrape(mdep: ModelDeployment, revision: str) -> Callable[..., float]:
    """A function of a sample's name and labels: the sum over the series that fit, in the revision's only pod."""
    [pod] = mdep.server_pods(revision)
    path = f"/api/v1/namespaces/{mdep.namespace}/pods/{pod}:{SERVER_PORT}/proxy/metrics"
    families = list(text_string_to_metric_families(mdep.cluster.kubectl("get", "--raw", path)))

    def total(name: str, **labels: str) -> float:
        wanted = {"revision": revision, **labels}.items()
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and wanted <= sample.labels.items()
        )

    return total
