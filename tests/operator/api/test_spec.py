"""Specs as users write them, through the CRD's defaults, into typed values."""

from pathlib import Path

import pytest
import yaml
from tests.operator.definition import EXAMPLES, Json, defaulted, make_spec, raw_spec

from serin_operator.api.spec import (
    Drift,
    Goal,
    Metric,
    MetricType,
    Mode,
    OnInconclusive,
    Profile,
    Queries,
    Role,
    Step,
    parse_analysis,
    parse_rollout,
    parse_spec,
    seconds,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("24h", 86400.0),
        ("1h30m", 5400.0),
        ("1h30m15s", 5415.0),
        ("250ms", 0.25),
        ("2.5ms", 0.0025),
        ("1.5h", 5400.0),
        ("1m0.5s", 60.5),
        ("0s", 0.0),
        ("30m1h", 5400.0),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "5 s", "-5s", "5d", "1h 30m", "1.s", ".5s", "5S", "5sec", "1h30", "5s\n"]
)
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


def test_a_uri_alone_gets_every_default() -> None:
    spec = parse_spec(defaulted({"model": {"uri": "https://models.example.com/iris.joblib"}}))
    assert spec.model.format == "joblib"
    assert spec.model.sha256 is None
    assert spec.model.version is None
    assert spec.model.secret is None
    assert (spec.server.replicas, spec.server.ready_timeout) == (1, 300.0)
    assert spec.server.config == {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}}}
    assert (spec.traffic.router_replicas, spec.traffic.timeout) == (1, 30.0)
    assert spec.traffic.router_resources == {"requests": {"cpu": "50m", "memory": "64Mi"}}
    assert spec.rollout.steps == (Step(5, 60.0), Step(25, 60.0), Step(50, 60.0))
    assert (spec.rollout.max_duration, spec.rollout.on_inconclusive) == (86400.0, OnInconclusive.HOLD)
    assert (spec.rollout.paused, spec.rollout.keep_previous, spec.rollout.watch) == (False, 600.0, 600.0)
    assert (spec.rollout.mode, spec.rollout.exposure_budget, spec.rollout.max_weight) == (Mode.STEPS, 300, 25)
    assert (spec.analysis.interval, spec.analysis.prometheus) == (5.0, None)
    assert (spec.analysis.label_window, spec.analysis.warm_up, spec.analysis.calibration) == (0.0, 0, 0.0)
    assert (spec.analysis.false_rollback_rate, spec.analysis.false_promotion_rate) == (0.05, 0.05)
    assert spec.analysis.drift == Drift(false_alarm_rate=0.01, tolerance=0.05, period=86400.0)
    assert spec.model.profile is None
    assert spec.analysis.metrics == (
        Metric("errors", MetricType.ERRORS, 0.01),
        Metric("latency", MetricType.LATENCY, 0.05, slower_than=0.25),
    )


def test_a_reference_profile_is_kept() -> None:
    profile = {"uri": "pvc://models/iris.profile.json", "sha256": "1" * 64}
    assert make_spec(model={"profile": profile}).model.profile == Profile(**profile)


def test_how_a_model_is_loaded_is_kept() -> None:
    spec = make_spec(model={"format": "skops", "trustedTypes": ["mine.Clip"]}, server={"accelerate": "Never"})
    assert (spec.model.format, spec.model.trusted_types) == ("skops", ("mine.Clip",))
    assert spec.server.config["accelerate"] == "Never"


def test_what_is_set_is_kept() -> None:
    spec = make_spec(
        model={"version": "v7", "secretRef": {"name": "store"}},
        server={
            "replicas": 3,
            "image": "own:1",
            "env": [{"name": "A", "value": "b"}],
            "podTemplate": {"labels": {"a": "b"}},
        },
        rollout={
            "steps": [{"weight": 1}, {"weight": 99, "duration": "1h"}],
            "onInconclusive": "Rollback",
            "paused": True,
        },
        analysis={
            "prometheus": {"address": "http://prometheus:9090"},
            "metrics": [{"name": "accuracy", "margin": 0.02}],
        },
    )
    assert (spec.model.version, spec.model.secret) == ("v7", "store")
    assert set(spec.server.config) == {"image", "env", "resources", "podTemplate"}
    assert spec.rollout.steps == (Step(1, 60.0), Step(99, 3600.0))
    assert spec.rollout.on_inconclusive is OnInconclusive.ROLLBACK
    assert spec.rollout.paused is True
    assert spec.analysis.prometheus == "http://prometheus:9090"
    assert spec.analysis.metrics == (Metric("accuracy", MetricType.ACCURACY, 0.02),)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {"name": "errors", "margin": 0.01, "tolerance": 0.001, "bound": 0.02, "weight": 3},
            Metric("errors", MetricType.ERRORS, 0.01, tolerance=0.001, bound=0.02, weight=3.0),
        ),
        (
            {"name": "slow", "type": "latency", "margin": 0.05, "slowerThan": "1.5s", "role": "Guard"},
            Metric("slow", MetricType.LATENCY, 0.05, slower_than=1.5, role=Role.GUARD),
        ),
        (
            {"name": "fraud", "type": "recall", "margin": 0.02, "class": "fraud", "goal": "Superior", "role": "Gate"},
            Metric("fraud", MetricType.RECALL, 0.02, label="fraud", goal=Goal.SUPERIOR, role=Role.GATE),
        ),
        ({"name": "f1", "margin": 0.1, "role": "Observe"}, Metric("f1", MetricType.F1, 0.1, role=Role.OBSERVE)),
        (
            {"name": "regression", "margin": 0.02, "within": 5},
            Metric("regression", MetricType.REGRESSION, 0.02, within=5.0),
        ),
        (
            {"name": "sales", "type": "custom", "margin": 0.02, "queries": {"failures": "a", "trials": "b"}},
            Metric("sales", MetricType.CUSTOM, 0.02, queries=Queries("a", "b")),
        ),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_metrics_are_read_with_what_their_type_needs(raw: Json, expected: Metric) -> None:
    assert make_spec(analysis={"metrics": [raw]}).analysis.metrics == (expected,)


@pytest.mark.parametrize(
    ("role", "guards", "gates"),
    [("GuardAndGate", True, True), ("Guard", True, False), ("Gate", False, True), ("Observe", False, False)],
)
def test_a_role_says_what_a_metric_may_do(role: str, guards: bool, gates: bool) -> None:
    metric = Metric("errors", MetricType.ERRORS, 0.01, role=Role(role))
    assert (metric.guards, metric.gates) == (guards, gates)


def test_a_rollout_and_an_analysis_are_read_alone_as_well() -> None:
    raw = raw_spec(
        rollout={"mode": "Adaptive", "exposureBudget": 20, "maxWeight": 30, "watch": "0s"},
        analysis={"labelWindow": "30m", "warmUp": 2, "calibration": "5m"},
    )
    rollout, analysis = parse_rollout(raw["rollout"]), parse_analysis(raw["analysis"])
    assert (rollout.mode, rollout.exposure_budget, rollout.max_weight) == (Mode.ADAPTIVE, 20, 30)
    assert rollout.watch == 0.0
    assert (analysis.label_window, analysis.warm_up, analysis.calibration) == (1800.0, 2, 300.0)
    spec = parse_spec(raw)
    assert (spec.rollout, spec.analysis) == (rollout, analysis)


def test_a_missing_required_field_is_an_error() -> None:
    raw = raw_spec()
    del raw["rollout"]["steps"]
    with pytest.raises(KeyError, match="steps"):
        parse_spec(raw)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_parses(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        spec = parse_spec(defaulted(document["spec"]))
        assert spec.model.uri == document["spec"]["model"]["uri"]
        weights = [step.weight for step in spec.rollout.steps]
        assert weights == sorted(set(weights))
        assert sum(step.duration for step in spec.rollout.steps) < spec.rollout.max_duration
        assert all(0 <= metric.tolerance < metric.margin <= 0.5 for metric in spec.analysis.metrics)
        for metric in spec.analysis.metrics:
            assert (metric.slower_than is not None) == (metric.type is MetricType.LATENCY)
            assert (metric.within is not None) == (metric.type is MetricType.REGRESSION)
            assert (metric.queries is not None) == (metric.type is MetricType.CUSTOM)


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"minimal", "canary"}
