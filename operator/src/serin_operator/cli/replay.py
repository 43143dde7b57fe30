"""`serin replay`: what a policy would have decided on recorded counters, scrape by scrape."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from serin_operator.api.spec import Analysis
from serin_operator.batch import Policy
from serin_operator.cli import output, policy, screen, trails
from serin_operator.cli.errors import InputError
from serin_operator.cli.records import Recording, read
from serin_operator.cli.trails import Group, Trail
from serin_operator.decide import keys


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
        replayed = [output.Replayed(None, times, trail)]
    else:
        with _opened(arguments.source) as lines:
            recording = read(arguments.source, lines)
        found = _replayed(arguments, recording)
        replayed = [output.Replayed(*each) for each in zip(recording.series, recording.shown, found, strict=True)]
    if arguments.json:
        output.write_json(replayed)
    else:
        output.write_text(replayed)


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
        decides = Policy(analysis, rollout)
        _tell_of_pairs(arguments.source, decides)
        return [Group(decides, tuple(range(len(recording.series))), columns, classes)]
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


def _tell_of_pairs(source: str, decides: Policy) -> None:
    """A file has both arms' counts, and does not say which of them are of the same request."""
    if names := [metric.name for metric, paired in zip(decides.metrics, decides.paired, strict=True) if paired]:
        text = f"{source} has no pairs of answers, by which a shadow decides {', '.join(names)}; compared arm by arm"
        print(f"serin: {text}, which takes more labels", file=sys.stderr)


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
