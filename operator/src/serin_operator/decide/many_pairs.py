"""The pairs of one metric in many rollouts at once, for simulations: the two tests of `pairs`, as arrays.

Everything here is pure. B rollouts.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from serin_operator.api.spec import Metric
from serin_operator.decide import paired, pairs
from serin_operator.decide.paired import Paired
from serin_operator.decide.projection import Array, Integers


@dataclass(frozen=True, slots=True, eq=False)
class ManyPairs:
    """tests: two per rollout, one after the other. waiting: (B,) pairs that differ and have no label."""

    tests: Paired
    waiting: Integers


def start(metric: Metric, rollouts: int) -> ManyPairs:
    """No pairs yet."""
    limits = np.full((2, pairs.PER_METRIC * rollouts), [[metric.tolerance], [metric.margin]])
    return ManyPairs(paired.start(tolerance=limits[0], margin=limits[1]), np.zeros(rollouts, np.int64))


def counted(many: ManyPairs, new: Integers) -> ManyPairs:
    """With further pairs. new: (B, 7), numbers in the order of `pairs.Totals`."""
    different, settled = new[:, 1], new[:, 3]
    return ManyPairs(paired.update(many.tests, pairs.kinds(new)), many.waiting + different - settled)


def onset(many: ManyPairs, where: npt.NDArray[np.bool_]) -> ManyPairs:
    """Harm may begin in the rollouts where this is true, (B,)."""
    return replace(many, tests=paired.onset(many.tests, np.repeat(where, pairs.PER_METRIC)))


def odds(many: ManyPairs) -> tuple[Array, Array, Array]:
    """(B,) each, log odds that the canary is worse, that it is worse by less than the margin, and that it is better."""
    return pairs.odds(many.tests, pairs.with_waiting(many.tests, many.waiting))


def take(many: ManyPairs, rollouts: Integers) -> ManyPairs:
    """Only these rollouts, by number."""
    tests = pairs.PER_METRIC * np.repeat(rollouts, pairs.PER_METRIC) + np.tile(
        np.arange(pairs.PER_METRIC), len(rollouts)
    )
    return ManyPairs(paired.take(many.tests, tests), many.waiting[rollouts])
