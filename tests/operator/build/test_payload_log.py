"""The payload log in the pods: off unless asked for, on a claim, without the private features."""

from typing import Any

import pytest
from tests.operator.build.test_manifests import STABLE, built, revision
from tests.operator.definition import make_spec

from serin_operator.api.status import Phase, Status
from serin_operator.decide.observed import Defaults
from serin_operator.decide.revisions import revision_of


def pod(**server: Any) -> dict[str, Any]:
    """The pod of a revision made from this part of the spec, as the API server completes it."""
    config = make_spec(server=server).server.config
    status = Status(phase=Phase.SERVING, stable=revision(STABLE, config=config))
    template = built(status)["Deployment", f"iris-{STABLE}"]["spec"]["template"]["spec"]
    assert isinstance(template, dict)
    return template


def options(template: dict[str, Any]) -> list[str]:
    (server,) = template["containers"]
    return [argument for argument in server["args"] if argument.startswith("--payload-log")]


def test_without_it_nothing_is_mounted_and_revisions_keep_their_names() -> None:
    template = pod()
    assert options(template) == []
    assert "persistentVolumeClaim" not in str(template)
    assert "payloadLog" not in make_spec().server.config


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"exclude": ["age", "-x"]}, ["--payload-log-exclude=age", "--payload-log-exclude=-x"]),
        ({"exclude": []}, []),
        ({"include": ["city"]}, ["--payload-log-include=city"]),
        ({"include": []}, ["--payload-log-no-inputs"]),
    ],
)
def test_the_server_is_told_what_it_may_keep(features: dict[str, Any], expected: list[str]) -> None:
    told = options(pod(payloadLog={"claim": "payloads", **features}))
    common = ["--payload-log=/payloads/iris", "--payload-log-sample=0.1", "--payload-log-max-mib=1024"]
    assert told == [*common, *expected]


def test_the_claim_is_mounted_in_the_server_alone() -> None:
    template = pod(payloadLog={"claim": "store", "include": []})
    assert {"name": "payloads", "persistentVolumeClaim": {"claimName": "store"}} in template["volumes"]
    (server,) = template["containers"]
    assert {"name": "payloads", "mountPath": "/payloads"} in server["volumeMounts"]
    assert all("payloads" not in str(container) for container in template["initContainers"])


def test_another_log_makes_another_revision() -> None:
    """Its pods are replaced, which only a rollout may do."""
    names = {
        revision_of(make_spec(server=server), "a" * 64, Defaults(server_image="serin:1")).revision
        for server in (
            {},
            {"payloadLog": {"claim": "store", "include": []}},
            {"payloadLog": {"claim": "store", "exclude": []}},
            {"payloadLog": {"claim": "store", "exclude": [], "sample": 1}},
        )
    }
    assert len(names) == 4
