"""The definition, the examples and the chart against a real API server."""

import json
import re
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.tools import (
    CHART,
    CRD,
    EXAMPLES,
    PLURAL,
    Answer,
    Helm,
    Kubectl,
    Manifest,
    load,
    only,
    run,
    walk,
)

from serin_operator.api.spec import parse_spec

pytestmark = pytest.mark.cluster

HASH = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
LATENCY_BOUNDS = [
    *("1ms", "2.5ms", "5ms", "10ms", "25ms", "50ms", "75ms"),
    *("100ms", "150ms", "200ms", "250ms", "300ms", "400ms", "500ms", "750ms"),
    *("1s", "1.5s", "2s", "3s", "5s", "10s", "30s"),
]


def model_deployment(name: str = "iris", **spec: Any) -> Manifest:
    """The smallest one with parts of its spec replaced."""
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"uri": "https://models.example.com/iris.joblib"}, **spec},
    }


def uri(text: str, **model: Any) -> Manifest:
    return model_deployment(model={"uri": text, **model})


def model(**fields: Any) -> Manifest:
    return uri("https://models.example.com/iris.joblib", **fields)


def server(**fields: Any) -> Manifest:
    return model_deployment(server=fields)


def pods(**fields: Any) -> Manifest:
    return server(podTemplate=fields)


def traffic(**fields: Any) -> Manifest:
    return model_deployment(traffic=fields)


def rollout(**fields: Any) -> Manifest:
    return model_deployment(rollout=fields)


def steps(*weights: int) -> Manifest:
    return rollout(steps=[{"weight": weight} for weight in weights])


def analysis(**fields: Any) -> Manifest:
    return model_deployment(analysis=fields)


def metric(**fields: Any) -> Manifest:
    return analysis(metrics=[{"name": "errors", "margin": 0.01, **fields}])


def without_model() -> Manifest:
    manifest = model_deployment()
    del manifest["spec"]["model"]
    return manifest


NOT_A_SERVICE = "use at most 40 characters, lower-case letters, digits and '-'"
PASSWORD = "must not hold a user name or password"
REQUESTS = "must not be more than resources.limits."

# What is refused, and words of the answer that tell the user what to write.
REFUSED: dict[str, tuple[Manifest, str]] = {
    # Names
    "a name too long for a Service": (model_deployment("a" * 41), NOT_A_SERVICE),
    "a name that begins with a digit": (model_deployment("4cast"), "metadata.name '4cast' cannot name a Service"),
    "a name with a dot": (model_deployment("iris.v2"), NOT_A_SERVICE),
    # The model
    "no model": (without_model(), "spec.model: Required value"),
    "a model without an address": (model_deployment(model={"version": "v1"}), "spec.model.uri: Required value"),
    "an empty address": (uri(""), "must begin with https://, http:// or pvc://"),
    "a scheme that is not read": (uri("s3://bucket/iris.joblib"), "must begin with https://, http:// or pvc://"),
    "an upper-case scheme": (uri("HTTPS://models.example.com/iris"), "must begin with https://, http:// or pvc://"),
    "an address without a host": (uri("https:///iris.joblib"), "must name a host and a file"),
    "an address without a file": (uri("https://models.example.com/"), "must name a host and a file"),
    "an address with a space": (uri("https://models.example.com/my iris"), "must name a host and a file"),
    "a password in the address": (uri("https://me:secret@models.example.com/iris"), PASSWORD),
    "a claim without a path": (uri("pvc://models"), "must be pvc://claim/path"),
    "a claim with an empty path": (uri("pvc://models/"), "must be pvc://claim/path"),
    "a claim whose name is none": (uri("pvc://My_Models/iris.joblib"), "must be pvc://claim/path"),
    "a path out of the volume": (uri("pvc://models/../secret"), "must not have '.' or '..' in it"),
    "a path that ends out of the volume": (uri("pvc://models/iris/.."), "must not have '.' or '..' in it"),
    "a path with an empty part": (uri("pvc://models//iris"), "must be pvc://claim/path"),
    "an address beyond 2048 characters": (uri("https://models.example.com/" + "a" * 2048), "Too long"),
    "a format that is not served": (model(format="onnx"), 'supported values: "joblib"'),
    "a digest with its prefix": (model(sha256=f"sha256:{HASH[:57]}"), "64 lower-case hexadecimal digits"),
    "a digest in upper case": (model(sha256=HASH.upper()), "64 lower-case hexadecimal digits"),
    "a short digest": (model(sha256=HASH[:63]), "64 lower-case hexadecimal digits"),
    "an empty version": (model(version=""), "model.version must be 1 to 63 letters, digits"),
    "a version with a space": (model(version="May 1"), "model.version must be 1 to 63 letters, digits"),
    "a version that is a number": (model(version=1.5), "must be of type string"),
    "a secret for a claim": (uri("pvc://models/iris", secretRef={"name": "store"}), "leave secretRef out"),
    "a secret without a name": (model(secretRef={}), "spec.model.secretRef.name: Required value"),
    "a secret whose name is none": (model(secretRef={"name": "My Secret"}), "must be the name of a Secret"),
    # The server
    "no replicas": (server(replicas=0), "greater than or equal to 1"),
    "too many replicas": (server(replicas=101), "less than or equal to 100"),
    "an empty image": (server(image=""), "leave it out to use the operator's default"),
    "an image with a space": (server(image="serin server"), "must be an image without spaces"),
    "an env name twice": (server(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "Duplicate value"),
    "an env name of Serin's": (server(env=[{"name": "SERIN_X", "value": ""}]), "use another name"),
    "an env name with a dash": (server(env=[{"name": "MY-VAR", "value": ""}]), "such as OMP_NUM_THREADS"),
    "an env variable without a value": (server(env=[{"name": "A"}]), "spec.server.env[0].value: Required value"),
    "a quantity that is none": (server(resources={"limits": {"memory": "lots"}}), "limits.memory in body should match"),
    "a fraction without quotes": (server(resources={"requests": {"cpu": 0.5}}), "must be of type integer,string"),
    "a negative quantity": (server(resources={"requests": {"cpu": -1}}), "greater than or equal to 0"),
    "more CPU asked for a router than allowed": (
        traffic(router={"resources": {"limits": {"cpu": "10m"}}}),
        "resources.requests.cpu " + REQUESTS + "cpu (the request is 50m",
    ),
    "more CPU asked for than allowed": (
        server(resources={"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}),
        "resources.requests.cpu " + REQUESTS + "cpu",
    ),
    "less memory allowed than asked for by default": (
        server(resources={"limits": {"memory": "128Mi"}}),
        "resources.requests.memory " + REQUESTS + "memory (the request is 256Mi",
    ),
    "a timeout that is no duration": (server(readyTimeout="5 minutes"), "such as 90s, 5m or 1h30m, not '5 minutes'"),
    "a timeout without a unit": (server(readyTimeout="300"), "not '300'"),
    "a timeout in days": (server(readyTimeout="1d"), "not '1d'"),
    "a negative timeout": (server(readyTimeout="-5m"), "not '-5m'"),
    "a timeout beyond a day": (server(readyTimeout="25h"), "at most 24h"),
    "a timeout beyond any clock": (server(readyTimeout="999999h999999h999999"), "at most 24h"),
    "a label of Serin's": (pods(labels={"serin.dev/revision": "x"}), "use other keys"),
    "a label value with a space": (pods(labels={"team": "my team"}), "a label's value must be letters"),
    "an annotation of Serin's": (pods(annotations={"serin.dev/route": "x"}), "use other keys"),
    "a toleration of everything by value": (pods(tolerations=[{"operator": "Equal"}]), "must have operator Exists"),
    "a toleration with a needless value": (
        pods(tolerations=[{"key": "gpu", "operator": "Exists", "value": "yes"}]),
        "leave value out, or use operator Equal",
    ),
    "a toleration's time without its effect": (
        pods(tolerations=[{"key": "gpu", "value": "yes", "effect": "NoSchedule", "tolerationSeconds": 5}]),
        "set effect to NoExecute",
    ),
    # Traffic
    "a router that is not there yet": (traffic(router={"type": "Istio"}), 'supported values: "Embedded"'),
    "too many routers": (traffic(router={"replicas": 11}), "less than or equal to 10"),
    "a request timeout of zero": (traffic(timeout="0s"), "traffic.timeout must be a duration of at most 1h"),
    "a request timeout beyond an hour": (traffic(timeout="61m"), "not '61m'"),
    "a router with more memory asked for than allowed": (
        traffic(router={"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "512Mi"}}}),
        "resources.requests.memory " + REQUESTS + "memory",
    ),
    # The rollout
    "a strategy that is not there yet": (rollout(strategy="BlueGreen"), 'supported values: "Canary"'),
    "no steps": (rollout(steps=[]), "should have at least 1 items"),
    "too many steps": (steps(*range(1, 22)), "must have at most 20 items"),
    "a step without a weight": (rollout(steps=[{"duration": "60s"}]), "spec.rollout.steps[0].weight: Required value"),
    "a step of nothing": (steps(0, 50), "from 1 to 99 percent"),
    "a step of everything": (steps(50, 100), "the canary is promoted and gets every request"),
    "steps that fall": (steps(5, 50, 25), "must rise from step to step, such as 5, 25, 50"),
    "steps that stand still": (steps(5, 25, 25), "must rise from step to step, such as 5, 25, 50"),
    "a step without time": (rollout(steps=[{"weight": 5, "duration": "0s"}]), "such as 60s, 10m or 1h30m, not '0s'"),
    "a rollout shorter than the default steps": (rollout(maxDuration="2m"), "rollout.maxDuration 2m is not longer"),
    "a rollout as long as its steps": (
        rollout(steps=[{"weight": 5, "duration": "30m"}, {"weight": 50, "duration": "0.5h"}], maxDuration="60m"),
        "raise it or shorten the steps",
    ),
    "a rollout without an end": (rollout(maxDuration="forever"), "such as 90m or 24h, not 'forever'"),
    "an end that promotes": (rollout(onInconclusive="Promote"), 'supported values: "Hold", "Rollback"'),
    "a pause that is a word": (rollout(paused="yes"), "must be of type boolean"),
    "a previous revision kept for ever": (rollout(keepPrevious="721h"), "such as 60s, 10m or 24h, not '721h'"),
    # The analysis
    "an interval too short": (analysis(interval="500ms"), "from 1s to 5m, such as 5s or 1m, not '500ms'"),
    "an interval too long": (analysis(interval="301s"), "from 1s to 5m"),
    "no false rollbacks at all": (analysis(falseRollbackRate=0), "falseRollbackRate must be more than 0"),
    "a rate in percent": (analysis(falseRollbackRate=5), "such as 0.05"),
    "a coin toss for promotion": (analysis(falsePromotionRate=0.51), "falsePromotionRate must be more than 0"),
    "a Prometheus without a scheme": (analysis(prometheus={"address": "prometheus:9090"}), "such as http://prometheus"),
    "a Prometheus with a password": (analysis(prometheus={"address": "http://me:pw@prometheus:9090"}), PASSWORD),
    "a Prometheus API path": (analysis(prometheus={"address": "http://prometheus:9090/api/v1"}), "Serin adds them"),
    "no metrics": (analysis(metrics=[]), "should have at least 1 items"),
    "a metric that is not known": (metric(name="drift"), 'supported values: "errors", "latency", "accuracy"'),
    "a metric twice": (analysis(metrics=[{"name": "errors", "margin": 0.01}] * 2), "Duplicate value"),
    "a metric without a margin": (analysis(metrics=[{"name": "errors"}]), "margin: Required value"),
    "a margin of nothing": (metric(margin=0), "more than 0 and at most 0.5 (0.01 is one percentage point)"),
    "a margin in percent": (metric(margin=1), "more than 0 and at most 0.5 (0.01 is one percentage point)"),
    "a negative tolerance": (metric(tolerance=-0.01), "a metric's tolerance must be 0 or more"),
    "a tolerance as large as the margin": (metric(tolerance=0.01), "metric errors must be less than its margin"),
    "latency without its bound": (metric(name="latency"), "needs slowerThan, the time from which"),
    "a bound that the histogram has not": (
        metric(name="latency", slowerThan="260ms"),
        "supported values: " + ", ".join(f'"{bound}"' for bound in LATENCY_BOUNDS),
    ),
    "a bound for errors": (metric(slowerThan="250ms"), "leave it out of metric errors"),
    # What is not there
    "a misspelt field": (model_deployment(rolout={"paused": True}), 'unknown field "spec.rolout"'),
    "a field of a later version": (model(mirror=True), 'unknown field "spec.model.mirror"'),
}  # fmt: skip

ACCEPTED: dict[str, Manifest] = {
    "a name of 40 characters": model_deployment("a" * 40),
    "a name of one letter": model_deployment("a"),
    "plain http with a port and a query": uri("http://models:8000/iris.joblib?version=2"),
    "an address with an @ in its path": uri("https://models.example.com/team@home/iris.joblib"),
    "a claim": uri("pvc://models/iris.joblib"),
    "a claim with a deep path of dots": uri("pvc://models.store/a/b..c/.hidden/v1.2.joblib"),
    "a pinned model of a private store": model(sha256=HASH, version="2024-05-01", secretRef={"name": "store"}),
    "a version of 63 characters": model(version="v" * 63),
    "an empty env value": server(env=[{"name": "_a1", "value": ""}]),
    "a GPU": server(resources={"limits": {"nvidia.com/gpu": 1}}),
    "whole and decimal quantities": server(resources={"requests": {"cpu": "0.5", "memory": "1.5Gi"}}),
    "requests equal to limits": server(resources={"requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}),
    "every part of a duration": server(readyTimeout="1h2m3.5s4ms"),
    "a pod of its own kind": pods(
        labels={"team": "a", "empty": ""},
        annotations={"example.com/note": "some text, of any kind"},
        nodeSelector={"pool": "gpu"},
        tolerations=[
            {"operator": "Exists"},
            {"key": "gpu", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        priorityClassName="high",
        imagePullSecrets=[{"name": "registry"}],
        topologySpreadConstraints=[
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
    ),
    "one step of the whole range": steps(99),
    "twenty steps": steps(*range(1, 21)),
    "a rollout a little longer than its steps": rollout(
        steps=[{"weight": 5, "duration": "30m"}, {"weight": 50, "duration": "0.5h"}], maxDuration="60m1s"
    ),
    "steps of a month": rollout(steps=[{"weight": 50, "duration": "720h"}], maxDuration="2160h"),
    "the shortest interval": analysis(interval="1000ms"),
    "the longest interval": analysis(interval="5m"),
    "the highest rates": analysis(falseRollbackRate=0.5, falsePromotionRate=0.5),
    "a Prometheus under a path": analysis(prometheus={"address": "https://example.com/prometheus/"}),
    "the largest margin": metric(margin=0.5, tolerance=0.499),
    "every metric": analysis(
        metrics=[
            {"name": "errors", "margin": 0.01},
            {"name": "latency", "margin": 0.05, "slowerThan": "2.5ms"},
            {"name": "accuracy", "margin": 0.02, "tolerance": 0.001},
        ]
    ),
}


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


@pytest.mark.parametrize("bound", LATENCY_BOUNDS)
def test_accepts_every_bound_of_the_histogram(kubectl: Kubectl, bound: str) -> None:
    kubectl.dry_run(metric(name="latency", slowerThan=bound)).must_succeed()


def test_a_bad_duration_gets_one_clear_answer(kubectl: Kubectl) -> None:
    """A rule that compares durations does not add an evaluation error of its own."""
    answer = kubectl.dry_run(rollout(steps=[{"weight": 5, "duration": "soon"}], maxDuration="later"))
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
            "maxDuration": "24h",
            "onInconclusive": "Hold",
            "paused": False,
            "keepPrevious": "10m",
        },
        "analysis": {
            "interval": "5s",
            "falseRollbackRate": 0.05,
            "falsePromotionRate": 0.05,
            "metrics": [
                {"name": "errors", "margin": 0.01, "tolerance": 0},
                {"name": "latency", "margin": 0.05, "tolerance": 0, "slowerThan": "250ms"},
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
    assert spec["analysis"]["metrics"] == [{"name": "accuracy", "margin": 0.02, "tolerance": 0}]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_accepted(kubectl: Kubectl, example: Path) -> None:
    kubectl.dry_run(load(example)).must_succeed()


def test_the_example_in_the_notes_is_accepted(kubectl: Kubectl, helm: Helm) -> None:
    flags = ["--dry-run=server", "--namespace", kubectl.namespace, "--set", "crds.install=false"]
    answer = run([helm.binary, "install", kubectl.namespace, str(CHART), *flags]).must_succeed()
    notes = answer.out.split("NOTES:")[1]
    example = yaml.safe_load(notes.split("<<EOT")[1].split("EOT")[0])
    kubectl.dry_run(example).must_succeed()
    assert f"kubectl --namespace {kubectl.namespace} rollout status deployment/" in notes


Make = Callable[..., Manifest]


@pytest.fixture
def make(kubectl: Kubectl) -> Iterator[Make]:
    """Creates a ModelDeployment for real; it is deleted afterwards."""
    names: list[str] = []

    def create(name: str, **spec: Any) -> Manifest:
        names.append(name)
        kubectl.create(model_deployment(name, **spec)).must_succeed()
        return kubectl.get(kubectl.resource, name)

    yield create
    for name in names:
        kubectl("delete", kubectl.resource, name, "--ignore-not-found").must_succeed()


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
        "evidenceAt": "2024-05-01T09:06:00Z",
        "evidence": "x" * 200_000,
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
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2024-05-01T09:00:00Z",
            "reason": "Serving",
            "message": "v1 answers.",
        },
        {
            "type": "Reconciling",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2024-05-01T09:00:00Z",
            "reason": "GatheringEvidence",
            "message": "v2 has 25 % of the requests",
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


def test_kubectl_explain_has_the_descriptions(kubectl: Kubectl) -> None:
    field = f"{PLURAL}.spec.analysis.metrics.margin"
    deadline = time.monotonic() + 60
    # The API server publishes a new definition's descriptions a little later than the definition.
    while (answer := kubectl("explain", field, f"--api-version={kubectl.group}/v1alpha1")).code != 0:
        assert time.monotonic() < deadline, answer.err
        time.sleep(0.5)
    assert "0.01 is one percentage point" in " ".join(answer.out.split())


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


@pytest.mark.helm
@pytest.mark.parametrize("values", ["dev.yaml", "namespaces.yaml", "full.yaml"])
def test_the_rendered_chart_is_accepted(kubectl: Kubectl, helm: Helm, values: str) -> None:
    file = load(Path(__file__).parent / "values" / values)
    # What needs more than an API server has: other namespaces, and the Prometheus operator's definitions.
    if "watchNamespaces" in file:
        file["watchNamespaces"] = [kubectl.namespace]
    file.pop("metrics", None)
    manifests = helm.template(
        *[part for key, value in file.items() for part in ("--set-json", f"{key}={json.dumps(value)}")],
        release=kubectl.namespace,
        namespace=kubectl.namespace,
    )
    assert len(manifests) >= 5
    kubectl.apply(*manifests, dry_run=True).must_succeed()


@pytest.mark.helm
def test_the_operators_pod_passes_the_restricted_level(kubectl: Kubectl, helm: Helm) -> None:
    """The namespace enforces it, so that a pod with less is refused by the API server itself."""
    template = only(helm.template(namespace=kubectl.namespace), "Deployment")["spec"]["template"]
    # The ServiceAccount of a release is not installed here; the namespace's own stands in.
    template["spec"].pop("serviceAccountName")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=30s").must_succeed()
    kubectl.dry_run(pod).must_succeed()
    loose = deepcopy(pod)
    loose["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
    answer = kubectl.dry_run(loose)
    assert answer.code != 0
    assert "violates PodSecurity" in answer.err


@pytest.fixture(scope="module")
def operator(kubectl: Kubectl, helm: Helm) -> Kubectl:
    """kubectl with the rights that the chart gives the operator in one namespace."""
    manifests = helm.template(
        "--set",
        f"watchNamespaces={{{kubectl.namespace}}}",
        namespace=kubectl.namespace,
    )
    role = only(manifests, "Role")
    for rule in role["rules"]:
        if rule["apiGroups"] == ["serin.dev"]:
            rule["apiGroups"] = [kubectl.group]
            rule["resources"] = [name.replace("modeldeployments", PLURAL) for name in rule["resources"]]
    kubectl.apply(role, only(manifests, "ServiceAccount"), only(manifests, "RoleBinding")).must_succeed()
    return replace(kubectl, user=f"system:serviceaccount:{kubectl.namespace}:serin")


@pytest.mark.helm
def test_the_operator_may_apply_what_it_makes(operator: Kubectl) -> None:
    labels = {"app": "x"}
    container = {"name": "x", "image": "x"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"selector": labels, "ports": [{"port": 80}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }
    operator.apply(config, service, deployment).must_succeed()
    config["data"] = {"a": "c"}
    operator.apply(config).must_succeed()
    operator("delete", "deployment/x", "service/x", "configmap/x").must_succeed()


@pytest.mark.helm
def test_the_operator_may_write_a_status_and_no_spec(operator: Kubectl, make: Make) -> None:
    written = make("owned")
    plural, _, group = operator.resource.partition(".")
    path = f"/apis/{group}/v1alpha1/namespaces/{operator.namespace}/{plural}/owned/status"
    body = json.dumps(written | {"status": {"phase": "Serving"}})
    operator("replace", "--raw", path, "--filename=-", stdin=body).must_succeed()
    pause = '{"spec": {"rollout": {"paused": true}}}'
    refused = operator("patch", operator.resource, "owned", "--type=merge", "--patch", pause)
    assert refused.code != 0
    assert "cannot patch resource" in refused.err


@pytest.mark.helm
def test_the_operator_may_create_a_secret_and_read_none(operator: Kubectl) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "iris-prediction-key"}}
    operator.create(secret).must_succeed()
    for verb in ("get", "list", "watch", "update", "patch", "delete"):
        answer = operator("auth", "can-i", verb, "secrets")
        assert (answer.code, answer.out.strip()) == (1, "no"), verb


@pytest.mark.helm
@pytest.mark.parametrize(
    "right",
    [
        ("create", "pods", "--subresource=exec"),
        ("create", "rolebindings"),
        ("get", "nodes"),
        ("create", "events"),
        ("delete", "deployments", "--namespace=kube-system"),
    ],
    ids=" ".join,
)
def test_the_operator_may_not(operator: Kubectl, right: tuple[str, ...]) -> None:
    answer = operator("auth", "can-i", *right)
    assert answer.out.strip() == "no"


@pytest.mark.helm
def test_the_operator_may_say_what_it_decides(operator: Kubectl) -> None:
    answer = operator("auth", "can-i", "create", "events.events.k8s.io").must_succeed()
    assert answer.out.strip() == "yes"
