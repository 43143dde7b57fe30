"""A confidence sequence for the difference of two shares, read from tests of many differences.

For each difference d there is an e-process against f_c - f_s = d, and the interval is the smallest that holds every d
whose e-process is below 1 / (alpha + beta). The e-process of d is the mean of `above` at the first point of GRID
>= d and `below` at the last one <= d: both are valid against d, so nothing is interpolated. Their alternative is the
past rate of each arm. Where it is valid, that is mixed with an e-process of the verdicts, so that the interval agrees
with them: worse, for d <= tolerance, gets the weight alpha / (alpha + beta); non-inferior for d >= margin and superior
for 0 <= d < margin get beta / (alpha + beta).
"""

import math

import numpy as np

from serin_operator.decide.projection import Array
from serin_operator.decide.sums import Singles

_STEPS = np.array([1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500])
GRID = np.concatenate([-_STEPS[::-1], [0], _STEPS]) / 1000


def upper_limit(
    below: Singles, *, margin: Array, non_inferior: Array, superior: Array, alpha: float, beta: float
) -> Array:
    """(B,), the largest difference that the evidence for smaller ones does not exclude, at level 1 - alpha - beta.

    Without evidence, or with alpha + beta >= 1, it is 1. Arguments as of `interval`. Where that finds no difference
    that fits, since the true one has changed, this limit still follows: it never looks at the evidence for larger ones.
    """
    if alpha + beta >= 1:
        return np.ones(len(below))
    low, high = _segments(below, margin)
    under = np.take_along_axis(
        np.hstack([np.zeros((len(below), 1)), below]), np.searchsorted(GRID, low, side="right"), axis=1
    )
    verdicts = np.where(low >= margin, non_inferior, np.where(low >= 0, superior, under))
    rate = alpha + beta
    log_e = np.logaddexp(math.log(alpha / rate) + under, math.log(beta / rate) + verdicts)
    fits = (log_e < -math.log(rate)) & (low < high)
    return np.asarray(np.max(high, axis=1, where=fits, initial=-1.0))


def interval(
    above: Singles,
    below: Singles,
    *,
    tolerance: Array,
    margin: Array,
    worse: Array,
    non_inferior: Array,
    superior: Array,
    alpha: float,
    beta: float,
) -> Array:
    """(B, 2), low and high; (-1, 1) where no difference fits, or alpha + beta >= 1.

    above, below: (B, len(GRID)), log evidence against f_c - f_s <= d and >= d. The others: (B, 1), log evidence of the
    verdicts, and the limits where it is valid.
    """
    everything: Array = np.tile([-1.0, 1.0], (len(above), 1))
    if alpha + beta >= 1:
        return everything
    low, high = _segments(above, tolerance, margin)
    nothing = np.zeros((len(above), 1))
    over = np.take_along_axis(np.hstack([above, nothing]), np.searchsorted(GRID, high), axis=1)
    under = np.take_along_axis(np.hstack([nothing, below]), np.searchsorted(GRID, low, side="right"), axis=1)
    from_rates = np.logaddexp(over, under) - math.log(2)

    of_alpha, of_beta = math.log(alpha / (alpha + beta)), math.log(beta / (alpha + beta))
    log_e = np.logaddexp(
        of_alpha + np.where(high <= tolerance, worse, from_rates),
        of_beta + np.where(low >= margin, non_inferior, np.where(low >= 0, superior, from_rates)),
    )
    fits = (log_e < -math.log(alpha + beta)) & (low < high)
    lowest = np.min(low, axis=1, where=fits, initial=np.inf)
    highest = np.max(high, axis=1, where=fits, initial=-np.inf)
    return np.where(np.isfinite(lowest)[:, None], np.stack([lowest, highest], axis=1), everything)


def _segments(grid: Singles, *limits: Array) -> tuple[Array, Array]:
    """Ends of the segments of [-1, 1] on which the e-process is the same for every difference; (B, segments) each."""
    edges = np.concatenate([np.tile([-1.0, 1.0], (len(grid), 1)), *limits, np.broadcast_to(GRID, grid.shape)], axis=1)
    edges.sort(axis=1)
    return edges[:, :-1], edges[:, 1:]
