"""The watch for drift: rows of the stable revision are gathered over a period, then tested, and told as a condition.

It decides nothing: no rollout waits for it or is moved by it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from serin_operator.api.spec import Drift as Rules
from serin_operator.api.status import Drift, Status
from serin_operator.decide import drift
from serin_operator.decide.observed import DriftReading, Observed
from serin_operator.decide.projection import Array, Integers
from serin_operator.decide.sums import pack, rounded_down, unpack
from serin_operator.decide.words import count, odds, percent, shares, to_one

CONDITION = "Drifted"
LEAST_ROWS = 1000  # a period goes on until it has so many: the test can say little about fewer
_MOST_LOOK_SECONDS = 60.0
_LOOKS_A_PERIOD = 10
_LAYOUT = 1
_MOST_NAMED = 5
_ROUNDING = 0.01  # the most that is kept of a sum is so much over what makes an alarm, to be that after rounding too


@dataclass(frozen=True, slots=True)
class Told:
    """What the condition says; `status` is "True", "False" or "Unknown"."""

    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """tolerance: what the sums were tested against. sums: (F,). pending: per feature, rows of this period per bin."""

    tolerance: float
    sums: Array
    pending: tuple[Integers, ...]


def next_look(status: Status, rules: Rules | None) -> float | None:
    """When the bins are to be read again; None when nothing is watched."""
    if rules is None or status.stable is None or status.stable.profile is None:
        return None
    if status.drift is None or status.drift.revision != status.stable.revision:
        return 0.0
    return status.drift.at + min(_MOST_LOOK_SECONDS, rules.period / _LOOKS_A_PERIOD)


def follow(observed: Observed, status: Status, now: float) -> tuple[Status, Told | None]:
    """The status after what this pass has read, and what the condition says; None without a profile."""
    stable, rules, reading = status.stable, observed.spec.analysis.drift, observed.drift
    if stable is None or stable.profile is None or rules is None:
        return replace(status, drift=None), None
    if status.drift is not None and status.drift.revision != stable.revision:
        status = replace(status, drift=None)
    before = status.condition(CONDITION) if status.drift else None
    told = Told(before.status, before.reason, before.message) if before else _gathering(status.drift)
    if reading is None or (status.drift is not None and reading.at <= status.drift.at):
        return status, told
    if reading.problem or not reading.features:
        problem = reading.problem or "the model servers count nothing in bins: does their image know profiles?"
        stale = status.drift is None or now - status.drift.at > rules.period
        return status, Told("Unknown", "CannotSee", f"The bins can not be read: {problem}") if stale else told
    found, verdict = _counted(status.drift, stable.revision, reading, rules)
    if verdict is None and (before is None or before.status == "Unknown"):
        verdict = _gathering(found)
    return replace(status, drift=found), verdict or told


def _counted(known: Drift | None, revision: str, reading: DriftReading, rules: Rules) -> tuple[Drift, Told | None]:
    """The watch with the rows of a reading, and what a period says that ends with it."""
    state = _load(known.evidence, reading.features) if known else None
    if known is None or state is None:
        known = Drift(revision, since=reading.at, at=reading.at)
        state = _State(rules.tolerance, np.full(len(reading.features), -math.inf), _nothing(reading.features))
    if rules.tolerance > state.tolerance:  # what was beyond the old tolerance need not be beyond this one
        state = replace(state, sums=np.full_like(state.sums, -math.inf))
    pending = tuple(before + new for before, new in zip(state.pending, reading.live, strict=True))
    state = _State(rules.tolerance, state.sums, pending)
    rows = max((int(each.sum()) for each in pending), default=0)
    told = None
    if reading.at - known.since >= rules.period and rows >= LEAST_ROWS:
        state, told = _judged(state, reading.features, rules)
        known = replace(known, since=reading.at, periods=known.periods + 1, odds=odds(drift.log_mean(state.sums)))
        rows = 0
    return replace(known, at=reading.at, rows=rows, evidence=_dump(state)), told


def _judged(state: _State, features: Sequence[drift.Feature], rules: Rules) -> tuple[_State, Told]:
    """The end of a period: the test's next state, without pending rows, and what it says."""
    limit = -math.log(rules.false_alarm_rate)
    alone = limit + math.log(len(features))  # with this a feature makes the alarm by itself
    found = drift.log_e(features, state.pending, rules.tolerance)
    sums = rounded_down(drift.advance(state.sums, found, log_most=alone + _ROUNDING)).astype(np.float64)
    distances = [
        drift.furthest(feature, rows)
        for feature, rows in zip(features, state.pending, strict=True)
        if rows.sum() and sum(feature.reference) and len(feature.bins) > 1
    ]
    rows = max(int(each.sum()) for each in state.pending)
    after = replace(state, sums=sums, pending=_nothing(features))
    if drift.log_mean(sums) < limit:
        return after, Told("False", "NoDriftFound", _no_drift(distances, rows, rules))
    names = {feature.name for feature, each in zip(features, sums, strict=True) if each >= alone}
    names = names or {features[int(np.argmax(sums))].name}
    return after, Told("True", "DriftFound", _drift_found([d for d in distances if d.feature in names], rows, rules))


def _gathering(known: Drift | None) -> Told:
    rows = known.rows if known else 0
    text = f"{count(rows)} rows of the first period so far; it takes {count(LEAST_ROWS)} at least."
    return Told("Unknown", "GatheringRows", text)


def _drift_found(distances: Sequence[drift.Distance], rows: int, rules: Rules) -> str:
    shown = sorted(distances, key=lambda each: each.reference - each.live)
    more = f"; and {len(shown) - _MOST_NAMED} more features" if len(shown) > _MOST_NAMED else ""
    return (
        f"Of {count(rows)} rows, {'; '.join(map(_far, shown[:_MOST_NAMED]))}{more}. That is further from the reference "
        f"than {percent(rules.tolerance)} of the rows, with odds of {to_one(1 / rules.false_alarm_rate)} or more."
    )


def _no_drift(distances: Sequence[drift.Distance], rows: int, rules: Rules) -> str:
    text = f"No feature is shown to be further from the reference than {percent(rules.tolerance)} of the rows."
    if not distances:
        return text
    worst = max(distances, key=lambda each: each.live - each.reference)
    return f"{text} The furthest of the last {count(rows)} rows: {_far(worst)}."


def _far(distance: drift.Distance) -> str:
    live, reference = shares(distance.live, distance.reference)
    return f"{distance.feature} {distance.event}: {live}, {reference} in the reference"


def _nothing(features: Iterable[drift.Feature]) -> tuple[Integers, ...]:
    return tuple(np.zeros(len(feature.bins), np.int64) for feature in features)


def _dump(state: _State) -> str:
    pending = [int(rows) for each in state.pending for rows in each]
    sizes = [len(each) for each in state.pending]
    return pack([_LAYOUT, *sizes, *pending], [state.tolerance], state.sums.astype(np.float32))


def _load(text: str, features: Sequence[drift.Feature]) -> _State | None:
    """What `_dump` wrote for features with as many bins; None for anything else, with which gathering begins anew."""
    sizes = [len(feature.bins) for feature in features]
    try:
        integers, doubles, singles = unpack(text)
    except ValueError:
        return None
    if integers[: len(sizes) + 1] != [_LAYOUT, *sizes] or len(integers) != 1 + len(sizes) + sum(sizes):
        return None
    if len(doubles) != 1 or len(singles) != len(sizes):
        return None
    pending = np.split(np.array(integers[1 + len(sizes) :], np.int64), np.cumsum(sizes)[:-1])
    return _State(float(doubles[0]), singles.astype(np.float64), tuple(pending))
