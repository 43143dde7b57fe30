"""What a replay shows: JSON lines for programs; tables, and sentences in the words of status, for people."""

import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from serin_operator.api.spec import Step
from serin_operator.batch import SHADOW, Policy
from serin_operator.cli import screen
from serin_operator.cli.records import Label
from serin_operator.cli.trails import End, Ending, Trail
from serin_operator.decide import reports, words
from serin_operator.decide.verdict import Finding

_MOST_TABLES = 10  # series; of more, only the verdicts are shown
_MOST_ROWS = 40  # of a table; of more, only the scrapes at which something changed are shown


class Replayed(NamedTuple):
    """One series: its name, None where there is but one; the times of its scrapes as the source has them; its trail."""

    series: Label | None
    shown: Sequence[float | int | str]
    trail: Trail


def write_json(replayed: Sequence[Replayed]) -> None:
    """One object per series, scrape and metric, then one per series with its verdict."""
    write = sys.stdout.write
    for series, shown, trail in replayed:
        metrics = _recorded(trail)
        values = np.stack([trail.estimate, trail.low, trail.high, trail.log_e_worse, trail.log_e_promote], axis=-1)
        for time, row in zip(shown, values.tolist(), strict=True):
            for place, name in metrics:
                estimate, low, high, worse, promote = row[place]
                line = {
                    "series": series,
                    "time": time,
                    "metric": name,
                    "estimate": None if math.isnan(estimate) else estimate,
                    "interval": [low, high],
                    "log_e_worse": worse,
                    "log_e_promote": promote,
                }
                write(json.dumps(line) + "\n")
    for series, shown, trail in replayed:
        end = {"series": series, "verdict": trail.end.ending, "time": shown[trail.end.scrape]}
        write(json.dumps(end) + "\n")


def write_text(replayed: Sequence[Replayed]) -> None:
    """A table and a sentence per series; of many series a row each."""
    if len(replayed) > _MOST_TABLES:
        _write_verdicts(replayed)
        return
    for number, (series, shown, trail) in enumerate(replayed):
        if series is not None:
            print(f"Series {series}" if number == 0 else f"\nSeries {series}")
        _write_steps(shown, trail)
        screen.say(ending(trail.group.policy, trail.end, str(shown[trail.end.scrape])))


def ending(policy: Policy, end: End, when: str) -> str:
    """What the policy would have done and why. when: the time of the verdict."""
    if end.because is not None:
        report = next(report for report in end.reports if report.name == end.because.metric)
        return f"Rolled back at {when} ({_reason(policy, end)}). {report.name}: {report.message}"
    if end.inconclusive:
        return f"Rolled back at {when}: no verdict within maxDuration ({words.duration(policy.max_duration / 60)})."
    sentences = " ".join(f"{report.name}: {report.message}" for report in end.reports)
    if end.ending is Ending.PROMOTE:
        return f"Promoted at {when}. {sentences}"
    needs = "".join(f" {report.name} {report.needed}" for report in end.reports if report.needed)
    return f"Held until the last scrape, at {when}. {sentences}{needs}"


def _recorded(trail: Trail) -> list[tuple[int, str]]:
    """Places and names of the policy's metrics that were recorded."""
    pairs = zip(trail.group.policy.metrics, trail.group.columns, strict=True)
    return [(place, metric.name) for place, (metric, columns) in enumerate(pairs) if columns]


def _write_steps(shown: Sequence[float | int | str], trail: Trail) -> None:
    """A row per scrape and metric; of many scrapes, those at which an interval or the step changed."""
    steps, metrics = trail.group.policy.steps, _recorded(trail)
    scrapes = list(range(len(shown)))
    if len(scrapes) * len(metrics) > _MOST_ROWS:
        state = np.concatenate([trail.low, trail.high, trail.step[:, None]], axis=1)
        changed = np.flatnonzero((np.diff(state, axis=0) != 0).any(axis=1)) + 1
        scrapes = sorted({0, *changed.tolist(), trail.end.scrape, len(shown) - 1})
    rows = []
    for scrape in scrapes:
        began = [str(shown[scrape]), *([_given(steps, int(trail.step[scrape]))] if steps else [])]
        for number, (place, name) in enumerate(metrics):
            estimate = float(trail.estimate[scrape, place])
            seen = "no data yet"
            if not math.isnan(estimate):
                seen = words.within(estimate, float(trail.low[scrape, place]), float(trail.high[scrape, place]))
            odds = (words.odds(float(log[scrape, place])) for log in (trail.log_e_worse, trail.log_e_promote))
            verdict = trail.end.ending if scrape == trail.end.scrape and number == 0 else ""
            rows.append([*(began if number == 0 else [""] * len(began)), name, seen, *map(words.to_one, odds), verdict])
    headings = ["time", *(["canary gets"] if steps else []), "metric", "canary minus stable"]
    headings += ["odds worse", "odds for promotion", "verdict"]
    texts = {headings.index(text) for text in ("time", "metric", "canary minus stable", "verdict")}
    screen.table(headings, rows, left=texts)


def _given(steps: Sequence[Step], step: int) -> str:
    return "copies" if step == SHADOW else f"{steps[step].weight} %"


def _write_verdicts(replayed: Sequence[Replayed]) -> None:
    """A row per series, and how many ended in which way."""
    rows = []
    for series, shown, trail in replayed:
        because = trail.end.because.metric if trail.end.because else "inconclusive" if trail.end.inconclusive else ""
        rows.append([str(series), trail.end.ending, str(shown[trail.end.scrape]), because or ""])
    screen.table(["series", "verdict", "time", "because of"], rows, left={0, 1, 3})
    endings = Counter(trail.end.ending for _, _, trail in replayed)
    counted = ", ".join(f"{ending} {endings[ending]}" for ending in Ending)
    screen.say(f"{len(replayed):,} series: {counted}.")


def _reason(policy: Policy, end: End) -> str:
    """The operator's reason for a rollback."""
    because = end.because
    assert because
    if because.finding is Finding.OVER_BOUND:
        return reports.OVER_BOUND
    metric = next(metric for metric in policy.metrics if metric.name == because.metric)
    return reports.ROLLBACK_REASONS[metric.type]
