"""Likelihood ratios of the safe 2x2 test: two rates (f_c, f_s) against their projection onto g_c = g_s + d.

The projection is the pair on that line that is nearest in Kullback-Leibler divergence, weighted by the trials
of each arm. The ratio of the likelihoods of n_c and n_s Bernoulli trials under the two is an e-value for the
null hypothesis on the other side of the line from (f_c, f_s): its mean is at most 1 under every pair there.
Source: Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for
optional stopping".
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_EDGE = 1e-14  # projections stay this far inside (0, 1)
_ROUNDS = 100  # more than halving alone can need; about 8 are usual


def log_likelihood_ratios(
    *,
    alternatives: Array,
    f_s: float,
    differences: Array,
    canary: tuple[int, int],
    stable: tuple[int, int],
) -> Array:
    """ln of the likelihood of the counts under (f_c, f_s) over that under its projection, for each f_c.

    alternatives, differences: equal shapes, that of the result too. alternatives and f_s lie strictly within
    (0, 1), differences within (-1, 1). canary, stable: (failures, trials), trials at least 1.
    """
    (y_c, n_c), (y_s, n_s) = canary, stable
    g_c, g_s = project(alternatives, f_s, differences, n_c, n_s)
    return np.asarray(
        y_c * np.log(alternatives / g_c)
        + (n_c - y_c) * np.log((1 - alternatives) / (1 - g_c))
        + y_s * np.log(f_s / g_s)
        + (n_s - y_s) * np.log((1 - f_s) / (1 - g_s))
    )


def divergence_from_margin(failure_rate: float, margin: float, n_c: float, n_s: float) -> float:
    """Kullback-Leibler divergence of n_c and n_s trials, all failing alike, from g_c = g_s + margin."""
    f = np.array([failure_rate])
    g_c, g_s = project(f, failure_rate, np.array([margin]), n_c, n_s)
    return float((n_c * _divergence(f, g_c) + n_s * _divergence(f, g_s))[0])


def project(f_c: Array, f_s: float, differences: Array, n_c: float, n_s: float) -> tuple[Array, Array]:
    """(g_c, g_s) with g_c = g_s + differences that minimise n_c kl(f_c, g_c) + n_s kl(f_s, g_s).

    f_c, differences: equal shapes, those of the results too.

    The derivative times its positive denominators is a cubic with one root in the bracket: g_s lies between
    the two separate minima. Newton's method, but the bracket is halved wherever a step would leave it or is
    more than half of the step before.
    """
    weight = n_c / (n_c + n_s)
    lowest = np.maximum(0.0, -differences) + _EDGE
    highest = np.minimum(1.0, 1.0 - differences) - _EDGE
    from_c = f_c - differences
    low = np.clip(np.minimum(f_s, from_c), lowest, highest)
    high = np.clip(np.maximum(f_s, from_c), lowest, highest)
    g = np.clip(weight * from_c + (1 - weight) * f_s, low, high)
    step = high - low
    for _ in range(_ROUNDS):
        c = g + differences
        spread_c, spread_s = c * (1 - c), g * (1 - g)
        off_c, off_s = weight * (c - f_c), (1 - weight) * (g - f_s)
        cubic = off_c * spread_s + off_s * spread_c
        slope = weight * spread_s + off_c * (1 - 2 * g) + (1 - weight) * spread_c + off_s * (1 - 2 * c)
        low, high = np.where(cubic <= 0, g, low), np.where(cubic >= 0, g, high)
        newton = g - cubic / np.where(slope == 0, 1.0, slope)
        halve = (newton < low) | (newton > high) | (2 * np.abs(newton - g) > np.abs(step))
        following = np.where(halve, (low + high) / 2, newton)
        step, g = following - g, following
        # After a Newton step the error is of the order of its square, after a halving as large as the step.
        settled = np.where(halve, 0.0, 1e-9 * np.minimum(spread_c, spread_s))
        if np.all(np.abs(step) <= np.maximum(settled, 4e-16 * g)):
            break
    return g + differences, g


def _divergence(f: Array, g: Array) -> Array:
    return np.asarray(f * np.log(f / g) + (1 - f) * np.log((1 - f) / (1 - g)))
