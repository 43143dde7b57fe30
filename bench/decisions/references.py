"""Statistical tests to compare with, and bounds that no test can beat."""

import math

import numpy as np
import numpy.typing as npt

from bench.decisions.outcomes import Hits, Outcome, Table, first, never_promoted

_Floats = npt.NDArray[np.float64]

_Z_OF_95_PERCENT = 1.6448536269514722  # one-sided


def z_test(table: Table) -> Outcome:
    """A pooled z-test for two proportions on all counts so far, one-sided at 5 %, repeated at every look.

    The textbook test for one look. Repeating it is what "wait until it is significant" amounts to.
    """
    difference, variance, valid = _pooled(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = valid & (difference > _Z_OF_95_PERCENT * np.sqrt(variance))
    return never_promoted(first(hits), table.shape[1])


def msprt(table: Table, *, tau: float, alpha: float) -> Outcome:
    """The mixture sequential probability ratio test on pooled counts, of *worse* only.

    Likelihood ratio of a normal mixture N(0, tau^2) over the difference against no difference, at the normal
    approximation with the pooled variance; it rolls back when the ratio reaches 1/alpha with the canary above.
    Source: Johari, Pekelis and Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests". It compares the
    totals of both arms, so it is valid only while the split or the failure rate stays the same.
    """
    difference, variance, valid = _pooled(table)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = 0.5 * np.log(variance / (variance + tau**2)) + tau**2 * difference**2 / (
            2 * variance * (variance + tau**2)
        )
        hits = valid & (difference > 0) & (log_ratio >= -math.log(alpha))
    return never_promoted(first(hits), table.shape[1])


def growth(f_c: float, f_s: float, *, canary_per_minute: float, stable_per_minute: float) -> float:
    """Kullback-Leibler divergence per minute of the two rates from the nearest pair of equal rates.

    No test against "the canary is not worse" gains log evidence faster on average.
    """
    g = (canary_per_minute * f_c + stable_per_minute * f_s) / (canary_per_minute + stable_per_minute)
    return canary_per_minute * _divergence(f_c, g) + stable_per_minute * _divergence(f_s, g)


def power_one_bound(growth_per_minute: float, alpha: float) -> float:
    """Mean minutes below which no test of level alpha can be that finds every effect: ln(1/alpha) / growth."""
    return math.inf if growth_per_minute == 0 else -math.log(alpha) / growth_per_minute


def wald_bound(growth_per_minute: float, alpha: float, miss: float) -> float:
    """The same for a test that may miss the effect with probability `miss`.

    Source: Wald, "Sequential Tests of Statistical Hypotheses": the divergence of the decision's two outcomes, over
    the growth.
    """
    if growth_per_minute == 0:
        return math.inf
    outcomes = (1 - miss) * math.log((1 - miss) / alpha) + miss * math.log(miss / (1 - alpha))
    return outcomes / growth_per_minute


def _divergence(f: float, g: float) -> float:
    return f * math.log(f / g) + (1 - f) * math.log((1 - f) / (1 - g))


def _pooled(table: Table) -> tuple[_Floats, _Floats, Hits]:
    """Difference of the shares so far, its variance under equality, and where both are defined: (runs, looks)."""
    y_c, n_c, y_s, n_s = np.moveaxis(np.cumsum(table, axis=1), -1, 0)
    seen = (n_c > 0) & (n_s > 0)
    n_c, n_s = np.maximum(n_c, 1), np.maximum(n_s, 1)
    share = (y_c + y_s) / (n_c + n_s)
    variance = share * (1 - share) * (1 / n_c + 1 / n_s)
    return y_c / n_c - y_s / n_s, variance, seen & (variance > 0)
