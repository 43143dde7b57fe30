"""The stable revision by itself, before the canary gets its first request: how much its pods scatter, and its traffic.

Its pods in two halves are two arms that differ in nothing. Where their failures differ by more than chance explains
(dispersion.py), all evidence of the rollout is discounted by that factor; it is frozen when the rollout begins.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serin_operator.api.spec import Analysis, Metric
from serin_operator.decide import dispersion, looks
from serin_operator.decide.counters import Ledger, NotACounter
from serin_operator.decide.dispersion import Dispersion
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import REQUESTS, macro, metric_key
from serin_operator.decide.lineup import classes_in, strata
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.tracks import rate

_LAYOUT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What is known of the stable revision, by key.

    since, at: the first and the last look, in seconds since the epoch. totals: counted in between.
    scatter: in the order of `ledgers`.
    """

    since: float
    at: float
    ledgers: Mapping[str, Ledger]
    totals: Mapping[str, Counts]
    scatter: Dispersion

    def rates(self) -> Mapping[str, int]:
        """Trials per time by key, as `State.rates` has them; none before a second look."""
        minutes = (self.at - self.since) / 60
        return {key: rate(total.trials, minutes) for key, total in self.totals.items()} if minutes > 0 else {}

    def per_minute(self, keys: Iterable[str]) -> float:
        """Trials per minute of these keys together; 0 before a second look."""
        minutes = (self.at - self.since) / 60
        return sum(self.totals[key].trials for key in keys if key in self.totals) / minutes if minutes > 0 else 0.0

    def phi(self, keys: Iterable[str]) -> float:
        """The overdispersion of what these keys count together, at least 1."""
        places = [i for i, key in enumerate(self.ledgers) if key in keys]
        if not places:
            return 1.0
        together = Dispersion(
            squares=self.scatter.squares[places].sum(keepdims=True),
            variance=self.scatter.variance[places].sum(keepdims=True),
            blocks=self.scatter.blocks[places].max(keepdims=True),
        )
        return float(dispersion.phi(together)[0])


def grow(before: Calibration | None, analysis: Analysis, snapshot: Snapshot, stable: str, now: float) -> Calibration:
    """With one more look at the stable revision; the first one is the base from which is counted.

    It begins anew when the clock was set back: how long it has lasted is not known.
    """
    known = before if before and before.at <= now else Calibration(now, now, {}, {}, dispersion.start(0))
    keys = keys_of(analysis, [*known.ledgers, *snapshot.samples])
    ledgers: dict[str, Ledger] = {}
    totals: dict[str, Counts] = {}
    blocks = []
    for key in keys:
        halves = (Counts(), Counts())
        if key in known.ledgers:
            ledgers[key], halves = _halves(known, key, snapshot, stable)
        else:
            ledgers[key] = looks.baseline(snapshot, key, stable)
        totals[key] = known.totals.get(key, Counts()) + halves[0] + halves[1]
        blocks.append([[halves[0].failures, halves[0].trials, halves[1].failures, halves[1].trials]])
    scatter = dispersion.grow(_aligned(known, keys), np.array(blocks, np.int64))
    return Calibration(known.since, now, ledgers, totals, scatter)


def keys_of(analysis: Analysis, known: Iterable[str]) -> list[str]:
    """Every key that the analysis counts, those of averages as far as they are among the known ones."""
    known = set(known)
    keys = [REQUESTS]
    for metric in analysis.metrics:
        keys += counted(analysis, metric, known)
    return list(dict.fromkeys(keys))


def counted(analysis: Analysis, metric: Metric, known: Iterable[str]) -> list[str]:
    """The keys that one metric counts, those of an average as far as they are among the known ones."""
    if macro(metric):
        return strata(analysis, metric, classes_in(known, metric, analysis.label_window))
    return [metric_key(metric, analysis.label_window)]


def dump(calibration: Calibration) -> str:
    """The calibration as text. `load` gives back what dumps equal."""
    value = {
        "layout": _LAYOUT,
        "since": calibration.since,
        "at": calibration.at,
        "keys": list(calibration.ledgers),
        "ledgers": [
            {series: [at.failures, at.trials] for series, at in ledger.counted.items()}
            for ledger in calibration.ledgers.values()
        ],
        "totals": [[total.failures, total.trials] for total in calibration.totals.values()],
        "scatter": dispersion.encode(calibration.scatter),
    }
    return json.dumps(value, separators=(",", ":"))


def load(text: str) -> Calibration:
    """Reads what `dump` wrote. Raises ValueError for anything else, another layout included."""
    try:
        value: dict[str, Any] = json.loads(text)
        if value["layout"] != _LAYOUT:
            raise ValueError(f"the calibration has layout {value['layout']!r}, this version reads {_LAYOUT}")
        keys = value["keys"]
        ledgers = [Ledger({series: Counts(*at) for series, at in each.items()}) for each in value["ledgers"]]
        return Calibration(
            since=float(value["since"]),
            at=float(value["at"]),
            ledgers=dict(zip(keys, ledgers, strict=True)),
            totals=dict(zip(keys, (Counts(*total) for total in value["totals"]), strict=True)),
            scatter=dispersion.decode(value["scatter"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a stored calibration: {error!r}") from error


def _halves(known: Calibration, key: str, snapshot: Snapshot, stable: str) -> tuple[Ledger, tuple[Counts, Counts]]:
    """What the first half of the processes and the other half have counted since the last look."""
    ledger = known.ledgers[key]
    samples = snapshot.samples.get(key, {}).get(stable, {})
    active = sorted(series for series, reading in samples.items() if reading.trials)
    first = set(active[: len(active) // 2])
    counted: dict[str, Counts] = {}
    halves = []
    for in_first in (True, False):
        before = Ledger({one: at for one, at in ledger.counted.items() if (one in first) is in_first})
        seen = {key: {stable: {one: at for one, at in samples.items() if (one in first) is in_first}}}
        try:
            after, counts = looks.count(before, known.since, replace(snapshot, samples=seen), key, stable)
        except NotACounter:  # the first look of the rollout tells of it
            return ledger, (Counts(), Counts())
        counted |= after.counted
        halves.append(counts)
    return Ledger(counted), (halves[0], halves[1])


def _aligned(known: Calibration, keys: list[str]) -> Dispersion:
    """Its scatter, row by row for these keys."""
    place = {key: i for i, key in enumerate(known.ledgers)}
    chosen = [place.get(key, len(place)) for key in keys]  # beyond the old ones: a new one
    old, fresh = known.scatter, dispersion.start(1)
    return Dispersion(
        *(np.concatenate([getattr(old, n), getattr(fresh, n)])[chosen] for n in ("squares", "variance", "blocks"))
    )
