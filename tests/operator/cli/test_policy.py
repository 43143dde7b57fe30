"""A policy out of a file, out of flags and out of both, with the definition's own defaults."""

import argparse
import re
from pathlib import Path

import pytest
import yaml
from tests.operator.definition import EXAMPLES, defaulted, schema

from serin_operator.api.spec import Analysis, Goal, MetricType, Mode, Role, Rollout, Step, parse_analysis, parse_rollout
from serin_operator.cli import policy
from serin_operator.cli.definition import completed
from serin_operator.cli.errors import InputError


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    policy.add_arguments(parser)
    return parser.parse_args(list(flags))


def resolved(tmp_path: Path, text: str, *flags: str) -> tuple[Analysis, Rollout | None]:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    return policy.resolve(parsed("--policy", str(file), *flags), ())


def test_defaults_are_those_of_the_definition(tmp_path: Path) -> None:
    analysis, rollout = resolved(tmp_path, "analysis: {}\nrollout: {}\n")
    whole = defaulted({"model": {"uri": "https://example.com/m"}}, schema("spec"))
    assert analysis == parse_analysis(whole["analysis"])
    assert rollout == parse_rollout(whole["rollout"])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_policy_file(example: Path) -> None:
    analysis, rollout = policy.resolve(parsed("--policy", str(example)), ())
    (spec,) = [d["spec"] for d in yaml.safe_load_all(example.read_text()) if d["kind"] == "ModelDeployment"]
    assert analysis == parse_analysis(defaulted(spec)["analysis"])
    assert rollout == parse_rollout(defaulted(spec)["rollout"])


def test_of_a_strategy_that_compares_nothing_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resolved(tmp_path, "analysis: {}\nrollout: {strategy: BlueGreen}\n")
    assert "strategy BlueGreen compares nothing" in capsys.readouterr().err
    resolved(tmp_path, "analysis: {}\nrollout: {}\n")
    assert capsys.readouterr().err == ""


def test_a_stored_resource_is_a_policy_file(tmp_path: Path) -> None:
    text = "kind: ModelDeployment\nspec: {model: {uri: x}, analysis: {falseRollbackRate: 0.01}}\nstatus: {}\n"
    assert resolved(tmp_path, text)[0].false_rollback_rate == 0.01


def test_flags_make_a_policy_without_a_rollout_part() -> None:
    flags = ["--margin", "0.1", "--margin", "accuracy=0.03", "--tolerance", "0.01", "--bound", "errors=0.2"]
    flags += ["--role", "errors=guard", "--goal", "accuracy=superior", "--weight", "errors=2"]
    analysis, rollout = policy.resolve(parsed(*flags, "--alpha", "0.01", "--beta", "0.2"), ["accuracy", "errors"])
    accuracy, errors = analysis.metrics
    assert rollout is None
    assert (analysis.false_rollback_rate, analysis.false_promotion_rate) == (0.01, 0.2)
    assert (accuracy.margin, accuracy.tolerance, accuracy.goal, accuracy.bound) == (0.03, 0.01, Goal.SUPERIOR, None)
    assert (errors.margin, errors.bound, errors.role, errors.weight) == (0.1, 0.2, Role.GUARD, 2)


def test_flags_go_over_a_policy_file(tmp_path: Path) -> None:
    text = "analysis: {metrics: [{name: errors, margin: 0.01}, {name: accuracy, margin: 0.02}]}\n"
    flags = ["--margin", "accuracy=0.05", "--false-promotion-rate", "0.1", "--steps", "10:5m,50:90s"]
    analysis, rollout = resolved(tmp_path, text, *flags)
    assert [metric.margin for metric in analysis.metrics] == [0.01, 0.05]
    assert analysis.false_promotion_rate == 0.1
    assert rollout and rollout.mode is Mode.STEPS and rollout.steps == (Step(10, 300), Step(50, 90))


def test_steps_alone_bring_the_definitions_rollout_part() -> None:
    _, rollout = policy.resolve(parsed("--steps", "10:5m"), ["errors"])
    assert rollout and rollout.max_duration == parse_rollout(completed("rollout", {})).max_duration


def test_a_margin_that_nobody_set_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    analysis, _ = policy.resolve(parsed("--margin", "a=0.1"), ["a", "b"])
    assert [metric.margin for metric in analysis.metrics] == [0.1, policy.DEFAULT_MARGIN]
    assert capsys.readouterr().err == "serin: metric b has margin 0.02; set another with --margin\n"


def test_names_that_are_no_type_are_custom_metrics() -> None:
    analysis, _ = policy.resolve(parsed("--margin", "0.1"), ["errors", "accuracy", "latency", "f1", "clicks"])
    custom = MetricType.CUSTOM
    assert [m.type for m in analysis.metrics] == [MetricType.ERRORS, MetricType.ACCURACY, custom, custom, custom]


@pytest.mark.parametrize(
    ("text", "flags", "told"),
    [
        ("analysis: {metrics: []}", [], "analysis.metrics"),
        ("analysis: {metric: []}", [], "'metric' was unexpected"),
        ("analysis: {falseRollbackRate: often}", [], "analysis.falseRollbackRate"),
        ("analysis: {metrics: [{name: errors}]}", [], "'margin' is a required property"),
        ("analysis: {metrics: [{name: errors, margin: 0.01, role: Gard}]}", [], "analysis.metrics[0].role"),
        ("analysis: {metrics: [{name: errors, margin: 0.01}, {name: errors, margin: 0.1}]}", [], "comes twice"),
        ("analysis: {metrics: [{name: errors, margin: 0.01, tolerance: 0.01}]}", [], "above the tolerance"),
        ("rollout: {steps: 3}", [], "rollout.steps"),
        ("analysis: []", [], "analysis is []"),
        ("analysis: 5", [], "analysis is 5"),
        ("analyses: {}", [], "0 policies"),
        ("", [], "0 policies"),
        ("analysis: {}\n---\nrollout: {}", [], "2 policies"),
        ("analysis: {", [], "policy.yaml"),
        ("analysis: {}", ["--margin", "speed=0.1"], "there is no metric speed; the metrics are errors, latency"),
        ("analysis: {}", ["--weight", "0"], "weight 0"),
        ("analysis: {}", ["--bound", "1.5"], "bound 1.5"),
        ("analysis: {}", ["--margin", "1.5"], "margin 1.5"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told(tmp_path: Path, text: str, flags: list[str], told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        resolved(tmp_path, text, *flags)


def test_a_policy_file_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml"):
        policy.resolve(parsed("--policy", "nowhere.yaml"), ())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--margin", "a=b"], "'b' is not a number"),
        (["--margin", "nan"], "'nan' is not a number"),
        (["--alpha", "0"], "0 is not between 0 and 1"),
        (["--beta", "5%"], "'5%' is not a number"),
        (["--role", "Boss"], "'Boss' is none of GuardAndGate, Guard, Gate, Observe"),
        (["--steps", "5:soon"], "not a duration: 'soon'"),
        (["--steps", "0:60s"], "a weight from 1 to 99"),
        (["--steps", "5:60s,x"], "a weight from 1 to 99"),
        (["--steps", "50:60s,5:60s"], "must rise"),
    ],
)
def test_wrong_flags_end_with_exit_code_2(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parsed(*flags)
    assert raised.value.code == 2
    assert told in capsys.readouterr().err
