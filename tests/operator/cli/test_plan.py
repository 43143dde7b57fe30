"""How long, or how much: the operator's forecasts before there is a rollout."""

import json
from pathlib import Path

import pytest
from tests.operator.cli.files import Row, serin

from serin_operator.decide import forecast

Capture = pytest.CaptureFixture[str]
BASE = ("plan", "--rps", 10, "--split", 10, "--failure-rate", 0.05)


def planned(capsys: Capture, *flags: object) -> list[Row]:
    return serin(capsys, *flags, "--json").lines


def test_a_plan_is_the_operators_forecast(capsys: Capture) -> None:
    (plan,) = planned(capsys, *BASE, "--margin", 0.02)
    minutes = forecast.minutes_to_promotion(
        [(10.0, 0.0)], failure_rate=0.05, margin=0.02, per_minute=600, log_odds=2.995732
    )
    assert plan["minutes"] == pytest.approx(minutes, rel=1e-5)
    assert plan["minutes"] == pytest.approx(1.5 * 15.8, rel=0.01)  # the method page's 15.8 minutes


def test_the_reverse_finds_the_margin_that_takes_so_long(capsys: Capture) -> None:
    (plan,) = planned(capsys, *BASE, "--margin", 0.02)
    (reverse,) = planned(capsys, *BASE, "--within", f"{60 * plan['minutes']:.3f}s")
    assert reverse["smallest_margin"] == pytest.approx(0.02, rel=1e-3)
    assert reverse["detectable"] == pytest.approx(plan["detectable"], rel=1e-3)


def test_steps_cost_at_least_their_time_and_help_with_their_weights(capsys: Capture) -> None:
    (alone,) = planned(capsys, *BASE, "--margin", 0.02)
    (steps,) = planned(capsys, *BASE, "--margin", 0.02, "--steps", "5:60s,25:60s,50:60s")
    (slow,) = planned(capsys, *BASE, "--margin", 0.02, "--steps", "5:2h,50:1h")
    assert 3 < steps["minutes"] < alone["minutes"]
    assert slow["minutes"] == 180


def test_every_gate_of_a_policy_file_is_planned(capsys: Capture, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "analysis: {metrics: [{name: errors, margin: 0.01}, {name: accuracy, margin: 0.02, role: Guard},"
        " {name: f1, class: spam, margin: 0.02}]}\nrollout: {maxDuration: 4h}\n"
    )
    flags = ["--policy", policy, "--rps", 20, "--rps", "f1=0.1", "--failure-rate", 0.01, "--failure-rate", "f1=0.2"]
    plans = planned(capsys, "plan", *flags)
    assert [plan["metric"] for plan in plans] == ["errors", "f1"]
    assert [plan["per_minute"] for plan in plans] == [1200, 6]
    out = serin(capsys, "plan", *flags).out
    assert "The canary gets 5 % for 60 s, 25 % for 60 s, 50 % for 60 s, then that share for as long as it takes." in out
    assert "(longest for f1)" in out and "within maxDuration (4 h)" in out


def test_a_dispersion_makes_it_longer_and_a_tolerance_the_worsening_larger(capsys: Capture) -> None:
    (plain,) = planned(capsys, *BASE, "--margin", 0.02)
    (bursts,) = planned(capsys, *BASE, "--margin", 0.02, "--dispersion", 2)
    (tolerant,) = planned(capsys, *BASE, "--margin", 0.02, "--tolerance", 0.01)
    assert bursts["minutes"] == pytest.approx(2 * plain["minutes"])
    assert tolerant["detectable"] > plain["detectable"]


def test_what_never_comes_is_said(capsys: Capture) -> None:
    (plan,) = planned(capsys, *BASE, "--bound", 0.04)
    assert plan["minutes"] is plan["within"] is plan["detectable"] is None
    assert "never" in serin(capsys, *BASE, "--bound", 0.04).out


def test_people_get_a_table_and_bars(capsys: Capture) -> None:
    out = serin(capsys, *BASE, "--margin", 0.02).out
    row = next(line for line in out.splitlines() if line.startswith("failures"))
    assert row.split("  ")[0] == "failures" and "24 min" in row
    marked = [line for line in out.splitlines() if "◂" in line]
    assert len(marked) == 2 and all("24 min" in line and "█" in line for line in marked)
    reverse = serin(capsys, *BASE, "--within", "1h").out
    assert "smallest margin to promote by" in reverse and "60 min" in reverse


def test_the_picture_is_drawn_and_the_same_plan_draws_the_same(capsys: Capture, tmp_path: Path) -> None:
    for name in ("one.svg", "other.svg"):
        assert serin(capsys, *BASE, "--margin", 0.02, "--plot", tmp_path / name).code == 0
    picture = (tmp_path / "one.svg").read_text()
    assert "2 points: 24 min" in picture and "margin, in percentage points" in picture
    assert picture == (tmp_path / "other.svg").read_text()


@pytest.mark.parametrize("name", ["nowhere/plan.svg", "plan.docx"])
def test_a_picture_that_can_not_be_written_is_told(capsys: Capture, tmp_path: Path, name: str) -> None:
    ran = serin(capsys, *BASE, "--margin", 0.02, "--plot", tmp_path / name)
    assert ran.code == 1 and name in ran.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rps", "speed=3"], "--failure-rate says nothing of metric speed"),
        (["--rps", "10", "--failure-rate", "a=0.1", "--margin", "b=0.1"], "--failure-rate says nothing of metric b"),
        (["--rps", "10", "--failure-rate", "0.1", "--role", "Guard"], "no metric is a gate"),
    ],
)
def test_what_is_missing_is_told(capsys: Capture, flags: list[str], told: str) -> None:
    failure_rate = [] if "--failure-rate" in flags else ["--failure-rate", "a=0.1"]
    ran = serin(capsys, "plan", *flags, *failure_rate)
    assert ran.code == 1 and told in ran.err


@pytest.mark.parametrize("flags", [["--rps", "0"], ["--split", "100"], ["--within", "soon"], ["--dispersion", "0.5"]])
def test_impossible_flags_end_with_exit_code_2(capsys: Capture, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        serin(capsys, *BASE, *flags)
    assert raised.value.code == 2


def test_json_has_numbers_or_null_only(capsys: Capture) -> None:
    out = serin(capsys, *BASE, "--bound", 0.04, "--json").out
    json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# --- shadows ---------------------------------------------------------------------------------------------------

SHADOW = (
    "analysis: {metrics: [{name: errors, margin: 0.02}, {name: accuracy, margin: 0.02}]}\n"
    "rollout: {strategy: STRATEGY, shadow: {percent: 20, duration: 60s}, steps: [{weight: 10, duration: 1h}]}\n"
)


def shadow(tmp_path: Path, strategy: str = "Shadow", text: str = SHADOW) -> tuple[object, ...]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(text.replace("STRATEGY", strategy))
    return "plan", "--policy", policy, "--rps", 10, "--failure-rate", 0.1


@pytest.mark.parametrize(
    ("labels", "differ", "pairs"),
    [
        # The bounds of docs/adr/0017: 393 pairs where all have labels; and of its simulations of fewer labels.
        (10, 0.02, 1.5 * 393),
        (2.5, 0.02, 2707),
        (10, 0.05, 1196),
        (0.01, 0.001, 320),  # hardly any label, and none is needed
    ],
)
def test_the_accuracy_of_a_shadow_waits_for_its_pairs(
    capsys: Capture, tmp_path: Path, labels: float, differ: float, pairs: float
) -> None:
    flags = ["--rps", f"accuracy={labels}", "--disagreement", differ]
    _, accuracy = planned(capsys, *shadow(tmp_path), *flags)
    assert accuracy["pairs"] == pytest.approx(pairs, rel=0.005)
    assert accuracy["minutes"] == pytest.approx(max(1.0, accuracy["pairs"] / 120))  # 20 % of 600 requests a minute
    assert (accuracy["disagreement"], accuracy["labelled"]) == (differ, labels / 10)


def test_everything_else_of_a_shadow_is_compared_arm_by_arm(capsys: Capture, tmp_path: Path) -> None:
    errors, _ = planned(capsys, *shadow(tmp_path))
    minutes = forecast.minutes_to_promotion(
        [(100 / 6, 0.0)], failure_rate=0.1, margin=0.02, per_minute=720, log_odds=2.995732
    )
    assert errors["minutes"] == pytest.approx(minutes, rel=1e-5)  # stable's 600 requests and 120 copies
    assert "pairs" not in errors


def test_with_a_label_window_the_same_is_planned_as_much_later(capsys: Capture, tmp_path: Path) -> None:
    late = SHADOW.replace("{metrics", "{labelWindow: 30m, metrics")
    (_, at_once), (_, waited) = (planned(capsys, *shadow(tmp_path, text=text)) for text in (SHADOW, late))
    assert waited["minutes"] > 30 + at_once["minutes"] - 1


def test_with_a_label_window_of_a_day_pairs_are_a_sample(capsys: Capture, tmp_path: Path) -> None:
    """333 of 24 minutes, where 20 % of 600 requests a minute are copied."""
    late = SHADOW.replace("{metrics", "{labelWindow: 24h, metrics")
    (_, waited) = planned(capsys, *shadow(tmp_path, text=late))
    assert waited["minutes"] == pytest.approx(24 * 60 + waited["pairs"] / 333 * 24, rel=1e-3)


def test_the_steps_after_a_shadow_take_their_time(capsys: Capture, tmp_path: Path) -> None:
    alone, before = (planned(capsys, *shadow(tmp_path, strategy)) for strategy in ("Shadow", "Canary"))
    for mere, stepped in zip(alone, before, strict=True):
        assert stepped["minutes"] == pytest.approx(mere["minutes"] + 60)
    out = serin(capsys, *shadow(tmp_path, "Canary")).out
    assert "Then it gets 10 % for 60 min" in out
    adaptive = SHADOW.replace("strategy", "mode: Adaptive, strategy")
    assert "The adaptive ramp that follows" in serin(capsys, *shadow(tmp_path, "Canary", adaptive)).out


def test_people_read_what_the_pairs_need_beside_a_split(capsys: Capture, tmp_path: Path) -> None:
    ran = serin(capsys, *shadow(tmp_path), "--rps", "accuracy=0.5")
    assert ran.err == ""
    assert ran.out.startswith("The canary gets copies of 20 % of the requests, for 60 s at least, and clients get none")
    assert "In 2 % the answers are taken to differ (--disagreement), and one of the two to be right." in ran.out
    assert "about 14,000 pairs, 680 of them with a label (3,400 labels of all answers)" in ran.out
    assert "a split with 20 % for the canary needs about 14,000 labels." in ran.out
    assert "Without any label" not in ran.out
    seldom = serin(capsys, *shadow(tmp_path), "--disagreement", 0.001).out
    assert "Without any label about 320 pairs do" in seldom


def test_the_reverse_of_a_shadow_finds_the_margin_that_takes_so_long(capsys: Capture, tmp_path: Path) -> None:
    flags = [*shadow(tmp_path), "--rps", "accuracy=0.5"]
    (_, plan) = planned(capsys, *flags)
    (_, reverse) = planned(capsys, *flags, "--within", f"{60 * plan['minutes']:.3f}s")
    assert reverse["smallest_margin"] == pytest.approx(0.02, rel=1e-3)


def test_a_bound_that_stable_breaks_is_never_passed_whatever_the_pairs_say(capsys: Capture, tmp_path: Path) -> None:
    ran = serin(capsys, *shadow(tmp_path), "--bound", "accuracy=0.05")
    assert "decided by pairs" in ran.out and "never" in ran.out
    _, accuracy = planned(capsys, *shadow(tmp_path), "--bound", "accuracy=0.05")
    assert accuracy["minutes"] is None


def test_answers_can_not_differ_more_often_than_one_is_wrong(capsys: Capture, tmp_path: Path) -> None:
    flags = [*shadow(tmp_path), "--failure-rate", 0.004]
    _, accuracy = planned(capsys, *flags)
    assert accuracy["disagreement"] == 0.008
    ran = serin(capsys, *flags, "--disagreement", 0.02)
    assert ran.code == 1 and "in 0.008 of the requests at most" in ran.err
    often_wrong = serin(capsys, *shadow(tmp_path), "--failure-rate", 0.6, "--disagreement", 0.9)
    assert often_wrong.code == 1 and "in 0.8 of the requests at most" in often_wrong.err


def test_a_disagreement_without_a_shadow_is_told(capsys: Capture) -> None:
    ran = serin(capsys, *BASE, "--disagreement", 0.02)
    assert ran.code == 1 and "--disagreement is for policies with a shadow" in ran.err


def test_a_disagreement_that_decides_nothing_is_told(capsys: Capture, tmp_path: Path) -> None:
    text = SHADOW.replace("{name: accuracy", "{name: latency")
    ran = serin(capsys, *shadow(tmp_path, text=text), "--disagreement", 0.02)
    assert ran.code == 1 and "--disagreement is for an accuracy, and the policy has none" in ran.err
