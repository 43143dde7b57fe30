"""`serin replay`: what a policy would have decided on recorded counters, scrape by scrape."""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from serin_operator.api.spec import Analysis
from serin_operator.batch import Policy
from serin_operator.cli import policy, screen, sentences, trails
from serin_operator.cli.errors import InputError
from serin_operator.cli.records import Label, Recording, read
from serin_operator.cli.trails import Ending, Group, Trail
from serin_operator.decide import keys, words

_MOST_TABLES = 10  # series; of more, only the verdicts are shown
_MOST_ROWS = 30  # scrapes; of more, only those at which something changed


class Replayed(NamedTuple):
    """One series: its name, None where there is but one; the times of its scrapes as the source has them; its trail."""

    series: Label | None
    shown: Sequence[float | int | str]
    trail: Trail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    text = "CSV or JSONL with one row per scrape, metric and arm, - for standard input; or the word prometheus"
    parser.add_argument("source", metavar="FILE|prometheus", help=text)
    text = "one object per series, scrape and metric, then one per series with its verdict"
    parser.add_argument("--json", action="store_true", help=text)
    text = "overdispersion, if failures come in bursts (1); files only, Prometheus shows it"
    parser.add_argument("--dispersion", type=policy.dispersion, default=1.0, metavar="PHI", help=text)
    _add_prometheus(parser)
    policy.add_arguments(parser)


def _add_prometheus(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "prometheus", "for `serin replay prometheus`; times are RFC 3339 or seconds since 1970"
    )
    group.add_argument("--address", metavar="URL", help="the server, such as http://prometheus.monitoring:9090")
    group.add_argument("--namespace", help="of the ModelDeployment")
    group.add_argument("--name", help="of the ModelDeployment")
    group.add_argument("--canary", metavar="REVISION", help="as in status.history[].toRevision")
    group.add_argument("--stable", metavar="REVISION", help="as in status.history[].fromRevision")
    group.add_argument("--start", type=policy.time, metavar="TIME", help="when the canary got its first request")
    group.add_argument("--end", type=policy.time, metavar="TIME", help="when to stop looking")
    group.add_argument("--step", type=policy.duration, metavar="TIME", help="between two looks (the policy's interval)")


def run(arguments: argparse.Namespace) -> None:
    """Prints the evidence and the verdicts. Raises InputError."""
    if arguments.source == "prometheus":
        from serin_operator.cli import prometheus  # brings an HTTP client, which files need not wait for

        times, trail = prometheus.replayed(arguments)
        replayed = [Replayed(None, times, trail)]
    else:
        with _opened(arguments.source) as lines:
            recording = read(arguments.source, lines)
        found = _replayed(arguments, recording)
        replayed = [Replayed(*each) for each in zip(recording.series, recording.shown, found, strict=True)]
    if arguments.json:
        _write_json(replayed)
    else:
        _print(replayed)


@contextmanager
def _opened(source: str) -> Iterator[Iterable[str]]:
    if source == "-":
        yield sys.stdin
        return
    try:
        with open(source, encoding="utf-8", newline="") as lines:
            yield lines
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {error}") from error


def _replayed(arguments: argparse.Namespace, recording: Recording) -> list[Trail]:
    """The trails, in the order of the file."""
    whole, done = sum(map(len, recording.times)), 0
    found: dict[int, Trail] = {}
    with screen.progress("replaying") as tell:

        def advance(scrapes: int) -> None:
            nonlocal done
            done += scrapes
            tell(done / whole)

        for group in _groups(arguments, recording):
            found |= trails.replay(recording, group, phi=arguments.dispersion, progress=advance)
    return [found[number] for number in range(len(recording.series))]


# --- which policy is for which series --------------------------------------------------------------------------


def _groups(arguments: argparse.Namespace, recording: Recording) -> list[Group]:
    """All series under the policy of the file; without one, under the metrics that each series has."""
    if arguments.policy:
        analysis, rollout = policy.resolve(arguments, ())
        columns, classes = _places(arguments.source, analysis, recording.metrics)
        return [Group(Policy(analysis, rollout), tuple(range(len(recording.series))), columns, classes)]
    analysis, rollout = policy.resolve(arguments, recording.metrics)
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(recording.measured()):
        alike.setdefault(tuple(np.flatnonzero(row).tolist()), []).append(number)
    return [
        Group(
            Policy(replace(analysis, metrics=tuple(analysis.metrics[place] for place in places)), rollout),
            tuple(series),
            tuple((place,) for place in places),
            ((),) * len(places),
        )
        for places, series in alike.items()
    ]


def _places(
    source: str, analysis: Analysis, recorded: Sequence[str]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[str, ...], ...]]:
    """Per metric of the policy, its places in the recording, and the names of its classes."""
    columns, classes = [], []
    for metric in analysis.metrics:
        if keys.macro(metric):
            of_class = {
                name.partition(":")[2]: i for i, name in enumerate(recorded) if name.startswith(f"{metric.name}:")
            }
            classes.append(tuple(sorted(of_class)))
            columns.append(tuple(of_class[name] for name in sorted(of_class)))
        else:
            classes.append(())
            columns.append((recorded.index(metric.name),) if metric.name in recorded else ())
        if not columns[-1]:
            needs = ", so nothing is promoted" if metric.gates else ""
            print(f"serin: {source} has no metric {metric.name}, which the policy names{needs}", file=sys.stderr)
    placed = {place for places in columns for place in places}
    if unknown := [name for i, name in enumerate(recorded) if i not in placed]:
        names = ", ".join(f"{m.name}:CLASS" if keys.macro(m) else m.name for m in analysis.metrics)
        raise InputError(
            f"{source}: the policy has no metric {', '.join(unknown)}; it has {names}. Rename one or remove its rows"
        )
    return tuple(columns), tuple(classes)


# --- output ----------------------------------------------------------------------------------------------------


def _write_json(replayed: Sequence[Replayed]) -> None:
    write = sys.stdout.write
    for series, shown, trail in replayed:
        names = [metric.name for metric in trail.group.policy.metrics]
        values = np.stack([trail.estimate, trail.low, trail.high, trail.log_e_worse, trail.log_e_promote], axis=-1)
        for time, row in zip(shown, values.tolist(), strict=True):
            for name, (estimate, low, high, worse, promote) in zip(names, row, strict=True):
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


def _print(replayed: Sequence[Replayed]) -> None:
    if len(replayed) > _MOST_TABLES:
        _print_verdicts(replayed)
        return
    for series, shown, trail in replayed:
        if series is not None:
            print(f"Series {series}")
        _print_steps(shown, trail)
        print(sentences.ending(trail.group.policy, trail.end, str(shown[trail.end.scrape])))
        print()


def _print_steps(shown: Sequence[float | int | str], trail: Trail) -> None:
    """A row per scrape and metric; of many scrapes, those at which an interval or the step changed."""
    steps = trail.group.policy.steps
    scrapes = list(range(len(shown)))
    if len(scrapes) > _MOST_ROWS:
        state = np.concatenate([trail.low, trail.high, trail.step[:, None]], axis=1)
        changed = np.flatnonzero((np.diff(state, axis=0) != 0).any(axis=1)) + 1
        scrapes = sorted({0, *changed.tolist(), trail.end.scrape, len(shown) - 1})
    rows = []
    for scrape in scrapes:
        weight = f"{steps[trail.step[scrape]].weight} %" if steps else ""
        for place, metric in enumerate(trail.group.policy.metrics):
            estimate = float(trail.estimate[scrape, place])
            seen = "no data yet"
            if not math.isnan(estimate):
                seen = words.within(estimate, float(trail.low[scrape, place]), float(trail.high[scrape, place]))
            odds = (words.odds(float(log[scrape, place])) for log in (trail.log_e_worse, trail.log_e_promote))
            verdict = trail.end.ending if scrape == trail.end.scrape and place == 0 else ""
            rows.append([str(shown[scrape]), weight, metric.name, seen, *map(words.to_one, odds), verdict])
    headings = ["time", "step", "metric", "canary minus stable", "odds worse", "odds for promotion", "verdict"]
    screen.table(headings, rows, left=(0, 2, 3, 6))


def _print_verdicts(replayed: Sequence[Replayed]) -> None:
    """A row per series, and how many ended in which way."""
    rows = []
    for series, shown, trail in replayed:
        because = trail.end.because.metric if trail.end.because else "inconclusive" if trail.end.inconclusive else ""
        rows.append([str(series), trail.end.ending, str(shown[trail.end.scrape]), because or ""])
    screen.table(["series", "verdict", "time", "because of"], rows, left=(0, 1, 3))
    endings = Counter(trail.end.ending for _, _, trail in replayed)
    counted = ", ".join(f"{ending} {endings[ending]}" for ending in Ending)
    print(f"{len(replayed):,} series: {counted}.")
