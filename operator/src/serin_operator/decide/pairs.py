"""A shadow's pairs of answers: what the canary's servers counted of them, given to the paired test of each metric.

While the canary is a shadow, this test takes the place of that of two arms for the accuracy. With a label window it is
given the pairs that the servers counted at that age, a sample, else all of them as they come. It counts in both of the
ways of `paired`, every pair and the labelled ones only, and its evidence is the mean of both: an e-process as well, for
which nobody has to choose beforehand. Where labels are few, the one decides as soon as answers hardly differ; where
all are labelled at random, the other does.

After the shadow the mean stays as it is, and what the two arms show later multiplies it.
"""

import math
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

PER_METRIC = 2  # tests: of all pairs, and of those with a label
# Pairs that a model server draws of each sixtieth of the label window, but at least a second.
OF_A_BUCKET = 333


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
    begun: the first look with this window, if the shadow had another one before.
    """

    stable: str
    names: tuple[str, ...]
    tests: Paired
    totals: Totals
    window: float
    seen: Counts
    ended: float | None = None
    begun: float | None = None


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


def most_a_minute(window: float) -> float:
    """Pairs that one of the canary's servers counts at the age of a label window, in seconds; 0 for none."""
    return 60 * OF_A_BUCKET / max(1.0, window / 60) if window else math.inf


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
    limits = [[m.tolerance, m.margin] for m in metrics for _ in range(PER_METRIC)]
    tolerance, margin = np.array(limits).reshape(-1, 2).T
    tests = pairs.tests
    if names != pairs.names:
        fresh = paired.start(tolerance=tolerance, margin=margin)
        both = paired.concat([tests, fresh])
        place = [
            len(tests) + i if name not in pairs.names else PER_METRIC * pairs.names.index(name) + i % PER_METRIC
            for i, name in enumerate(name for name in names for _ in range(PER_METRIC))
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
    block = np.tile(kinds(np.array([new.numbers], np.int64)), (len(pairs.names), 1))
    return replace(pairs, tests=paired.update(pairs.tests, block), totals=pairs.totals.plus(new))


def kinds(new: Integers) -> Integers:
    """What both tests of a metric are given, one after the other. new: (N, 7), of each metric as `Totals` has them."""
    every, different, labelled, settled, canary_wrong, stable_wrong, only_canary = new.T
    only_stable = only_canary + stable_wrong - canary_wrong
    neither = np.maximum(0, settled - only_canary - only_stable)  # both wrong, or both right
    same = np.stack([every - different + neither, labelled - only_canary - only_stable], axis=1)
    block = np.zeros((len(new), PER_METRIC, 4), np.int64)
    block[..., 0], block[..., 1], block[..., 2] = same, only_canary[:, None], only_stable[:, None]
    return np.asarray(block.clip(min=0).reshape(-1, 4))


def with_waiting(tests: Paired, waiting: Integers) -> Paired:
    """For what is to be shown of the canary. waiting: (N,), of each metric the pairs that differ and have no label."""
    block = np.zeros((len(waiting), PER_METRIC, 2), np.int64)
    block[:, 0, 1] = waiting
    return paired.with_waiting(tests, block.reshape(-1, 2))


def odds(tests: Paired, seen: Paired) -> tuple[Array, Array, Array]:
    """(N,) each, log odds that the canary is worse, worse by less than the margin, better. seen: of `with_waiting`."""
    worse, good, better = (paired.log_e_worse(tests), paired.log_e_non_inferior(seen), paired.log_e_superior(seen))
    return _mean(worse), _mean(good), _mean(better)


def ended(pairs: Pairs, now: float) -> Pairs:
    """From now on the canary is no shadow."""
    return pairs if pairs.ended is not None else replace(pairs, ended=now)


def begun(pairs: Pairs, before: Pairs | None, now: float) -> Pairs:
    """From now on pairs, and labels of theirs, wait for this window. before: at the last look."""
    return pairs if before is None or before.window == pairs.window else replace(pairs, begun=now)


def onset(pairs: Pairs) -> Pairs:
    """Harm may begin here."""
    return replace(pairs, tests=paired.onset(pairs.tests))


def numbers(pairs: Pairs, *, alpha: float, beta: float) -> dict[str, PairNumbers]:
    """Per metric, what its pairs show. A pair whose answers differ counts against the canary until a label tells."""
    if not pairs.names:
        return {}
    seen = with_waiting(pairs.tests, np.full(len(pairs.names), pairs.totals.waiting))
    worse, good, better = odds(pairs.tests, seen)
    every, labelled = paired.difference(pairs.tests).reshape(-1, PER_METRIC).T
    difference = np.where(np.isnan(labelled), every, labelled)  # as people count it, once there are labels
    # Each of the two is at half the levels, so both hold together at the whole ones.
    between = paired.interval(seen, alpha=alpha / 2, beta=beta / 2)
    low = np.maximum(between[::PER_METRIC, 0], between[1::PER_METRIC, 0])
    high = np.minimum(between[::PER_METRIC, 1], between[1::PER_METRIC, 1])
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
    return np.asarray(log_even(log_e.reshape(-1, PER_METRIC)))
