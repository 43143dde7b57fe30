"""A shadow's pairs of answers: what the canary's servers counted of them, given to the paired test of each metric.

While the canary is a shadow, this test takes the place of that of two arms for the accuracy. With a label window it is
given the pairs that the servers counted at that age, a sample, else all of them as they come. It counts in both of the
ways of `paired`, every pair and the labelled ones only, and its evidence is the mean of both: an e-process as well, for
which nobody has to choose beforehand. Where labels are few, the one decides as soon as answers hardly differ; where
all are labelled at random, the other does.

After the shadow the mean stays as it is, and what the two arms show later multiplies it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from serin_operator.api.spec import Analysis, Metric, MetricType
from serin_operator.decide import disagreement, paired
from serin_operator.decide.bets import log_even
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import pair_keys
from serin_operator.decide.observed import Samples
from serin_operator.decide.paired import Paired
from serin_operator.decide.projection import Array, Integers

_PER_METRIC = 2  # tests: of all pairs, and of those with a label


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Pairs counted so far.

    different: whose answers differ. labelled: of all. settled: of those that differ, with a label. canary_wrong,
    stable_wrong: of the labelled. only_canary: of them those where only the canary's answer is wrong.
    """

    all: int = 0
    different: int = 0
    labelled: int = 0
    settled: int = 0
    canary_wrong: int = 0
    stable_wrong: int = 0
    only_canary: int = 0

    @property
    def only_stable(self) -> int:
        """Labelled pairs where only the stable revision's answer is wrong."""
        return self.only_canary + self.stable_wrong - self.canary_wrong

    @property
    def waiting(self) -> int:
        """Pairs whose answers differ, and of which no label tells who is right."""
        return max(0, self.different - self.settled)

    @property
    def spread(self) -> float:
        """How much less a pair scatters than two answers to different requests: at most 1, for forecasts."""
        rate = (1 + self.stable_wrong) / (10 + self.labelled)
        return min(1.0, (1 + self.different) / (1 + self.all) / (2 * rate * (1 - rate)))

    def plus(self, more: "Totals") -> "Totals":
        """Both together."""
        return Totals(*(a + b for a, b in zip(self.numbers, more.numbers, strict=True)))

    @property
    def numbers(self) -> tuple[int, ...]:
        """In the order of the fields."""
        return (
            self.all,
            self.different,
            self.labelled,
            self.settled,
            self.canary_wrong,
            self.stable_wrong,
            self.only_canary,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The pairs of one canary with one stable revision. `tests` has two for each of `names`, metrics.

    totals: what the tests were given, pairs that were counted at the age of `window`; 0 for all, as they came.
    seen: all pairs, also those that are not so old or not drawn; failures: the answers differ.
    ended: the first look at which the canary was no shadow any more, in seconds since the epoch; None while it is one.
    """

    stable: str
    names: tuple[str, ...]
    tests: Paired
    totals: Totals
    window: float
    seen: Counts
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class PairNumbers:
    """One metric's evidence from pairs, as `standings.Numbers` has that of two arms."""

    totals: Totals
    difference: float
    low: float
    high: float
    log_e_worse: float
    log_e_non_inferior: float
    log_e_superior: float


def paired_metrics(analysis: Analysis) -> list[Metric]:
    """The metrics that pairs can decide."""
    return [metric for metric in analysis.metrics if metric.type is MetricType.ACCURACY]


def keys_of(pairs: Pairs) -> tuple[str, ...]:
    """What has to be counted for them."""
    return (pair_keys(pairs.stable)[0], *pair_keys(pairs.stable, pairs.window))


def told(pairs: Pairs, samples: Samples) -> bool:
    """Whether the canary's servers count pairs as the tests need them; earlier versions do not at an age."""
    return pairs.window == 0 or pair_keys(pairs.stable, pairs.window)[0] in samples


def start(analysis: Analysis, stable: str) -> Pairs:
    """No pairs yet."""
    return aligned(_empty(stable, analysis.label_window, Counts()), analysis)


def no_tests() -> Paired:
    """An empty batch."""
    return paired.start(tolerance=np.zeros(0), margin=np.full(0, 0.5))


def aligned(pairs: Pairs, analysis: Analysis) -> Pairs:
    """With exactly the tests that the analysis asks for now, under its margins of now; anew with another window."""
    if pairs.window != analysis.label_window:
        pairs = replace(_empty(pairs.stable, analysis.label_window, pairs.seen), ended=pairs.ended)
    metrics = paired_metrics(analysis)
    names = tuple(metric.name for metric in metrics)
    limits = [[m.tolerance, m.margin] for m in metrics for _ in range(_PER_METRIC)]
    tolerance, margin = np.array(limits).reshape(-1, 2).T
    tests = pairs.tests
    if names != pairs.names:
        fresh = paired.start(tolerance=tolerance, margin=margin)
        both = paired.concat([tests, fresh])
        place = [
            len(tests) + i if name not in pairs.names else _PER_METRIC * pairs.names.index(name) + i % _PER_METRIC
            for i, name in enumerate(name for name in names for _ in range(_PER_METRIC))
        ]
        tests = paired.take(both, np.array(place, np.int64))
    if not (np.array_equal(tests.tolerance, tolerance) and np.array_equal(tests.margin, margin)):
        tests = paired.retarget(tests, tolerance=tolerance, margin=margin)
    return replace(pairs, names=names, tests=tests)


def counted(pairs: Pairs, counts: Mapping[str, tuple[Counts, Counts]]) -> Pairs:
    """With what the canary's servers have counted since the last look."""
    nothing = (Counts(), Counts())
    pairs = replace(pairs, ended=None, seen=pairs.seen + counts.get(pair_keys(pairs.stable)[0], nothing)[0])
    pair, settled, canary, stable = (counts.get(key, nothing)[0] for key in pair_keys(pairs.stable, pairs.window))
    new = Totals(
        all=pair.trials,
        different=pair.failures,
        labelled=canary.trials,
        settled=settled.trials,
        canary_wrong=canary.failures,
        stable_wrong=stable.failures,
        only_canary=settled.failures,
    )
    if not any(new.numbers):
        return pairs
    both_wrong_or_right = settled.trials - new.only_canary - new.only_stable
    every = [new.all - new.different + max(0, both_wrong_or_right), new.only_canary, new.only_stable, 0]
    labelled = [new.labelled - new.only_canary - new.only_stable, new.only_canary, new.only_stable, 0]
    block = np.array([every, labelled] * len(pairs.names), np.int64).reshape(-1, 4)
    return replace(pairs, tests=paired.update(pairs.tests, block.clip(min=0)), totals=pairs.totals.plus(new))


def ended(pairs: Pairs, now: float) -> Pairs:
    """From now on the canary is no shadow."""
    return pairs if pairs.ended is not None else replace(pairs, ended=now)


def onset(pairs: Pairs) -> Pairs:
    """Harm may begin here."""
    return replace(pairs, tests=paired.onset(pairs.tests))


def numbers(pairs: Pairs, *, alpha: float, beta: float) -> dict[str, PairNumbers]:
    """Per metric, what its pairs show. A pair whose answers differ counts against the canary until a label tells."""
    if not pairs.names:
        return {}
    waiting = np.array([[0, pairs.totals.waiting], [0, 0]] * len(pairs.names), np.int64)
    seen = paired.with_waiting(pairs.tests, waiting)
    worse = _mean(paired.log_e_worse(pairs.tests))
    good, better = _mean(paired.log_e_non_inferior(seen)), _mean(paired.log_e_superior(seen))
    every, labelled = paired.difference(pairs.tests).reshape(-1, _PER_METRIC).T
    difference = np.where(np.isnan(labelled), every, labelled)  # as people count it, once there are labels
    # Each of the two is at half the levels, so both hold together at the whole ones.
    between = paired.interval(seen, alpha=alpha / 2, beta=beta / 2)
    low = np.maximum(between[::_PER_METRIC, 0], between[1::_PER_METRIC, 0])
    high = np.minimum(between[::_PER_METRIC, 1], between[1::_PER_METRIC, 1])
    columns = (difference, np.minimum(low, high), np.maximum(low, high), worse, good, better)
    return {
        name: PairNumbers(pairs.totals, *each)
        for name, each in zip(pairs.names, zip(*(column.tolist() for column in columns), strict=True), strict=True)
    }


def disagreement_interval(seen: Counts, *, alpha: float) -> tuple[float, float]:
    """A confidence sequence for the share of requests whose answers differ."""
    low, high = disagreement.interval(np.array([[seen.failures, seen.trials]], np.int64), alpha=alpha)[0].tolist()
    return low, high


def moved(moves: Mapping[str, Counts], odds: float) -> list[tuple[str, int, int]]:
    """Classes that the canary answers more, or less, often than the stable revision does: (class, more, less).

    moves: per class, the pairs that differ and in which one answer is this class; failures: the canary's is. odds: from
    how much on a class is named, if the classes together say so.
    """
    names = sorted(moves)
    if not names:
        return []
    table: Integers = np.array([[[m.failures, m.trials - m.failures] for m in (moves[name] for name in names)]])
    enough = np.log(odds)
    if disagreement.log_e_shift(table)[0] < enough:
        return []
    each = disagreement.log_e_shifts(table)[0]
    return [
        (name, moves[name].failures, moves[name].trials - moves[name].failures)
        for name, log_e in zip(names, each.tolist(), strict=True)
        if log_e >= enough
    ]


def _empty(stable: str, window: float, seen: Counts) -> Pairs:
    return Pairs(stable, (), no_tests(), Totals(), window, seen)


def _mean(log_e: Array) -> Array:
    """The mean of each metric's two e-values."""
    return np.asarray(log_even(log_e.reshape(-1, _PER_METRIC)))
