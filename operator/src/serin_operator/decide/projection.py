"""Likelihood ratios of the safe test for two streams: rates against their projection onto a null hypothesis.

The null hypothesis is that the canary's rates exceed the stable ones by at most d (or at least d) on average over K
strata. The projection of the alternative (f_c, f_s) is the point g with mean(g_c - g_s) = d that is nearest in
Kullback-Leibler divergence, weighted by the trials of each arm and stratum. The ratio of the likelihoods of the
counts under f and under g is an e-value for the null hypothesis on the other side from f: its mean is at most 1
under every g' there. Proof, for any convex set of g': one trial of a stream has the mean ratio
1 + (g' - g)(f - g) / (g (1 - g)), so ln of the mean over all trials is at most the sum over streams of
n (g' - g)(f - g) / (g (1 - g)). That is minus the derivative of the divergence at g in the direction g' - g, which is
not negative at a minimum over a convex set.

Source: Turner, Ly and Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping". Their theorem has one stratum and blocks of fixed size; the proof above needs neither.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_EDGE = 1e-14  # projections stay this far inside (0, 1)
_SMALL = 1e-9  # the square of a step that is so small beside the distance to the edges is beyond double precision
_NEAR = 1e-12  # sums of rates over strata are solved this well
_ROUNDS = 100  # more than halving alone can need; ten are usual for several strata


def log_likelihood_ratios(f_c: Array, f_s: Array, differences: Array, counts: Integers) -> Array:
    """ln of the likelihood of the counts under (f_c, f_s) over that under its projection. Shape (B, A).

    For the arguments see `log_likelihood_ratios_and_slopes`.
    """
    return log_likelihood_ratios_and_slopes(f_c, f_s, differences, counts)[0]


def log_likelihood_ratios_and_slopes(
    f_c: Array, f_s: Array, differences: Array, counts: Integers
) -> tuple[Array, Array]:
    """The same, and by how much it is more for a failure of the canary instead of one of the stable arm, both (B, A).

    Of several strata, the failure is in the first.

    f_c: (B, K, A), f_s: (B, K, 1), within (0, 1): A alternatives for K strata. differences: (B, A), within (-1, 1).
    counts: (B, K, 4): failures and trials of the canary, then of the stable arm. Rows without trials have ratio 1.
    """
    of_each = counts.transpose(2, 0, 1)[..., None].astype(np.float64)
    y_c, n_c, y_s, n_s = of_each
    # Where there are no trials any weight will do. Of one shape: to broadcast takes longer than to compute.
    weigh_c, weigh_s = np.repeat(np.maximum(of_each[1::2], 1.0), f_c.shape[2], axis=3)
    f_s = np.repeat(f_s, f_c.shape[2], axis=2)
    if counts.shape[1] == 1:
        g_c, g_s = project(f_c, f_s, differences[:, None, :], weigh_c, weigh_s)
    else:
        g_c, g_s = project_mean(f_c, f_s, differences, weigh_c, weigh_s)
    none_c, none_s = np.log((1 - f_c) / (1 - g_c)), np.log((1 - f_s) / (1 - g_s))
    more_c, more_s = np.log(f_c / g_c) - none_c, np.log(f_s / g_s) - none_s
    ratios = n_c * none_c + y_c * more_c + n_s * none_s + y_s * more_s
    return ratios.sum(axis=1), (more_c - more_s)[:, 0]


def divergence_from_margin(
    failure_rate: npt.ArrayLike, margin: npt.ArrayLike, n_c: npt.ArrayLike, n_s: npt.ArrayLike
) -> Array:
    """Kullback-Leibler divergence of n_c and n_s trials, all failing alike, from g_c = g_s + margin.

    failure_rate within (0, 1), n_c and n_s positive; the four broadcast, and the result has their shape.
    """
    f, d, n_c, n_s = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (failure_rate, margin, n_c, n_s)))
    g_c, g_s = project(f, f, d, n_c, n_s)
    return np.asarray(n_c * _divergence(f, g_c) + n_s * _divergence(f, g_s))


def project(f_c: Array, f_s: Array, differences: Array, n_c: Array, n_s: Array) -> tuple[Array, Array]:
    """(g_c, g_s) with g_c = g_s + differences that minimise n_c kl(f_c, g_c) + n_s kl(f_s, g_s).

    The arguments broadcast. The derivative times its positive denominators is a cubic in g_s whose middle root is
    the one, since the cubic has another sign beyond each edge. Viète's formula for that root, then a step of Newton's
    method for the last digits. The inverse of such a step is the sum of the inverse distances to the three roots. So
    inside of the edges it is small beside the distances to them only near the middle root; if not, `_search` finds it.
    """
    weight = n_c / (n_c + n_s)
    g = _middle_root(weight, f_c, f_s, differences)
    _, step, spread = _newton(g, weight, f_c, f_s, differences)
    if not (np.abs(step) < _SMALL * (spread - _EDGE)).all():
        return _search(g, weight, f_c, f_s, differences)
    g = g + step
    return g + differences, g


def _search(g: Array, weight: Array, f_c: Array, f_s: Array, differences: Array) -> tuple[Array, Array]:
    """`project` by Newton's method from g inside a bracket.

    The bracket is halved if a step would leave it or is more than half of the step before. It begins with the two
    separate minima, between which g_s lies.
    """
    from_c = f_c - differences
    lowest = np.maximum(0.0, -differences) + _EDGE
    highest = np.minimum(1.0, 1.0 - differences) - _EDGE
    low = np.minimum(np.maximum(np.minimum(f_s, from_c), lowest), highest)
    high = np.minimum(np.maximum(np.maximum(f_s, from_c), lowest), highest)
    g = np.minimum(np.maximum(g, low), high)
    step = high - low
    for _ in range(_ROUNDS):
        cubic, to_newton, spread = _newton(g, weight, f_c, f_s, differences)
        low, high = np.where(cubic <= 0, g, low), np.where(cubic >= 0, g, high)
        newton = g + to_newton
        halve = (newton < low) | (newton > high) | (2 * np.abs(newton - g) > np.abs(step))
        following = np.where(halve, (low + high) / 2, newton)
        step, g = following - g, following
        # After a Newton step the error is of the order of its square, after a halving as large as the step.
        settled = np.where(halve, 0.0, _SMALL * spread)
        if (np.abs(step) <= np.maximum(settled, 4e-16 * g)).all():
            break
    return g + differences, g


def _newton(g: Array, weight: Array, f_c: Array, f_s: Array, differences: Array) -> tuple[Array, Array, Array]:
    """The cubic at g, Newton's step from there, and the smaller one of g (1 - g) of both arms."""
    c, rest = g + differences, 1 - weight
    other_c, other_s = 1 - c, 1 - g
    spread_c, spread_s = c * other_c, g * other_s
    off_c, off_s = weight * (c - f_c), rest * (g - f_s)
    cubic = off_c * spread_s + off_s * spread_c
    slope = weight * spread_s + off_c * (other_s - g) + rest * spread_c + off_s * (other_c - c)
    return cubic, -cubic / (slope + (slope == 0)), np.minimum(spread_c, spread_s)


def project_mean(f_c: Array, f_s: Array, differences: Array, n_c: Array, n_s: Array) -> tuple[Array, Array]:
    """(g_c, g_s) with mean(g_c - g_s) = differences over strata that minimise the sum of n kl(f, g) over all streams.

    f_c, f_s, n_c, n_s: (B, K, A) or (B, K, 1). differences: (B, A). Given the Lagrange multiplier each rate is the root
    of a quadratic; what is left is one increasing equation per alternative, for Newton's method inside a bracket. Of
    the last bracket the end nearer to (f_c, f_s) is taken: by the proof above its ratio is an e-value, exact or not.
    """
    target = differences * f_c.shape[1]
    apart = (f_c - f_s).sum(axis=1) - target
    side = np.where(apart > 0, 1.0, -1.0)
    # A multiplier of this size pulls all rates so near to 0 and 1 that they are beyond the target.
    reach = 2 * (n_c * np.maximum(f_c, 1 - f_c) + n_s * np.maximum(f_s, 1 - f_s)).sum(axis=1)
    reach /= f_c.shape[1] * (1 - np.abs(differences))
    inner = multiplier = np.zeros_like(target)
    outer = step = -side * reach
    for _ in range(_ROUNDS):
        g_c, slope_c = _pulled(f_c, multiplier[:, None, :] / n_c)
        g_s, slope_s = _pulled(f_s, -multiplier[:, None, :] / n_s)
        left = side * ((g_c - g_s).sum(axis=1) - target)
        inner, outer = np.where(left >= 0, multiplier, inner), np.where(left >= 0, outer, multiplier)
        settled = ((left >= 0) & (left <= 2 * _NEAR)) | (np.abs(apart) <= 2 * _NEAR)
        if settled.all():
            break
        # Aiming a little before the target, it ends on the near side.
        newton = multiplier - side * (left - _NEAR) / (slope_c / n_c + slope_s / n_s).sum(axis=1)
        halve = ((newton - inner) * (newton - outer) > 0) | (2 * np.abs(newton - multiplier) > np.abs(step))
        following = np.where(settled, multiplier, np.where(halve, (inner + outer) / 2, newton))
        step, multiplier = following - multiplier, following
    g_c, _ = _pulled(f_c, inner[:, None, :] / n_c)
    g_s, _ = _pulled(f_s, -inner[:, None, :] / n_s)
    return g_c, g_s


def _pulled(f: Array, force: Array) -> tuple[Array, Array]:
    """The g with g - f = force * g (1 - g), and its derivative with respect to the force."""
    rising = force > 0
    strength = np.abs(force)
    # Towards 1 for a positive force, towards 0 for a negative one; solved for the distance from the other end.
    start = np.where(rising, f, 1 - f)
    root = np.sqrt((1 - strength) ** 2 + 4 * strength * start)
    weak = 2 * start / np.maximum(1 - strength + root, 1e-300)
    strong = (strength - 1 + root) / (2 * np.maximum(strength, 1.0))
    moved = np.where(strength <= 1, weak, strong)  # each where it does not cancel
    g = np.where(rising, moved, 1 - moved)
    return g, g * (1 - g) / root


def _middle_root(weight: Array, f_c: Array, f_s: Array, d: Array) -> Array:
    """The middle one of the three real roots of the cubic, to about eight digits at worst."""
    rest = 1 - weight
    other, part = 1 - d, rest * d
    mean = weight * f_c + rest * f_s
    # The cubic is -g**3 + 3 square g**2 + linear g - rest f_s d (1 - d).
    square = (other - part + mean) / 3
    linear = d - mean - part * (d - 2 * f_s)
    squared = square * square
    width = np.maximum(linear / 3 + squared, 1e-300)
    scale = 2 * np.sqrt(width)
    tilt = part * f_s * other - square * (linear + 2 * squared)
    angle = np.arcsin(np.minimum(np.maximum(tilt / (scale * width), -1.0), 1.0)) / 3
    return np.asarray(square + scale * np.sin(angle))


def _divergence(f: Array, g: Array) -> Array:
    return np.asarray(f * np.log(f / g) + (1 - f) * np.log((1 - f) / (1 - g)))
