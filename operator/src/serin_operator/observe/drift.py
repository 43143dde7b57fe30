"""From the model servers' counters of bins to the rows since the last reading, with the reference beside them.

What was counted is remembered in the operator's memory only: after its restart the first reading is the baseline, and
the rows in between are lost. No row counts twice.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from serin_operator.decide.drift import Feature
from serin_operator.decide.observed import DriftReading
from serin_operator.observe.cache import Place
from serin_operator.observe.pods import Pod
from serin_operator.observe.prometheus import Prometheus, read_prometheus
from serin_operator.observe.samples import STARTED, Point, Wanted
from serin_operator.observe.scrape import scrape

# Of more features the first by name are tested, so that what is remembered of them stays small.
MOST_FEATURES = 60
_BINS = "serin_feature_bin_total"
_RATIOS = "serin_feature_reference_ratio"
_ROWS = "serin_feature_reference_rows"
_WANTED = Wanted((STARTED, _BINS, _RATIOS, _ROWS), "")

Bin = tuple[str, str]  # feature and bin


@dataclass(frozen=True, slots=True)
class DriftLedger:
    """How far each process of a revision is counted, at a time in seconds since 1970."""

    revision: str
    at: float
    counted: Mapping[str, Mapping[Bin, int]] = field(default_factory=dict)


async def look_for_drift(
    session: aiohttp.ClientSession,
    address: str | None,
    place: Place,
    pods: Iterable[Pod],
    revision: str,
    known: DriftLedger | None,
    now: float,
) -> tuple[DriftReading, DriftLedger | None]:
    """Reads the bins of a revision's pods, from the Prometheus at `address` or else from the pods."""
    own = [pod for pod in pods if pod.component == "server" and pod.revision == revision]
    serving = [pod for pod in own if pod.serving]
    if address:
        reading = await read_prometheus(Prometheus(session, address), place[0], serving, _WANTED)
    else:
        reading = await scrape(session, serving, _WANTED)
    if reading.problem or not reading.processes:
        why = "; ".join(f"{name}: {why}" for name, why in reading.unread.items()) or "no pod serves"
        return DriftReading(now, problem=reading.problem or why), known
    points = [point for point in reading.points if point.labels.get("revision") == revision]
    known = known if known and known.revision == revision else None
    return arrange(points, reading.processes, {pod.name for pod in own}, revision, known, now)


def arrange(
    points: Iterable[Point],
    processes: Iterable[str],
    pods: set[str],
    revision: str,
    known: DriftLedger | None,
    now: float,
) -> tuple[DriftReading, DriftLedger]:
    """What these points show beyond the ledger, and the ledger after it. pods: those that exist."""
    found: dict[str, dict[Bin, int]] = {process: {} for process in processes}
    ratios: dict[str, dict[str, float]] = defaultdict(dict)
    rows: dict[str, int] = {}
    for point in points:
        feature, name = point.labels.get("feature", ""), point.labels.get("bin", "")
        if point.name == _BINS:
            found[point.series][feature, name] = int(point.value)
        elif point.name == _RATIOS:
            ratios[feature][name] = point.value
        elif point.name == _ROWS:
            rows[feature] = int(point.value)
    features = tuple(
        Feature(
            name,
            tuple(sorted(ratios[name])),
            tuple(round(ratios[name][each] * rows[name]) for each in sorted(ratios[name])),
        )
        for name in sorted(ratios.keys() & rows.keys())[:MOST_FEATURES]
    )
    live: dict[Bin, int] = defaultdict(int)
    found = {process: counts for process, counts in found.items() if not _is_earlier(process, counts, known)}
    for process, counts in found.items():
        for key, amount in _since(process, counts, known).items():
            live[key] += amount
    gone = {} if known is None else {s: c for s, c in known.counted.items() if s.partition("/")[0] in pods}
    reading = DriftReading(
        now,
        features,
        tuple(np.array([live[feature.name, name] for name in feature.bins], np.int64) for feature in features),
    )
    return reading, DriftLedger(revision, now, gone | found)


def _since(process: str, counts: Mapping[Bin, int], known: DriftLedger | None) -> Mapping[Bin, int]:
    """What a process counted since the ledger; all of it when it started after that, nothing when it is not known."""
    before = known.counted.get(process) if known else None
    if before is None:
        return counts if known and float(process.rpartition("/")[2]) >= known.at else {}
    return {key: amount - before.get(key, 0) for key, amount in counts.items()}


def _is_earlier(process: str, counts: Mapping[Bin, int], known: DriftLedger | None) -> bool:
    """Whether this was read before what is counted already, as from a Prometheus that lags behind another one."""
    before = known.counted.get(process, {}) if known else {}
    return any(amount < before.get(key, 0) for key, amount in counts.items())
