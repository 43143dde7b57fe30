"""One look at the counters: what both arms have counted since the last one, given to every test.

What is counted but not compared, in both arms alike:

- the first looks after a change of the weight (`warm_up`);
- labels with a window, until the first prediction since the rollout's begin is as old as that: before, only the stable
  revision has any, and they would be compared with the canary's of a later time. Likewise when a shadow's window is
  edited, since its servers keep pairs for one window; after a shadow, for whose copies no more labels are carried; and
  after a promotion, when the last prediction of the old stable is as old as that: then a metric is compared with its
  record.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from serin_operator.api.spec import Analysis, Metric
from serin_operator.decide import counters, evidence, one_arm, pairs
from serin_operator.decide.counters import Ledger, NotACounter
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import REQUESTS, labelled, macro, metric_key
from serin_operator.decide.lineup import (
    COVERAGE,
    SHARE,
    against_record,
    aligned,
    keys_of,
    macros_of,
    over_bound,
    strata,
)
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.projection import Integers
from serin_operator.decide.record import upper_limit
from serin_operator.decide.tracks import State, rate
from serin_operator.decide.verdict import log_odds_alone, odds_for_record

_SMOOTHING_MINUTES = 5.0
_HIGHEST_LIMIT = 0.999  # of a promoted revision's rate: a record that allows more says nothing
_NOTHING = (Counts(), Counts())

PerArm = tuple[Counts, Counts]  # of the canary and of the stable revision


@dataclass(frozen=True, slots=True)
class Look:
    """The state after a look, and what was wrong with single metrics."""

    state: State
    problems: tuple[str, ...] = ()


def look(
    state: State,
    analysis: Analysis,
    snapshot: Snapshot,
    arms: tuple[str, str],
    now: float,
    share: float | None,
    *,
    shadow: bool = False,
    alike: bool = True,
) -> Look:
    """Takes in what the snapshot shows beyond `state`. The same snapshot again changes nothing.

    arms: the revisions, canary and stable. share: that of the canary in what both count, if it was the same ever since
    the last look, else None. shadow: whether it only gets copies. alike: whether the arms get requests of the same
    kind; else nothing is compared.
    """
    earlier, state = state, aligned(state, analysis, snapshot, arms[1])
    share = share if _were_there(state, snapshot, arms) else None
    ledgers: dict[str, tuple[Ledger, Ledger]] = {}
    counts: dict[str, PerArm] = {}
    problems = []
    for key in keys_of(state, analysis):
        before = state.ledgers.get(key)
        if before is None:
            ledgers[key] = (baseline(snapshot, key, arms[0]), baseline(snapshot, key, arms[1]))
            continue
        try:
            canary, in_canary = count(before[0], state.since, snapshot, key, arms[0])
            stable, in_stable = count(before[1], state.since, snapshot, key, arms[1])
        except NotACounter as error:
            problems.append(f"custom metric {key.partition(':')[2]} is not a counter: a series of its queries {error}")
            ledgers[key] = before
            continue
        ledgers[key], counts[key] = (canary, stable), (in_canary, in_stable)
    following = replace(state, ledgers=ledgers)
    if following.pairs is not None:
        if shadow:
            found = pairs.begun(pairs.counted(following.pairs, counts), earlier.pairs, now)
        else:
            found = pairs.ended(following.pairs, now)
        following = replace(following, pairs=found)
    if not any(canary.trials or stable.trials for canary, stable in counts.values()):
        return Look(following, tuple(problems))
    if state.warming == 0:
        by_pairs = _by_pairs(following, snapshot) if shadow else ()
        following = _alone(_compared(following, analysis, counts, by_pairs, alike), analysis, counts, share)
    following = replace(
        following,
        at=now,
        warming=max(0, state.warming - 1),
        exposed=state.exposed + (0 if shadow else counts.get(REQUESTS, _NOTHING)[0].trials),
        rates=_rates(state, counts, now, analysis.label_window),
    )
    return Look(following, tuple(problems))


def _were_there(state: State, snapshot: Snapshot, arms: tuple[str, str]) -> bool:
    """Whether all processes of both arms were there ever since the last look, as far as can be seen.

    What a canary's that died would have had, stable answers; and any takes with it what it counted last. So the shares
    tell nothing until all were there for a whole look.
    """
    known, samples = state.ledgers.get(REQUESTS), snapshot.samples.get(REQUESTS, {})
    if known is None or not snapshot.pods.isdisjoint(snapshot.unread):  # that has custom metrics too
        return False
    return all(samples.get(arm, {}).keys() <= ledger.counted.keys() for arm, ledger in zip(arms, known, strict=True))


def baseline(snapshot: Snapshot, key: str, arm: str) -> Ledger:
    """The ledger by which everything that an arm counted until now is history."""
    # A process that was read but has no such counter yet starts at 0: what it counts from now on is news.
    nothing = dict.fromkeys(sorted(snapshot.processes), Counts())
    return counters.baseline(nothing | dict(snapshot.samples.get(key, {}).get(arm, {})))


def count(ledger: Ledger, since: float, snapshot: Snapshot, key: str, arm: str) -> tuple[Ledger, Counts]:
    """What one arm has counted beyond its ledger, and the ledger after it. Raises NotACounter."""
    series = snapshot.samples.get(key, {}).get(arm, {})
    gone = [one for one in ledger.counted if one.partition("/")[0] not in snapshot.pods]
    historic = [one for one in series if one not in snapshot.unclocked and _born(one) < since]
    return counters.advance(ledger, series, historic=historic, unclocked=snapshot.unclocked, gone=gone)


@lru_cache(maxsize=8192)  # the same few in every key of every look
def _born(series: str) -> float:
    """When a series' process started, in seconds since the epoch."""
    return float(series.partition("/")[2])


def compared(state: State, window: float) -> bool:
    """Whether what is counted now was made by both arms side by side. window: of the labels; 0 without labels."""
    if window == 0:
        return state.promoted_at is None
    of_pairs = (state.pairs.begun, state.pairs.ended) if state.pairs is not None else ()
    begun = max([state.since, *(at for at in of_pairs if at is not None)])
    return begun + window <= state.at and (state.promoted_at is None or state.at < state.promoted_at + window)


def record_limit(state: State, analysis: Analysis, metric: Metric) -> float | None:
    """The rate of a promoted revision that the old stable's record still allows, with the margin; None if it is any."""
    place = [row.name for row in state.plain.rows].index(metric.name)
    failures, trials = state.plain.tests.total[place, 0, 2:].tolist()
    if state.pairs is not None and metric.name in state.pairs.names:
        failures, trials = failures + state.pairs.totals.stable_wrong, trials + state.pairs.totals.labelled
    log_odds = math.log(odds_for_record(metric, analysis.metrics, alpha=analysis.false_rollback_rate))
    limit = upper_limit(failures, trials, log_odds=log_odds, phi=float(state.plain.tests.phi[place])) + metric.margin
    return limit if limit < _HIGHEST_LIMIT else None


def _by_pairs(state: State, snapshot: Snapshot) -> tuple[str, ...]:
    """The tests of two arms that pairs take the place of. Both answers of a pair get their label, or neither does."""
    if state.pairs is None or not pairs.told(state.pairs, snapshot.samples):
        return ()
    return (*state.pairs.names, COVERAGE)


def _compared(
    state: State, analysis: Analysis, counts: Mapping[str, PerArm], by_pairs: Collection[str], alike: bool
) -> State:
    """Both arms' counts given to the tests that compare them, apart from the metrics that are tested by pairs.

    Of arms that are not alike, only the stable revision's: they wait in the tests as its record, and tell its rate.
    """
    by_name = {metric.name: metric for metric in analysis.metrics}

    def block(key: str, metric: Metric | None) -> list[int]:
        if key not in counts or not compared(state, _window(analysis, metric)):
            return [0, 0, 0, 0]
        canary, stable = counts[key]
        canary = canary if alike else Counts()
        return [canary.failures, canary.trials, stable.failures, stable.trials]

    blocks = [
        [0, 0, 0, 0] if row.name in by_pairs else block(row.key, by_name.get(row.name)) for row in state.plain.rows
    ]
    alone = log_odds_alone(analysis.metrics, alpha=analysis.false_rollback_rate)
    limits = np.array([alone.get(row.name, math.inf) for row in state.plain.rows])
    tests = evidence.update(state.plain.tests, _integers(blocks, (len(blocks), 1, 4)), limit=limits)
    macros = []
    for metric, one in zip(macros_of(analysis), state.macros, strict=True):
        of_classes = [block(key, metric) for key in strata(analysis, metric, one.classes)]
        shape = (1, len(of_classes), 4)
        macros.append(replace(one, test=evidence.update(one.test, _integers(of_classes, shape))) if of_classes else one)
    return replace(state, plain=replace(state.plain, tests=tests), macros=tuple(macros))


def _alone(state: State, analysis: Analysis, counts: Mapping[str, PerArm], share: float | None) -> State:
    """Each arm's counts given to the tests of one arm."""
    given: dict[str, tuple[Counts, float, float]] = {}  # what was counted, against which rate, and phi
    expected = state.expected_share
    if share is not None and 0 < share < 1:
        canary, stable = counts.get(REQUESTS, _NOTHING)
        both = Counts(canary.trials, canary.trials + stable.trials)
        given[SHARE] = (both, share, 1.0)
        before = int(state.arms.counts[state.arms.place(SHARE), 1])
        expected = (expected * before + share * both.trials) / max(1, before + both.trials)
    for metric, (keys, phi) in zip(analysis.metrics, _counted(state, analysis), strict=True):
        canary, stable = (sum((counts.get(key, _NOTHING)[arm] for key in keys), Counts()) for arm in (0, 1))
        if metric.bound is not None:
            given[over_bound(metric, "canary")] = (canary, metric.bound, phi)
            given[over_bound(metric, "stable")] = (stable, metric.bound, phi)
        if against_record(metric) in state.arms.names and not compared(state, _window(analysis, metric)):
            limit = record_limit(state, analysis, metric)
            if limit is not None:
                given[against_record(metric)] = (canary, limit, phi)
    rows = [given.get(name, (Counts(), 0.5, 1.0)) for name in state.arms.names]
    blocks = _integers([[one.failures, one.trials] for one, _, _ in rows], (len(rows), 2))
    rates, phis = np.array([rate for _, rate, _ in rows]), np.array([phi for *_, phi in rows])
    tests = one_arm.update(state.arms.tests, blocks, rates, phis)
    arms = replace(state.arms, counts=state.arms.counts + blocks, tests=tests)
    return replace(state, arms=arms, expected_share=expected)


def _counted(state: State, analysis: Analysis) -> list[tuple[list[str], float]]:
    """Per metric, the keys that it counts and its overdispersion."""
    phis = dict(zip((row.name for row in state.plain.rows), state.plain.tests.phi.tolist(), strict=True))
    macros = iter(state.macros)
    found = []
    for metric in analysis.metrics:
        if macro(metric):
            one = next(macros)
            found.append((strata(analysis, metric, one.classes), float(one.test.phi[0])))
        else:
            found.append(([metric_key(metric, analysis.label_window)], phis[metric.name]))
    return found


def _window(analysis: Analysis, metric: Metric | None) -> float:
    """How old the predictions are that a metric counts; None stands for the labels' coverage."""
    return analysis.label_window if metric is None or labelled(metric) else 0.0


def _rates(state: State, counts: Mapping[str, PerArm], now: float, window: float) -> Mapping[str, int]:
    """Trials per minute of late: an average that forgets exponentially.

    It reaches over two sixtieths of the label window at least, each of which counts at once.
    """
    minutes = (now - state.at) / 60
    if minutes <= 0:
        return state.rates
    of_age = max(_SMOOTHING_MINUTES, 2 * window / 60 / 60)
    rates = dict(state.rates)
    for key, (canary, stable) in counts.items():
        weight = 1 - math.exp(-minutes / (of_age if key.endswith(f"@{window:g}") else _SMOOTHING_MINUTES))
        latest = rate(canary.trials + stable.trials, minutes)
        rates[key] = round(rates[key] + weight * (latest - rates[key])) if key in rates else latest
    return rates


def _integers(values: Sequence[Sequence[int]], shape: tuple[int, ...]) -> Integers:
    return np.array(values, np.int64).reshape(shape)
