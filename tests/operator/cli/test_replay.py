"""A recorded rollout, replayed: the operator's own evidence and verdicts, for many series at once."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.operator.cli.files import Ran, Row, drawn, rows, serin, write_csv, write_jsonl

from serin_operator.decide import evidence
from serin_operator.decide.verdict import WATCH_SHARE

Capture = pytest.CaptureFixture[str]

LIMIT = math.log(20 / (1 - WATCH_SHARE))  # of one metric alone, at the error rate of 5 %
PAGE = [[3, 30, 14, 270], [5, 33, 13, 267], [6, 28, 16, 272]]  # three blocks of the method's page
GOOD = [[2, 200, 18, 1800]] * 20
BAD = [[8, 30, 14, 270]] * 20
STEPS = ["--steps", "5:60s,25:60s,50:60s"]


def test_the_lines_are_those_of_direct_calls_of_the_evidence(tmp_path: Path, capsys: Capture) -> None:
    file = write_csv(tmp_path / "page.csv", rows(PAGE))
    ran = serin(capsys, "replay", file, "--margin", 0.02, "--json")
    test = evidence.start(tolerance=0.0, margin=0.02)
    for block, line in zip(PAGE, ran.evidence, strict=True):
        test = evidence.update(test, np.array([[block]]), limit=LIMIT)
        assert line == {
            "series": None,
            "time": line["time"],
            "metric": "accuracy",
            "estimate": pytest.approx(float(evidence.difference(test)[0])),
            "interval": evidence.interval(test, alpha=0.05, beta=0.05)[0].tolist(),
            "log_e_worse": pytest.approx(float(evidence.log_e_worse(test)[0])),
            "log_e_promote": pytest.approx(float(evidence.log_e_non_inferior(test)[0])),
        }
    assert [line["time"] for line in ran.evidence] == [0, 30, 60]
    assert ran.verdicts[0]["series"] is None and ran.code == 0


def test_the_goal_superior_and_a_dispersion_reach_the_evidence(tmp_path: Path, capsys: Capture) -> None:
    file = write_csv(tmp_path / "page.csv", rows(PAGE))
    flags = ["--margin", 0.02, "--goal", "Superior", "--dispersion", 2, "--json"]
    last = serin(capsys, "replay", file, *flags).evidence[-1]
    test = evidence.start(tolerance=0.0, margin=0.02, phi=2.0)
    for block in PAGE:
        test = evidence.update(test, np.array([[block]]))
    assert last["log_e_promote"] == pytest.approx(float(evidence.log_e_superior(test)[0]))
    assert last["log_e_worse"] == pytest.approx(float(evidence.log_e_worse(test)[0]))


def test_csv_and_jsonl_and_standard_input_give_the_same(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [*rows(drawn(10), series="a"), *rows(drawn(7, seed=2), series="b", metric="errors")]
    as_csv = write_csv(tmp_path / "counts.csv", records)
    outs = [
        serin(capsys, "replay", file, "--margin", 0.02, "--json").out
        for file in (as_csv, write_jsonl(tmp_path / "counts.jsonl", records))
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO(as_csv.read_text()))
    assert outs[0] == outs[1] == serin(capsys, "replay", "-", "--margin", 0.02, "--json").out


def test_a_file_of_many_series_gives_what_each_gives_alone(tmp_path: Path, capsys: Capture) -> None:
    rates = [0.05, 0.03, 0.15, 0.07, 0.05]
    one_by_one = [
        rows(drawn(5 + 3 * number, rate, seed=number), series=f"s{number}", interval=10 + number)
        for number, rate in enumerate(rates)
    ]
    mixed = [row for records in one_by_one for row in records]
    mixed.sort(key=lambda row: float(row["time"]))
    flags = ["--margin", 0.02, *STEPS, "--json"]
    together = serin(capsys, "replay", write_csv(tmp_path / "all.csv", mixed), *flags)
    for number, records in enumerate(one_by_one):
        alone = serin(capsys, "replay", write_csv(tmp_path / f"{number}.csv", records), *flags)
        assert [line for line in together.evidence if line["series"] == f"s{number}"] == alone.evidence
        assert [line for line in together.verdicts if line["series"] == f"s{number}"] == alone.verdicts
    assert len(together.verdicts) == len(rates)


@pytest.mark.parametrize(
    ("blocks", "flags", "verdict", "time"),
    [
        (GOOD, [], "promote", None),
        (GOOD, STEPS, "promote", 180),
        (GOOD, ["--margin", "accuracy=0.001"], "hold", 570),
        (GOOD, ["--beta", "1e-9"], "promote", None),
        (GOOD, ["--role", "Guard"], "hold", 570),
        ([[12, 100, 18, 1800]] * 20, ["--bound", "0.05", "--margin", "0.4", "--tolerance", "0.3"], "rollback", None),
        ([[12, 100, 216, 1800]] * 20, ["--bound", "0.05"], "hold", 570),  # the stable breaks the bound as well
        (BAD, [], "rollback", None),
        (BAD, STEPS, "rollback", None),
        (BAD, ["--role", "Gate"], "hold", 570),
        (BAD, ["--role", "Observe"], "hold", 570),
        (BAD, ["--tolerance", "0.3", "--margin", "0.4"], "promote", None),
        ([[0, 0, 14, 270]] * 20, [], "hold", 570),
    ],
)
def test_verdicts_follow_the_policy(
    tmp_path: Path, capsys: Capture, blocks: list[list[int]], flags: list[str], verdict: str, time: int | None
) -> None:
    ran = serin(capsys, "replay", write_csv(tmp_path / "x.csv", rows(blocks)), "--margin", 0.02, *flags, "--json")
    (found,) = ran.verdicts
    assert found["verdict"] == verdict
    assert time is None or found["time"] == time
    assert len(ran.evidence) == len(blocks)  # evidence goes on after the verdict


def policy(tmp_path: Path, rollout: str) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(f"analysis: {{metrics: [{{name: accuracy, margin: 0.02}}]}}\nrollout: {rollout}\n")
    return file


@pytest.mark.parametrize(
    ("rollout", "verdict", "time"),
    [
        ("{steps: [{weight: 5, duration: 100s}, {weight: 50, duration: 100s}]}", "promote", 210),
        ("{steps: [{weight: 5, duration: 60s}], maxDuration: 90s}", "promote", 60),
        ("{steps: [{weight: 5, duration: 80s}], maxDuration: 85s}", "hold", 570),
        ("{steps: [{weight: 5, duration: 80s}], maxDuration: 85s, onInconclusive: Rollback}", "rollback", 90),
    ],
)
def test_a_policy_files_rollout_decides_when(
    tmp_path: Path, capsys: Capture, rollout: str, verdict: str, time: int
) -> None:
    file = write_csv(tmp_path / "x.csv", rows(GOOD))
    ran = serin(capsys, "replay", file, "--policy", policy(tmp_path, rollout), "--json")
    assert ran.verdicts == [{"series": None, "verdict": verdict, "time": time}]


def first(ran: Ran, log_e: str) -> float:
    """The time of the first scrape with odds of 20 : 1."""
    return float(next(line["time"] for line in ran.evidence if line[log_e] >= math.log(20)))


@pytest.mark.parametrize("rollout", [None, "{mode: Adaptive}"])
def test_without_steps_the_evidence_alone_decides_when(tmp_path: Path, capsys: Capture, rollout: str | None) -> None:
    flags = ["--margin", 0.02] if rollout is None else ["--policy", policy(tmp_path, rollout)]
    ran = serin(capsys, "replay", write_csv(tmp_path / "x.csv", rows(GOOD)), *flags, "--json")
    assert ran.verdicts == [{"series": None, "verdict": "promote", "time": first(ran, "log_e_promote")}]


def test_the_first_verdict_stands(tmp_path: Path, capsys: Capture) -> None:
    file = write_csv(tmp_path / "x.csv", rows([*GOOD[:5], *BAD * 3]))
    ran = serin(capsys, "replay", file, "--margin", 0.02, "--json")
    assert ran.verdicts[0] == {"series": None, "verdict": "promote", "time": first(ran, "log_e_promote")}
    assert ran.evidence[-1]["log_e_worse"] > math.log(20)


def test_without_a_policy_each_series_is_judged_on_the_metrics_that_it_has(tmp_path: Path, capsys: Capture) -> None:
    records = [*rows(GOOD, series="a"), *rows(GOOD, series="b", metric="errors"), *rows(BAD, series="c")]
    ran = serin(capsys, "replay", write_csv(tmp_path / "x.csv", records), "--margin", 0.02, "--json")
    assert [line["verdict"] for line in ran.verdicts] == ["promote", "promote", "rollback"]
    assert {(line["series"], line["metric"]) for line in ran.evidence} == {
        ("a", "accuracy"),
        ("b", "errors"),
        ("c", "accuracy"),
    }


def test_metrics_that_the_policy_does_not_name_are_refused_and_missing_ones_told(
    tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("analysis: {}\n")
    ran = serin(capsys, "replay", write_csv(tmp_path / "x.csv", rows(GOOD)), "--policy", file)
    assert ran.code == 1 and ran.out == ""
    assert "the policy has no metric accuracy; it has errors, latency" in ran.err
    ran = serin(
        capsys, "replay", write_csv(tmp_path / "y.csv", rows(GOOD, metric="errors")), "--policy", file, "--json"
    )
    assert "has no metric latency, which the policy names, so nothing is promoted" in ran.err
    assert ran.verdicts[0]["verdict"] == "hold"


def test_an_average_over_classes_is_recorded_class_by_class(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("analysis: {metrics: [{name: recall, margin: 0.05}]}\n")
    classes = {"3": GOOD[:4], "7": BAD[:4]}
    records = [row for name, blocks in classes.items() for row in rows(blocks, metric=f"recall:{name}")]
    ran = serin(capsys, "replay", write_csv(tmp_path / "x.csv", records), "--policy", file, "--json")
    test = evidence.start(tolerance=0.0, margin=0.05, strata=2)
    for blocks in zip(*classes.values(), strict=True):
        test = evidence.update(test, np.array([blocks]))
    assert {line["metric"] for line in ran.evidence} == {"recall"}
    assert ran.evidence[-1]["log_e_worse"] == pytest.approx(float(evidence.log_e_worse(test)[0]))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.csv", None, "missing.csv: "),
        ("empty.csv", b"", "empty.csv: no rows"),
        ("binary.csv", b"\xff\xfe\x00", "binary.csv: "),
        (
            "wrong.csv",
            b"time,metric,arm,failures,trials\n0,a,canary,3,2\n",
            "wrong.csv, line 2: 3 failures in 2 trials",
        ),
    ],
)
def test_a_file_that_can_not_be_used_is_told_on_standard_error(
    tmp_path: Path, capsys: Capture, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ran = serin(capsys, "replay", tmp_path / name)
    assert ran.code == 1 and ran.out == "" and told in ran.err


# --- what people read ------------------------------------------------------------------------------------------


def text(tmp_path: Path, capsys: Capture, records: list[Row], *flags: object) -> str:
    return serin(capsys, "replay", write_csv(tmp_path / "x.csv", records), "--margin", 0.02, *flags).out


def test_a_rollback_is_told_with_its_reason(tmp_path: Path, capsys: Capture) -> None:
    out = text(tmp_path, capsys, rows(BAD))
    assert "Rolled back at " in out and "(LessAccurate). accuracy: 26.7 % of " in out


def test_a_promotion_is_told_after_its_steps(tmp_path: Path, capsys: Capture) -> None:
    out = text(tmp_path, capsys, rows(GOOD), *STEPS)
    assert "Promoted at 180. accuracy: 1.0 % of 1,400 wrong" in out
    promoted = next(line for line in out.splitlines() if line.endswith("promote"))
    assert promoted.split()[:3] == ["180", "50", "%"]


def test_a_hold_is_told_with_what_is_missing(tmp_path: Path, capsys: Capture) -> None:
    out = text(tmp_path, capsys, rows(drawn(3)))
    assert "Held until the last scrape, at 60." in out
    assert "accuracy needs odds of 20 : 1 that it is worse by less than 2 points" in out


def test_an_end_of_its_time_is_told(tmp_path: Path, capsys: Capture) -> None:
    rollout = "{steps: [{weight: 5, duration: 10s}], maxDuration: 60s, onInconclusive: Rollback}"
    file = write_csv(tmp_path / "x.csv", rows(drawn(4)))
    ran = serin(capsys, "replay", file, "--policy", policy(tmp_path, rollout))
    assert "Rolled back at 60: no verdict within maxDuration (60 s)." in ran.out


def test_a_bound_that_is_broken_is_told_as_such(tmp_path: Path, capsys: Capture) -> None:
    blocks = [[12, 100, 18, 1800]] * 10
    out = text(tmp_path, capsys, rows(blocks), "--bound", 0.05, "--tolerance", 0.3, "--margin", 0.4)
    assert "(OverBound). accuracy: " in out


def test_of_a_long_series_only_changes_are_shown_and_of_many_series_only_verdicts(
    tmp_path: Path, capsys: Capture
) -> None:
    out = text(tmp_path, capsys, rows(GOOD * 5))
    assert out.count("\n") < 60
    many = [row for number in range(12) for row in rows(drawn(20, seed=number), series=number)]
    out = text(tmp_path, capsys, many)
    assert "12 series: promote " in out and out.count("\n") < 20


def test_json_lines_are_json_that_every_reader_accepts(tmp_path: Path, capsys: Capture) -> None:
    records = [*rows([[0, 0, 0, 0], [0, 0, 5, 50], [1, 10, 5, 50]])]
    ran = serin(capsys, "replay", write_csv(tmp_path / "x.csv", records), "--margin", 0.02, "--json")
    assert [line["estimate"] for line in ran.evidence] == [None, None, pytest.approx(0.0)]
    assert ran.evidence[0]["interval"] == [-1.0, 1.0]
    for line in ran.out.splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_file_has_no_pairs_and_that_is_told(capsys: Capture, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "analysis: {metrics: [{name: accuracy, margin: 0.02}]}\n"
        "rollout: {strategy: Shadow, shadow: {percent: 20, duration: 30m}, steps: [{weight: 10, duration: 10h}]}\n"
    )
    file = write_csv(tmp_path / "counts.csv", rows(GOOD * 5))
    ran = serin(capsys, "replay", file, "--policy", policy, "--json")
    assert "has no pairs of answers, by which a shadow decides accuracy; compared arm by arm" in ran.err
    assert ran.verdicts == [{"series": None, "verdict": "promote", "time": 1800}]  # lasts as the shadow does
    text = policy.read_text()
    policy.write_text(text.replace("Shadow", "Canary").replace("10h", "10m"))
    ran = serin(capsys, "replay", file, "--policy", policy, "--json")
    assert ran.verdicts == [{"series": None, "verdict": "promote", "time": 2400}]
