"""The definition's rules, defaults and descriptions in a real API server, and the examples."""

import json
import re
import time
from pathlib import Path

import pytest
from tests.chart.cases import (
    ACCEPTED,
    ERROR_BOUNDS,
    LATENCY_BOUNDS,
    METRIC_DEFAULTS,
    REFUSED,
    analysis,
    model_deployment,
    server,
)
from tests.chart.tools import CRD, EXAMPLES, PLURAL, Answer, Kubectl, Manifest, load, walk

from serin_operator.api.spec import parse_spec

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def refusals(kubectl: Kubectl) -> dict[str, Answer]:
    """The API server's answer to every manifest of the table."""
    return {case: kubectl.dry_run(manifest) for case, (manifest, _) in REFUSED.items()}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(refusals: dict[str, Answer], case: str) -> None:
    _, words = REFUSED[case]
    assert refusals[case].code != 0, "it was accepted"
    assert words in refusals[case].err


@pytest.mark.parametrize("manifest", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts_what_the_operator_can_read(kubectl: Kubectl, manifest: Manifest) -> None:
    accepted = json.loads(kubectl.dry_run(manifest).must_succeed().out)
    spec = parse_spec(accepted["spec"])
    assert spec.model.uri == manifest["spec"]["model"]["uri"]
    assert len(spec.rollout.steps) == len(accepted["spec"]["rollout"]["steps"])


def test_accepts_every_bound_of_the_histograms(kubectl: Kubectl) -> None:
    for part in (LATENCY_BOUNDS[:16], LATENCY_BOUNDS[16:]):
        metrics = [
            {"name": f"slow-{number}", "type": "latency", "slowerThan": bound, "margin": 0.01}
            for number, bound in enumerate(part)
        ]
        kubectl.dry_run(analysis(metrics=metrics)).must_succeed()
    for first in (0, 19):
        metrics = [
            {"name": f"off-{number}", "type": "regression", "within": bound, "margin": 0.01}
            for number, bound in enumerate(ERROR_BOUNDS[first : first + 19])
        ]
        kubectl.dry_run(analysis(metrics=metrics)).must_succeed()


def test_a_bad_duration_gets_one_clear_answer(kubectl: Kubectl) -> None:
    """A rule that compares durations does not add an evaluation error of its own."""
    answer = kubectl.dry_run(
        model_deployment(
            rollout={"steps": [{"weight": 5, "duration": "soon"}], "maxDuration": "later"},
            analysis={"labelWindow": "1h"},
        )
    )
    assert answer.code != 0
    assert answer.err.count("Invalid value") == 2
    assert "evaluating rule" not in answer.err


def test_a_bad_quantity_gets_one_clear_answer(kubectl: Kubectl) -> None:
    answer = kubectl.dry_run(server(resources={"requests": {"cpu": "some"}, "limits": {"cpu": "more"}}))
    assert answer.code != 0
    assert answer.err.count("Invalid value") == 2
    assert "evaluating rule" not in answer.err


def test_every_rule_is_broken_by_a_case(refusals: dict[str, Answer]) -> None:
    """A rule without a case may be dead, or refuse what it should not."""
    answers = "".join(answer.err for answer in refusals.values())
    (version,) = load(CRD)["spec"]["versions"]
    fields = walk("", version["schema"]["openAPIV3Schema"])
    rules = [(path, rule) for path, field in fields for rule in field.get("x-kubernetes-validations", [])]
    assert len(rules) > 40
    assert [path for path, rule in rules if constant_words(rule) not in answers] == []


def constant_words(rule: dict[str, str]) -> str:
    """The part of a rule's message that is the same for every value."""
    literals = re.findall(r'"([^"]+)"', rule.get("messageExpression", ""))
    return max(literals, key=len, default=rule["message"])


def test_the_defaults_are_the_documented_ones(kubectl: Kubectl) -> None:
    spec = json.loads(kubectl.dry_run(model_deployment()).must_succeed().out)["spec"]
    assert spec == {
        "model": {"uri": "https://models.example.com/iris.joblib", "format": "joblib"},
        "server": {
            "replicas": 1,
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            "readyTimeout": "5m",
        },
        "traffic": {
            "router": {
                "type": "Embedded",
                "replicas": 1,
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
            },
            "timeout": "30s",
        },
        "rollout": {
            "strategy": "Canary",
            "steps": [
                {"weight": 5, "duration": "60s"},
                {"weight": 25, "duration": "60s"},
                {"weight": 50, "duration": "60s"},
            ],
            "promotion": "Automatic",
            "maxDuration": "24h",
            "onInconclusive": "Hold",
            "paused": False,
            "keepPrevious": "10m",
            "mode": "Steps",
            "canaryReplicas": "FollowWeight",
            "exposureBudget": 300,
            "maxWeight": 25,
            "watch": "10m",
        },
        "analysis": {
            "interval": "5s",
            "falseRollbackRate": 0.05,
            "falsePromotionRate": 0.05,
            "labelWindow": "0s",
            "warmUp": 0,
            "calibration": "0s",
            "drift": {"tolerance": 0.05, "falseAlarmRate": 0.01, "period": "24h"},
            "metrics": [
                {"name": "errors", "margin": 0.01, **METRIC_DEFAULTS},
                {"name": "latency", "margin": 0.05, "slowerThan": "250ms", **METRIC_DEFAULTS},
            ],
        },
    }


def test_what_is_written_keeps_the_defaults_beside_it(kubectl: Kubectl) -> None:
    manifest = model_deployment(
        server={"resources": {"requests": {"cpu": "2"}}},
        rollout={"steps": [{"weight": 10}]},
        analysis={"metrics": [{"name": "accuracy", "margin": 0.02}]},
    )
    spec = json.loads(kubectl.dry_run(manifest).must_succeed().out)["spec"]
    assert spec["server"]["resources"] == {"requests": {"cpu": "2"}}
    assert spec["server"]["replicas"] == 1
    assert spec["rollout"]["steps"] == [{"weight": 10, "duration": "60s"}]
    assert spec["rollout"]["maxDuration"] == "24h"
    assert spec["analysis"]["metrics"] == [{"name": "accuracy", "margin": 0.02, **METRIC_DEFAULTS}]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_accepted(kubectl: Kubectl, example: Path) -> None:
    kubectl.dry_run(load(example)).must_succeed()


def test_kubectl_explain_has_the_descriptions(kubectl: Kubectl) -> None:
    field = f"{PLURAL}.spec.analysis.metrics.margin"
    deadline = time.monotonic() + 60
    # The API server publishes a new definition's descriptions a little later than the definition.
    while (answer := kubectl("explain", field, f"--api-version={kubectl.group}/v1alpha1")).code != 0:
        assert time.monotonic() < deadline, answer.err
        time.sleep(0.5)
    assert "0.01 is one percentage point" in " ".join(answer.out.split())
