"""Status, scale and what kubectl shows, in a real API server."""

import json
import re
from copy import deepcopy
from typing import Any

import pytest
from tests.chart.cases import HASH, model_deployment
from tests.chart.tools import PLURAL, Answer, Kubectl, Make, Manifest

pytestmark = pytest.mark.cluster

STATUS: Manifest = {
    "observedGeneration": 1,
    "phase": "Progressing",
    "weight": 25,
    "replicas": 2,
    "readyReplicas": 2,
    "selector": "serin.dev/model-deployment=iris,serin.dev/component=server",
    "stable": {
        "revision": "0123456789",
        "version": "v1",
        "uri": "https://models.example.com/iris.joblib",
        "sha256": HASH,
        "image": "serin-model-server:0.1.0",
        "readyReplicas": 2,
    },
    "canary": {
        "revision": "abcdef0123",
        "version": "v2",
        "format": "joblib",
        "secret": "model-store",
        "sha256": HASH,
        "readyReplicas": 1,
        "config": {"env": [{"name": "A", "value": "b"}], "podTemplate": {"labels": {"team": "a"}}},
    },
    "previous": {"revision": "fedcba9876", "version": "v0", "keptUntil": "2024-05-01T10:00:00Z"},
    "retiring": [{"revision": "2222222222", "version": "v1.5", "keptUntil": "2024-05-01T09:00:10Z"}],
    "traffic": [
        {
            "router": "Embedded",
            "routerReplicas": 2,
            "routerResources": {"requests": {"cpu": 1, "memory": "64Mi"}},
            "timeout": 30.0,
            "mesh": {},
            "testers": {"cookie": ["tester", "yes"]},
            "tlsSecret": "iris-tls",
        }
    ],
    "resolved": {"uri": "https://models.example.com/iris.joblib", "sha256": HASH, "size": 1234, "version": "v1"},
    "rejected": {
        "revision": "1111111111",
        "reason": "Worse",
        "message": "errors rose",
        "retry": "again",
        "time": "2024-05-01T09:00:00Z",
    },
    "lastFailure": {
        "revision": "1111111111",
        "reason": "NotFound",
        "message": "404",
        "exitCode": 11,
        "time": "2024-05-01T09:00:00Z",
    },
    "rollout": {
        "startedAt": "2024-05-01T09:00:00Z",
        "step": 1,
        "steps": 3,
        "stepStartedAt": "2024-05-01T09:05:00.123456Z",
        "stepTrials": {"errors": 90},
        "verifiedWeight": 25,
        "unreadySince": "2024-05-01T09:01:00Z",
        "pausedAt": "2024-05-01T09:05:30Z",
        "exposed": 100,
        "forecast": {
            "time": "2024-05-01T09:00:00Z",
            "message": "Can decide about 12 minutes from now.",
            "minutes": 12.5,
            "limitedBy": "errors",
            "detectable": 0.004,
            "perMinute": 600,
        },
        "remarks": [{"reason": "LabelCoverageDiffers", "message": "Labels come for one revision only."}],
        "evidenceAt": "2024-05-01T09:06:00Z",
        "evidence": "x" * 200_000,
    },
    "watch": {
        "revision": "abcdef0123",
        "against": "0123456789",
        "until": "2024-05-01T10:00:00Z",
        "worseSince": "2024-05-01T09:05:00Z",
        "evidenceAt": "2024-05-01T09:06:00Z",
        "evidence": "x" * 4_000,
    },
    "metrics": [
        {
            "name": "errors",
            "verdict": "Undecided",
            "canary": {"failures": 1, "trials": 100},
            "stable": {"failures": 2, "trials": 300},
            "difference": 0.0033,
            "low": -0.02,
            "high": 0.03,
            "oddsWorse": 1.2,
            "oddsNonInferior": 3,
            "oddsSuperior": 0.2,
            "bound": {"bound": 0.02, "oddsOver": 0.5, "oddsUnder": 2, "oddsStableOver": 0.1},
            "role": "GuardAndGate",
            "needed": "odds of 20 : 1 to promote",
            "message": "about 5 minutes more",
        }
    ],
    "history": [
        {
            "time": "2024-05-01T09:05:00Z",
            "decision": "Advanced",
            "reason": "NotWorse",
            "message": "25 %",
            "fromRevision": "0123456789",
            "toRevision": "abcdef0123",
            "step": 1,
            "weight": 25,
            "metrics": [{"name": "errors", "verdict": "Undecided", "canary": {"failures": 0, "trials": 9}}],
        }
    ],
    "conditions": [
        {
            "type": "Reconciling",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2024-05-01T09:00:00Z",
            "reason": "GatheringEvidence",
            "message": "v2 has 25 % of the requests",
        },
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2024-05-01T09:00:00Z",
            "reason": "Serving",
            "message": "v1 answers.",
        },
        {
            "type": "MetricsAvailable",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2024-05-01T09:00:00Z",
            "reason": "Read",
            "message": "",
        },
    ],
}


def write_status(kubectl: Kubectl, name: str, status: Manifest) -> Answer:
    # From a file, since evidence may be longer than an argument.
    flags = ["--subresource=status", "--type=merge", "--patch-file=/dev/stdin"]
    return kubectl("patch", kubectl.resource, name, *flags, stdin=json.dumps({"status": status}))


def test_a_whole_status_is_kept_as_written(kubectl: Kubectl, make: Make) -> None:
    make("status")
    write_status(kubectl, "status", STATUS).must_succeed()
    assert kubectl.get(kubectl.resource, "status")["status"] == STATUS


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("phase", "Happy", "supported values"),
        ("weight", 101, "less than or equal to 100"),
        ("history", STATUS["history"] * 21, "must have at most 20 items"),
        ("rollout", {"evidence": "x" * 262_145}, "Too long"),
        ("rollout", {"stepTrials": {f"m{number}": 0 for number in range(41)}}, "must have at most 40 items"),
        ("metrics", [{"name": f"m{number}"} for number in range(21)], "must have at most 20 items"),
        ("metrics", [{"name": "errors", "verdict": "Good"}], '"BothOverBound", "NotCompared", "Undecided", "NoData"'),
        ("conditions", STATUS["conditions"] * 2, "Duplicate value"),
    ],
)
def test_a_status_out_of_bounds_is_refused(kubectl: Kubectl, make: Make, field: str, value: Any, words: str) -> None:
    make("bounds")
    answer = write_status(kubectl, "bounds", {field: value})
    assert answer.code != 0
    assert words in answer.err


def test_status_and_spec_are_written_apart(kubectl: Kubectl, make: Make) -> None:
    before = make("apart")
    changed = deepcopy(before)
    changed["status"] = {"phase": "Serving"}
    changed["spec"]["rollout"]["paused"] = True
    kubectl("replace", "-f", "-", stdin=json.dumps(changed)).must_succeed()
    after = kubectl.get(kubectl.resource, "apart")
    assert "status" not in after
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1

    write_status(kubectl, "apart", {"phase": "Paused"}).must_succeed()
    written = kubectl.get(kubectl.resource, "apart")
    assert written["status"] == {"phase": "Paused"}
    assert written["metadata"]["generation"] == after["metadata"]["generation"]


def test_kubectl_scale_sets_the_replicas(kubectl: Kubectl, make: Make) -> None:
    make("scaled")
    write_status(kubectl, "scaled", STATUS).must_succeed()
    kubectl("scale", kubectl.resource, "scaled", "--replicas=3").must_succeed()
    assert kubectl.get(kubectl.resource, "scaled")["spec"]["server"]["replicas"] == 3

    path = f"/apis/{kubectl.group}/v1alpha1/namespaces/{kubectl.namespace}/{PLURAL}/scaled/scale"
    scale = json.loads(kubectl("get", "--raw", path).must_succeed().out)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": STATUS["selector"]}

    refused = kubectl("scale", kubectl.resource, "scaled", "--replicas=0")
    assert refused.code != 0
    assert "greater than or equal to 1" in refused.err


def test_kubectl_get_shows_what_matters(kubectl: Kubectl, make: Make) -> None:
    make("shown")
    write_status(kubectl, "shown", STATUS).must_succeed()
    header, row = kubectl("get", kubectl.resource, "shown").must_succeed().out.splitlines()
    assert header.split() == ["NAME", "PHASE", "STABLE", "CANARY", "WEIGHT", "READY", "REASON", "AGE"]
    assert row.split()[:-1] == ["shown", "Progressing", "v1", "v2", "25", "True", "GatheringEvidence"]

    wide = kubectl("get", kubectl.resource, "shown", "-o", "wide").must_succeed().out
    assert "v2 has 25 % of the requests" in wide


def test_kubectl_describe_shows_each_metrics_sentence(kubectl: Kubectl, make: Make) -> None:
    make("described")
    write_status(kubectl, "described", STATUS).must_succeed()
    # kubectl describe has to find the copy of the definition among the kinds that the API server tells.
    shown = kubectl("describe", kubectl.resource, "described").must_succeed().out
    assert re.search(r"^ +Message: +about 5 minutes more$", shown, re.MULTILINE)
    assert re.search(r"^ +Needed: +odds of 20 : 1 to promote$", shown, re.MULTILINE)


def test_lists_merge_by_name_between_appliers(kubectl: Kubectl, make: Make) -> None:
    """A second field manager changes one metric and one variable, and leaves the others alone."""
    make(
        "merged",
        server={"env": [{"name": "A", "value": "1"}]},
        analysis={"metrics": [{"name": "errors", "margin": 0.01}]},
    )
    part = model_deployment(
        "merged",
        server={"env": [{"name": "B", "value": "2"}]},
        analysis={"metrics": [{"name": "accuracy", "margin": 0.02}]},
    )
    kubectl.apply(part).must_succeed()
    spec = kubectl.get(kubectl.resource, "merged")["spec"]
    assert [entry["name"] for entry in spec["server"]["env"]] == ["A", "B"]
    assert [entry["name"] for entry in spec["analysis"]["metrics"]] == ["errors", "accuracy"]
