"""Which tests an analysis asks for, and how they start, stay or go when it is edited while a rollout runs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from serin_operator.api.spec import Analysis, Metric
from serin_operator.decide import evidence, one_arm, pairs
from serin_operator.decide.evidence import Evidence
from serin_operator.decide.keys import (
    REQUESTS,
    class_key,
    class_of,
    coverage_key,
    labelled,
    macro,
    metric_key,
)
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.one_arm import OneArm
from serin_operator.decide.projection import Array
from serin_operator.decide.tracks import Arms, Macro, Plain, Row, State

COVERAGE = ""  # the name of the test that compares the arms' shares of predictions with a label
SHARE = "share"  # the name of the test of the canary's share of the requests
_COVERAGE_MARGIN = 0.5  # any will do: only the interval is read
_FEWEST_CLASSES = 2

History = Callable[[str], list[int]]


def over_bound(metric: Metric, arm: str) -> str:
    """The name of the test of a metric's bound in the arm `canary` or `stable`. Another bound is another test."""
    return f"{metric.name} {metric.bound:g} {arm}"


def against_record(metric: Metric) -> str:
    """The name of the test of a promoted revision against the old stable's record."""
    return f"{metric.name} watch"


def macros_of(analysis: Analysis) -> list[Metric]:
    """The metrics that `State.macros` holds, in its order."""
    return [metric for metric in analysis.metrics if macro(metric)]


def strata(analysis: Analysis, metric: Metric, classes: Iterable[str]) -> list[str]:
    """The keys of an average, one per class."""
    return [class_key(metric, label, analysis.label_window) for label in classes]


def keys_of(state: State, analysis: Analysis) -> list[str]:
    """Every key that a test counts, and the requests."""
    of_macros = [
        key
        for metric, one in zip(macros_of(analysis), state.macros, strict=True)
        for key in strata(analysis, metric, one.classes)
    ]
    of_pairs = pairs.keys_of(state.pairs) if state.pairs is not None and state.promoted_at is None else ()
    return list(dict.fromkeys([REQUESTS, *(row.key for row in state.plain.rows), *of_macros, *of_pairs]))


def classes_in(keys: Iterable[str], metric: Metric, window: float) -> tuple[str, ...]:
    """The classes that these keys count for an average, sorted."""
    return tuple(sorted(label for key in keys if (label := class_of(key, metric, window)) is not None))


def aligned(
    state: State,
    analysis: Analysis,
    snapshot: Snapshot | None = None,
    stable: str = "",
    phi: Mapping[str, float] | None = None,
) -> State:
    """The state with exactly the tests that `analysis` asks for now, under its margins of now.

    A metric that is new, or counts something else now, starts without evidence, but with what the stable revision has
    counted in its processes' lives: its rate is known from there. An average's classes are fixed by the first snapshot
    that shows two of them. phi: overdispersion by metric, for tests that start; 1 where there is none.
    """
    window, phi = analysis.label_window, phi or {}

    def history(key: str) -> list[int]:
        """Failures and trials."""
        counted = snapshot.samples.get(key, {}).get(stable, {}) if snapshot else {}
        return [sum(at.failures for at in counted.values()), sum(at.trials for at in counted.values())]

    wanted = {
        Row(metric.name, metric_key(metric, window)): (metric.tolerance, metric.margin)
        for metric in analysis.metrics
        if not macro(metric)
    }
    if window and any(labelled(metric) for metric in analysis.metrics):
        wanted[Row(COVERAGE, coverage_key(window))] = (0.0, _COVERAGE_MARGIN)
    names = [SHARE]
    for metric in analysis.metrics:
        if metric.bound is not None:
            names += [over_bound(metric, "canary"), over_bound(metric, "stable")]
        if state.promoted_at is not None and metric.guards and not macro(metric):
            names.append(against_record(metric))
    kept = {one.row: one for one in state.macros}
    return replace(
        state,
        plain=_aligned_plain(state.plain, wanted, phi, history),
        macros=tuple(_aligned_macro(kept, metric, analysis, snapshot, phi, history) for metric in macros_of(analysis)),
        arms=_aligned_arms(state.arms, tuple(names)),
        pairs=pairs.aligned(state.pairs, analysis) if state.pairs is not None else None,
    )


def _aligned_plain(
    plain: Plain, wanted: Mapping[Row, tuple[float, float]], phi: Mapping[str, float], history: History
) -> Plain:
    rows = tuple(wanted)
    tolerance, margin = np.array(list(wanted.values())).reshape(-1, 2).T
    tests = plain.tests
    if rows != plain.rows:
        place = {row: i for i, row in enumerate(plain.rows)}
        new = [row for row in rows if row not in place]
        if new:
            fresh = evidence.start(
                tolerance=[wanted[row][0] for row in new],
                margin=[wanted[row][1] for row in new],
                phi=[phi.get(row.name, 1.0) for row in new],
                history=[[history(row.key)] for row in new],
            )
            place |= {row: len(plain.rows) + i for i, row in enumerate(new)}
            tests = evidence.concat([tests, fresh])
        tests = evidence.take(tests, np.array([place[row] for row in rows], np.int64))
    return Plain(rows, _retargeted(tests, tolerance, margin))


def _aligned_macro(
    kept: Mapping[Row, Macro],
    metric: Metric,
    analysis: Analysis,
    snapshot: Snapshot | None,
    phi: Mapping[str, float],
    history: History,
) -> Macro:
    window = analysis.label_window
    row = Row(metric.name, metric_key(metric, window))
    one = kept.get(row)
    classes = classes_in(snapshot.samples, metric, window) if snapshot else ()
    if one is not None and one.classes:
        late = tuple(sorted({*one.late, *classes} - {*one.classes}))
        test = _retargeted(one.test, np.array([metric.tolerance]), np.array([metric.margin]))
        return Macro(row, one.classes, late, test)
    if len(classes) < _FEWEST_CLASSES:
        classes = ()
    test = evidence.start(
        tolerance=metric.tolerance,
        margin=metric.margin,
        phi=phi.get(metric.name, 1.0),
        strata=max(1, len(classes)),
        history=[[history(key) for key in strata(analysis, metric, classes)]] if classes else None,
    )
    return Macro(row, classes, (), test)


def _aligned_arms(arms: Arms, names: tuple[str, ...]) -> Arms:
    if names == arms.names:
        return arms
    place = {name: i for i, name in enumerate(arms.names)}
    chosen = np.array([place.get(name, len(place)) for name in names])  # beyond the old ones: a new one
    fresh = one_arm.start(1)
    tests = OneArm(
        np.concatenate([arms.tests.over, fresh.over])[chosen], np.concatenate([arms.tests.under, fresh.under])[chosen]
    )
    return Arms(names, np.concatenate([arms.counts, np.zeros((1, 2), np.int64)])[chosen], tests)


def _retargeted(tests: Evidence, tolerance: Array, margin: Array) -> Evidence:
    if np.array_equal(tests.tolerance, tolerance) and np.array_equal(tests.margin, margin):
        return tests
    return evidence.retarget(tests, tolerance=tolerance, margin=margin)
