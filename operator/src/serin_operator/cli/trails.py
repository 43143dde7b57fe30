"""Recorded rollouts through the operator's own tests and verdicts: all series of a file side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from serin_operator import batch
from serin_operator.api.spec import Analysis, Metric
from serin_operator.api.status import MetricReport
from serin_operator.batch import Batch, Decision, Floats, Ints, Policy
from serin_operator.cli.records import Recording
from serin_operator.decide import evidence, reports, verdict
from serin_operator.decide.evidence import Evidence
from serin_operator.decide.forecast import canary_trials
from serin_operator.decide.reports import Facts
from serin_operator.decide.standings import prospect
from serin_operator.decide.verdict import Standing, Verdict

_AT_ONCE = 1000  # series: more in one array are no faster


class Ending(StrEnum):
    """What the policy would have done."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Group:
    """Series of one recording that are decided by the same policy.

    series: their numbers in the recording. columns: per metric of the policy, its places among the recording's metrics:
    none if it was not recorded, and one per class for an average over classes. classes: their names, then; else empty.
    """

    policy: Policy
    series: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class End:
    """The first verdict and the number of its scrape; for hold, those of the last scrape.

    reports: what is known about each metric then. because: what rolled back, None if nothing did. inconclusive: rolled
    back for want of evidence within maxDuration.
    """

    ending: Ending
    scrape: int
    reports: tuple[MetricReport, ...]
    because: Verdict | None = None
    inconclusive: bool = False


@dataclass(frozen=True, slots=True)
class Trail:
    """One series; T scrapes, M metrics of the policy.

    Each (T, M): estimate (nan without data), low, high, log_e_worse, log_e_promote; step: (T,), that of each scrape.
    """

    group: Group
    estimate: Floats
    low: Floats
    high: Floats
    log_e_worse: Floats
    log_e_promote: Floats
    step: Ints
    end: End


def replay(
    recording: Recording, group: Group, *, phi: float = 1.0, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[int, Trail]]:
    """The number and the trail of each series, the longest series first.

    progress: called with the number of scrapes that were looked at.
    """
    order = sorted(group.series, key=lambda number: -len(recording.times[number]))
    for first in range(0, len(order), _AT_ONCE):
        chunk = order[first : first + _AT_ONCE]
        yield from zip(chunk, _follow(recording, group, chunk, phi, progress), strict=True)


def _follow(
    recording: Recording, group: Group, chunk: Sequence[int], phi: float, progress: Callable[[int], None] | None
) -> list[Trail]:
    """The trails of series that are sorted by length, the longest first."""
    columns = group.columns
    lengths = [len(recording.times[number]) for number in chunk]
    longest = lengths[0]
    seen = np.full((5, len(chunk), longest, len(columns)), np.nan)
    steps = np.zeros((len(chunk), longest), np.int64)
    ends: list[End | None] = [None] * len(chunk)
    state = batch.begin(group.policy, len(chunk), phi=phi, strata=[max(1, len(strata)) for strata in columns])
    for scrape in range(longest):
        lasting = sum(length > scrape for length in lengths)
        if lasting < len(state):
            state = batch.take(state, np.arange(lasting))
        elapsed = np.array([recording.times[number][scrape] - recording.times[number][0] for number in chunk[:lasting]])
        steps[:lasting, scrape] = state.step
        state = batch.look(state, _counts(recording, scrape, chunk[:lasting], columns), elapsed)
        standings = batch.standings(state)
        seen[:, :lasting, scrape] = _seen(state, standings)
        decision = batch.decide(state, standings, elapsed)
        state = batch.to_first_step(state, decision.first_step, elapsed)
        last = np.array(lengths[:lasting]) == scrape + 1
        for place in np.flatnonzero(decision.roll_back | decision.promote | last).tolist():
            if ends[place] is None:
                ends[place] = _end(group, state, standings, decision, place, scrape)
        if progress:
            progress(lasting)
    trails = []
    for place, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        assert end
        estimate, low, high, log_e_worse, log_e_promote = seen[:, place, :length]
        step = steps[place, :length]
        trails.append(Trail(group, estimate, low, high, log_e_worse, log_e_promote, step, end))
    return trails


def _counts(recording: Recording, scrape: int, chunk: Sequence[int], columns: Sequence[Sequence[int]]) -> list[Ints]:
    """Per metric, (series, strata, 4)."""
    everything = recording.scrape(scrape)[list(chunk)]
    nothing = np.zeros((len(chunk), 1, 4), np.int64)
    return [everything[:, list(strata)] if strata else nothing for strata in columns]


def _seen(state: Batch, standings: Sequence[Standing]) -> Floats:
    """(5, series, metrics): estimate, both ends of the interval, log odds for worse and for promotion."""
    rates = state.policy.analysis
    per_metric = []
    for test, standing in zip(state.tests, standings, strict=True):
        low, high = evidence.interval(test, alpha=rates.false_rollback_rate, beta=rates.false_promotion_rate).T
        per_metric.append([evidence.difference(test), low, high, standing.log_e_worse, standing.log_e_goal])
    return np.moveaxis(np.array(per_metric, np.float64), 0, -1)


def _end(group: Group, state: Batch, standings: Sequence[Standing], decision: Decision, place: int, scrape: int) -> End:
    numbers, analysis = batch.standings_of(standings, place), group.policy.analysis
    rates = {"alpha": analysis.false_rollback_rate, "beta": analysis.false_promotion_rate}
    tests = [evidence.take(test, [place]) for test in state.tests]
    told = tuple(
        reports.report(_facts(analysis, metric, test, standing, names), **rates)
        for metric, test, standing, names in zip(analysis.metrics, tests, numbers, group.classes, strict=True)
    )
    return end(decision, place, scrape, told, verdict.verdict(numbers, **rates))


def end(decision: Decision, place: int, scrape: int, told: tuple[MetricReport, ...], decided: Verdict) -> End:
    """How the rollout at this place of a decision ends. decided: the verdict on its evidence alone."""
    if decision.promote[place]:
        return End(Ending.PROMOTE, scrape, told)
    if decision.inconclusive[place]:
        return End(Ending.ROLLBACK, scrape, told, inconclusive=True)
    if decision.roll_back[place]:
        return End(Ending.ROLLBACK, scrape, told, because=decided)
    return End(Ending.HOLD, scrape, told)


def _facts(analysis: Analysis, metric: Metric, test: Evidence, standing: Standing, classes: Sequence[str]) -> Facts:
    """Everything that is known about a metric of one rollout."""
    counts, phi = test.total[0].tolist(), float(test.phi[0])
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    low, high = evidence.interval(test, alpha=alpha, beta=beta)[0].tolist()
    alone = verdict.odds_alone(analysis.metrics, alpha=alpha).get(metric.name)
    stable = [(failures, trials) for _, _, failures, trials in counts]
    gate = prospect(analysis, metric, stable, per_minute=0.0, phi=phi, alone=alone, standing=standing)
    in_canary, in_stable = (sum(stratum[arm] for stratum in counts) for arm in (1, 3))
    share = 100 * in_canary / (in_canary + in_stable) if in_canary and in_stable else 0.0
    return Facts(
        metric=metric,
        standing=standing,
        classes=tuple(classes),
        counts=counts,
        difference=float(evidence.difference(test)[0]),
        low=low,
        high=high,
        odds_alone=alone,
        canary_trials=canary_trials([gate], [share])[0],
    )
