"""Custom metrics: the user's pair of PromQL queries for each revision, and whether they can be evidence.

Evidence is made of what counters have counted, so a query must give counters as they are: series that start at 0,
rise by whole numbers and fall only when their process restarts. Each series of the answer is counted by itself, told
apart by its labels. When its process started is not known, so it is `unclocked` (see `Snapshot`).
"""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from serin_operator.api.spec import Metric
from serin_operator.decide.evidence import Counts
from serin_operator.observe.prometheus import Prometheus, PrometheusError

SERIES = "custom"  # what a custom series has in place of its pod's name
_NOT_COUNTERS = {"gauge", "gaugehistogram", "info", "stateset"}
_PARTS = ("_total", "_bucket", "_count", "_sum")  # suffixes of series; metadata may know the family without them

_PLACEHOLDER = re.compile(r"\$(namespace|name|revision)\b")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`|#.*')  # strings, and a comment
_CHANGES = re.compile(
    r"(?<![\w:])(i?rate|increase|i?delta|deriv|predict_linear|resets|changes|[a-z0-9_]+_over_time)\s*\("
)
_NAMED = re.compile(r"""__name__\s*=\s*["']([a-zA-Z_:][\w:]*)["']""")
# What no metric's name stands in: label matchers, ranges, lists of labels, offsets.
_ASIDE = re.compile(
    r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\boffset\s+-?\w+",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\w:])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
_KEYWORDS = {"and", "or", "unless", "bool", "atan2", "inf", "nan"}


class _UnfitError(Exception):
    """A query that is no evidence. The text says why."""


@dataclass(frozen=True, slots=True)
class CustomReading:
    """One look at custom metrics. samples: by metric's name, revision and series. unread: what is wrong with one."""

    samples: Mapping[str, Mapping[str, Mapping[str, Counts]]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def series(self) -> frozenset[str]:
        """All series that were read."""
        return frozenset(one for arms in self.samples.values() for found in arms.values() for one in found)


async def read_custom(
    server: Prometheus, place: tuple[str, str], metrics: Sequence[Metric], arms: Collection[str], now: float
) -> CustomReading:
    """Asks both queries of each metric for each arm, all at the same moment `now`.

    place: namespace and name of the ModelDeployment. A metric that can not be evidence is `unread`, the others count.
    """
    answers = await asyncio.gather(*(_read(server, place, metric, arms, now) for metric in metrics))
    samples, unread = {}, {}
    for metric, answer in zip(metrics, answers, strict=True):
        if isinstance(answer, str):
            unread[metric.name] = answer
        else:
            samples[metric.name] = answer
    return CustomReading(samples, unread)


async def _read(
    server: Prometheus, place: tuple[str, str], metric: Metric, arms: Collection[str], now: float
) -> Mapping[str, Mapping[str, Counts]] | str:
    """The counts by arm and series, or what is wrong."""
    if metric.queries is None:
        raise ValueError(f"metric {metric.name} has no queries")
    found: list[dict[str, dict[str, int]]] = []
    for asking, query in (("failures", metric.queries.failures), ("trials", metric.queries.trials)):
        try:
            check(query)
            found.append(await _count(server, {arm: fill(query, place, arm) for arm in arms}, now))
        except _UnfitError as error:
            return f"the query of {asking} {error}"
        except PrometheusError as error:
            return f"the query of {asking} at {server.address}: {error}"
    failures, trials = found
    lost = sum(len(failures[arm].keys() - trials[arm].keys()) for arm in arms)
    if lost:
        return (
            f"the query of trials gives none for {lost} of the series of failures: both must have the same labels, "
            "such as by the same sum by (…) around both"
        )
    return {arm: _joined(failures[arm], trials[arm]) for arm in arms}


async def _count(server: Prometheus, queries: Mapping[str, str], now: float) -> dict[str, dict[str, int]]:
    """What each arm's query counts, by series."""
    metrics = names(next(iter(queries.values()), ""))
    await _check_types(server, metrics)
    answers = await asyncio.gather(*(server.instant(query, now) for query in queries.values()))
    if not any(answers):
        await _check_existence(server, metrics, now)
    return {arm: _whole(answer) for arm, answer in zip(queries, answers, strict=True)}


def fill(query: str, place: tuple[str, str], revision: str) -> str:
    """The query with `$namespace`, `$name` and `$revision` put in."""
    values = {"namespace": place[0], "name": place[1], "revision": revision}
    return _PLACEHOLDER.sub(lambda found: values[found[1]], query)


def check(query: str) -> None:
    """Raises _UnfitError for a query that can be told to be unfit from its text."""
    if "revision" not in _PLACEHOLDER.findall(query):
        raise _UnfitError("has no $revision, so it counts the same for both revisions")
    if found := _CHANGES.search(_QUOTED.sub('""', query)):
        raise _UnfitError(f"uses {found[1]}(), which does not count; ask for the counter itself")


def names(query: str) -> list[str]:
    """The metrics in a query, as far as its text shows them."""
    words = _WORD.findall(_ASIDE.sub(" ", _QUOTED.sub('""', query)))
    return sorted({*_NAMED.findall(query), *(word for word in words if word.lower() not in _KEYWORDS)})


async def _check_types(server: Prometheus, found: Sequence[str]) -> None:
    for name in found:
        families = [name, *(name.removesuffix(part) for part in _PARTS if name.endswith(part))]
        types = set().union(*await asyncio.gather(*(server.types(family) for family in families)))
        if types and types <= _NOT_COUNTERS:
            raise _UnfitError(f"reads {name}, which is a {min(types)}, not a counter")


async def _check_existence(server: Prometheus, found: Sequence[str], now: float) -> None:
    """A query that finds nothing for any arm may have a misspelt name, and would then never find a failure."""
    if found and not await server.instant(f'count({{__name__=~"{"|".join(found)}"}})', now):
        raise _UnfitError(
            f"finds nothing, and there is no series of {' or '.join(found)}: check the name; a counter has to be there "
            "before it counts, so let it start at 0"
        )


def _whole(answer: Sequence[tuple[Mapping[str, str], float]]) -> dict[str, int]:
    """The value of each series, by the series' key."""
    found: dict[str, int] = {}
    for labels, value in answer:
        identity = {name: text for name, text in sorted(labels.items()) if name != "__name__"}
        if not identity:
            raise _UnfitError("adds up all pods, so a restart can not be seen; keep them apart with: sum by (pod) (…)")
        shown = "{" + ",".join(f'{name}="{text}"' for name, text in identity.items()) + "}"
        if not (math.isfinite(value) and value >= 0 and value == int(value)):
            raise _UnfitError(f"gives {value:g} for {shown}, which is no count")
        key = f"{SERIES}/{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]}"
        if key in found:
            raise _UnfitError(f"gives {shown} twice, under two names; keep one")
        found[key] = int(value)
    return found


def _joined(failures: Mapping[str, int], trials: Mapping[str, int]) -> Mapping[str, Counts]:
    """Failures with the trials of the same series; a series without failures has had none yet.

    Even at one moment the two can come from different scrapes: a failure whose trial is not there yet waits for it.
    """
    return {series: Counts(min(failures.get(series, 0), n), n) for series, n in trials.items()}
