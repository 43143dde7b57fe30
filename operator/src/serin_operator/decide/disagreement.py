"""What pairs of answers to the same request tell before any label: how often they differ, and which classes shift.

Everything here is pure and depends on totals only. All evidence is in natural logarithms. B tests in a batch.
"""

import math

import numpy as np
import numpy.typing as npt

from serin_operator.decide import one_arm
from serin_operator.decide.bets import log_even
from serin_operator.decide.projection import Array

_HALVINGS = 60
_PRIOR = 0.5  # both parameters of the beta distribution that the likelihood is mixed with


def interval(counts: npt.ArrayLike, *, alpha: float) -> Array:
    """(B, 2), confidence sequences for the share of pairs whose answers differ, at level 1 - alpha.

    counts: integers (B, 2), pairs whose answers differ, and all. Some d is outside when the likelihood of the pairs,
    averaged over Beta(1/2, 1/2), is at least 1 / alpha times that under d: an e-process while d is the share (Robbins,
    "Statistical methods related to the law of the iterated logarithm"). The likelihood has one peak, so what
    is left is an interval about the share that was seen. Raises ValueError unless 0 <= differing <= all.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != 2 or counts.dtype.kind not in "iu":
        raise ValueError(f"expected integers of shape (B, 2), got {counts.dtype} of shape {counts.shape}")
    if not np.all((counts[:, 0] >= 0) & (counts[:, 0] <= counts[:, 1])):
        raise ValueError(f"need 0 <= differing <= all, got {counts.tolist()}")
    differ, alike = counts[:, 0].astype(np.float64), (counts[:, 1] - counts[:, 0]).astype(np.float64)
    least = _log_mixture(counts) + math.log(alpha)
    seen = np.where(counts[:, 1] > 0, differ / np.maximum(counts[:, 1], 1), 0.5)

    def end(edge: float) -> Array:
        """The edge of [0, 1], or where the likelihood falls below the least; bisected from outside."""
        outside, inside = np.full(len(counts), edge), seen
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            fits = _log_likelihood(differ, alike, middle) > least
            outside, inside = np.where(fits, outside, middle), np.where(fits, middle, inside)
        possible = _log_likelihood(differ, alike, np.full(len(counts), edge)) > least
        return np.where(possible, edge, outside)

    return np.stack([end(0.0), end(1.0)], axis=1)


def log_e_shifts(moves: npt.ArrayLike) -> Array:
    """(B, K), per class the ln of the odds that the canary answers it more, or less, often than the stable arm.

    moves: integers (B, K, 2), pairs whose answers differ and where the canary's is the class, and where the stable
    arm's is. While both answer a class equally often, such a pair is the one or the other with equal chances.
    """
    moves = np.asarray(moves)
    if moves.ndim != 3 or moves.shape[2] != 2:
        raise ValueError(f"expected counts of shape (B, K, 2), got {moves.shape}")
    batch, classes, _ = moves.shape
    totals = np.stack([moves[..., 0], moves.sum(axis=2)], axis=2).reshape(batch * classes, 2)
    tested = one_arm.update(one_arm.start(batch * classes), totals, 0.5)
    return one_arm.log_e_either(tested).reshape(batch, classes)


def log_e_shift(moves: npt.ArrayLike) -> Array:
    """(B,), ln of the odds that some class shifts; of the hypothesis that none does (Stuart and Maxwell's).

    The mean over classes of their e-values, which is one however they depend on each other.
    """
    return log_even(log_e_shifts(moves))


def _log_likelihood(differ: Array, alike: Array, share: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        of_differ = np.where(differ > 0, differ * np.log(share), 0.0)
        return np.asarray(of_differ + np.where(alike > 0, alike * np.log1p(-share), 0.0))


def _log_mixture(counts: npt.NDArray[np.int64]) -> Array:
    """ln of the likelihood averaged over the beta distribution."""
    none = 2 * math.lgamma(_PRIOR) - math.lgamma(2 * _PRIOR)
    return np.array(
        [
            math.lgamma(differ + _PRIOR) + math.lgamma(pairs - differ + _PRIOR) - math.lgamma(pairs + 2 * _PRIOR) - none
            for differ, pairs in counts.tolist()
        ]
    )
