"""A replayed file comes to what the operator's analysis comes to on the same counts, cumulative in its snapshots."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.operator.cli.files import Row, drawn, rows, serin, write_csv

from serin_operator.api.spec import Analysis, parse_analysis, parse_rollout
from serin_operator.cli.definition import completed
from serin_operator.decide import analysis, tracks
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import class_key, macro, metric_key
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.standings import standings
from serin_operator.decide.verdict import Action

INTERVAL = 30
BEGAN = 1_750_000_000.0
SERIES = {"canary": "c/1750000001", "stable": "s/1750000001"}  # pods that started after the rollout's begin
POLICY = """\
analysis:
  warmUp: 1
  metrics:
    - {name: errors, margin: 0.03, tolerance: 0.001, bound: 0.1}
    - {name: accuracy, margin: 0.02, weight: 3, goal: Superior}
    - {name: f1, margin: 0.1, role: Gate}
rollout:
  steps: [{weight: 5, duration: 60s}, {weight: 50, duration: 90s}]
"""


def recorded(canary: float) -> list[Row]:
    """Twelve scrapes; the third one saw nothing at all."""
    blocks = {name: drawn(12, canary, seed=seed) for seed, name in enumerate(["errors", "accuracy", "f1:a", "f1:b"])}
    for of_metric in blocks.values():
        of_metric[2] = [0, 0, 0, 0]
    return [row for name, of_metric in blocks.items() for row in rows(of_metric, metric=name, interval=INTERVAL)]


def snapshots(asked: Analysis, records: list[Row]) -> list[Snapshot]:
    """What the operator reads: counters that only rise."""
    key_of = {metric.name: metric_key(metric, 0) for metric in asked.metrics if not macro(metric)}
    key_of |= {f"{m.name}:{label}": class_key(m, label, 0) for m in asked.metrics if macro(m) for label in "ab"}
    total: dict[tuple[str, str], Counts] = defaultdict(Counts)
    found = []
    for time in sorted({row["time"] for row in records}):
        for row in records:
            if row["time"] == time:
                total[key_of[row["metric"]], row["arm"]] += Counts(row["failures"], row["trials"])
        samples: dict[str, dict[str, dict[str, Counts]]] = defaultdict(dict)
        for (key, arm), counts in total.items():
            samples[key][arm] = {SERIES[arm]: counts}
        found.append(Snapshot(dict(samples), frozenset(SERIES.values()), frozenset({"c", "s"})))
    return found


@pytest.mark.parametrize("canary", [0.0, 0.05, 0.15])
def test_a_replayed_file_is_the_operators_analysis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], canary: float
) -> None:
    records = recorded(canary)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    replayed = serin(capsys, "replay", write_csv(tmp_path / "x.csv", records), "--policy", policy, "--json")

    parts = yaml.safe_load(POLICY)
    asked = parse_analysis(completed("analysis", parts["analysis"]))
    ends = np.cumsum([step.duration for step in parse_rollout(completed("rollout", parts["rollout"])).steps])
    looks = snapshots(asked, records)
    before = replace(looks[0], samples={key: {} for key in looks[0].samples})
    state = analysis.step(asked, analysis.begin(asked, before, "canary", "stable", BEGAN))
    lines = iter(replayed.evidence)
    verdict = "hold"
    for number, snapshot in enumerate(looks):
        elapsed = number * INTERVAL
        judged = analysis.judge(asked, state, snapshot, "canary", "stable", BEGAN + 10 + elapsed, weight=None)
        state = judged.state
        found = standings(tracks.load(state), asked)
        for tested, standing in zip(found.tested, found.verdicts, strict=True):
            line = next(lines)
            numbers = tested.numbers
            assert (line["metric"], line["time"]) == (tested.metric.name, elapsed)
            assert line["estimate"] == (pytest.approx(numbers.difference) if numbers.seen else None)
            assert line["interval"] == [pytest.approx(numbers.low), pytest.approx(numbers.high)]
            assert line["log_e_worse"] == pytest.approx(standing.log_e_worse)
            assert line["log_e_promote"] == pytest.approx(standing.log_e_goal)
        if verdict == "hold" and judged.verdict.action is Action.ROLL_BACK:
            verdict = "rollback"
        if verdict == "hold" and judged.verdict.action is Action.PROMOTE and elapsed >= ends[-1]:
            verdict = "promote"
        if elapsed == ends[0]:
            state = analysis.step(asked, state)
    assert next(lines, None) is None
    assert replayed.verdicts[0]["verdict"] == verdict
