"""Error rates and delays of a policy: the engine's figures as a table or as JSON."""

from pathlib import Path

import pytest
from tests.operator.cli.files import serin

Capture = pytest.CaptureFixture[str]
BASE = ("simulate", "--rps", 10, "--split", 10, "--failure-rate", 0.05, "--margin", 0.02, "--runs", 100)


def test_each_effect_is_a_row_and_the_error_rates_are_kept(capsys: Capture) -> None:
    ran = serin(capsys, *BASE, "--effect", 0, "--effect", 0.02, "--effect", 0.05, "--json")
    none, margin, five = ran.lines
    assert [line["effect"] for line in ran.lines] == ["0", "0.02", "0.05"]
    assert none["rolled_back"] <= 0.12 and none["promoted"] > 0.8 and none["harmed_requests"] == 0
    assert margin["promoted"] <= 0.12
    assert five["rolled_back"] == 1 and five["rollback_minutes"]["mean"] < 10
    assert five["harmed_requests"] == pytest.approx(0.05 * five["canary_requests"])
    assert all(line["rolled_back"] + line["promoted"] + line["held"] == pytest.approx(1) for line in ran.lines)


def test_the_seed_repeats_the_runs(capsys: Capture) -> None:
    flags = [*BASE, "--scrapes", 20, "--effect", 0.02]
    first, again, other = (serin(capsys, *flags, "--seed", seed, "--json").out for seed in (1, 1, 2))
    assert first == again != other


def test_people_get_a_table_that_says_which_shares_are_errors(capsys: Capture) -> None:
    out = serin(capsys, *BASE, "--effect", 0, "--effect", 0.02, "--interval", "60s", "--scrapes", 30).out
    assert out.startswith("100 runs per effect, 30 scrapes every 60 s (30 min), 10 requests a second, 10 % of them")
    assert "Rolled back under effect 0 is wrong: at most 5 % of the runs." in out
    assert "Promoted under effect 0.02 is wrong: at most 5 % of the runs." in out


def test_a_policy_file_brings_its_interval_steps_and_metrics(capsys: Capture, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "analysis: {interval: 10s, metrics: [{name: errors, margin: 0.02}, {name: accuracy, margin: 0.02}]}\n"
        "rollout: {steps: [{weight: 50, duration: 10m}]}\n"
    )
    flags = ["simulate", "--policy", policy, "--rps", 100, "--failure-rate", 0.05, "--runs", 30, "--scrapes", 90]
    equal, worse = serin(capsys, *flags, "--effect", 0, "--effect", "accuracy=0.1", "--json").lines
    assert equal["promotion_minutes"]["median"] == 10  # the step's duration: the evidence suffices long before
    assert worse["effect"] == "accuracy=0.1" and worse["rolled_back"] == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--effect", 0.99], "the canary's share of failures 1.04"),
        (["--effect", "speed=0.1", "--policy", "POLICY"], "there is no metric speed"),
        (["--failure-rate", "errors=0.1", "--margin", "latency=0.1"], "--failure-rate says nothing of metric latency"),
        (["--runs", 10_000_000, "--scrapes", 1000], "simulate fewer"),
    ],
)
def test_what_is_wrong_is_told(capsys: Capture, tmp_path: Path, flags: list[object], told: str) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("analysis: {}\n")
    rate = [] if "--failure-rate" in flags else ["--failure-rate", 0.05]
    ran = serin(capsys, "simulate", "--rps", 10, *rate, *[policy if flag == "POLICY" else flag for flag in flags])
    assert ran.code == 1 and told in ran.err


@pytest.mark.parametrize("flags", [["--runs", "0"], ["--runs", "1.5"], ["--seed", "-1"], ["--effect", "much"]])
def test_impossible_flags_end_with_exit_code_2(capsys: Capture, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        serin(capsys, *BASE, *flags)
    assert raised.value.code == 2


SHADOW = (
    "analysis: {interval: 30s, metrics: [{name: errors, margin: 0.05}, {name: accuracy, margin: 0.02}]}\n"
    "rollout: {strategy: STRATEGY, shadow: {percent: 20, duration: 10m}, steps: [{weight: 10, duration: 20m}]}\n"
)


def shadow(tmp_path: Path, strategy: str = "Shadow") -> tuple[object, ...]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(SHADOW.replace("STRATEGY", strategy))
    return "simulate", "--policy", policy, "--rps", 20, "--failure-rate", 0.1, "--runs", 100


def test_a_shadow_is_judged_by_pairs_and_no_client_meets_it(capsys: Capture, tmp_path: Path) -> None:
    flags = [*shadow(tmp_path), "--effect", 0, "--effect", "accuracy=0.02", "--effect", "errors=0.1"]
    ran = serin(capsys, *flags, "--json")
    equal, worse, failing = ran.lines
    assert ran.err == ""
    assert equal["promoted"] > 0.9 and equal["promotion_minutes"]["median"] == 10  # its least duration
    assert worse["rolled_back"] > 0.9 and worse["promoted"] <= 0.12
    assert worse["rollback_minutes"]["median"] < 5  # 240 pairs a minute, of which about 300 are needed
    assert failing["rolled_back"] == 1
    assert [line["canary_requests"] for line in ran.lines] == [0, 0, 0]
    out = serin(capsys, *flags, "--runs", 10).out
    assert "20 requests a second, copies of 20 % of them to the shadow." in out
    assert "accuracy is decided by pairs: 2 % of the shadow's answers differ" in out


def test_the_more_the_answers_differ_and_the_fewer_labels_the_later(capsys: Capture, tmp_path: Path) -> None:
    def median(*flags: object) -> float:
        (line,) = serin(capsys, *shadow(tmp_path), "--effect", "accuracy=0.02", *flags, "--json").lines
        return float(line["rollback_minutes"]["median"])

    assert median() < median("--disagreement", 0.06) < median("--disagreement", 0.06, "--labelled", 0.25)


def test_the_steps_follow_a_shadow(capsys: Capture, tmp_path: Path) -> None:
    flags = [*shadow(tmp_path, "Canary"), "--effect", 0]
    (line,) = serin(capsys, *flags, "--json").lines
    assert line["promoted"] > 0.9 and line["promotion_minutes"]["median"] == 30
    assert line["canary_requests"] == pytest.approx(0.1 * 20 * 1200, rel=0.1)
    assert "copies of 20 % of them to the shadow, then in the policy's steps" in serin(capsys, *flags).out


def test_of_a_split_only_the_labelled_requests_count(capsys: Capture) -> None:
    flags = ["simulate", "--rps", 10, "--failure-rate", "accuracy=0.05", "--margin", 0.02, "--runs", 100]
    every, some = (serin(capsys, *flags, "--labelled", share, "--json").lines[0] for share in (1, 0.25))
    assert some["promotion_minutes"]["median"] > 2 * every["promotion_minutes"]["median"]


def test_labels_for_metrics_that_need_none_are_told(capsys: Capture) -> None:
    ran = serin(capsys, *BASE, "--labelled", 0.25)
    assert ran.code == 1 and "--labelled is for metrics of labels" in ran.err
