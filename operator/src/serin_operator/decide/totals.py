"""How far a block's evidence for *worse* may be raised, given the block's totals.

An e-value has a mean of at most 1 at every failure rate that both arms may share, and less than 1 at most of them. But
given how many of a block's trials failed in both arms together, that rate plays no part in how many of them were the
canary's: while both arms fail alike, the number has the central hypergeometric distribution, as in Fisher's exact
test. So what a block makes of the bets may be multiplied by a factor that depends on the totals, until its mean given
them is what the bets were before. What they come to beyond a ceiling is cut off before that mean is taken: a metric
that rolls back needs no more, and what is saved there counts where it is still missing.

While the canary fails less than the stable arm, it has fewer of the failures, and the bets rise with their number: the
mean is lower then.

Source: Fischer and Ramdas, "Improving the (approximate) sequential probability ratio test by avoiding overshoot".
"""

import numpy as np

from serin_operator.decide.projection import Array, Integers

_DEVIATIONS, _MORE = 8, 12  # how far from the mean is looked: what is beyond has less than 1e-14 of the chances
_ROUNDS = 50  # until the same outcomes are cut off as in the round before: a few are usual
MOST, _LEAST = 600.0, 1e-300  # of a logarithm, so that its exponential is a number; of what is divided by


def log_factor(before: Array, after: Array, slopes: Array, room: Array, block: Integers) -> Array:
    """(B,), ln of the factor by which a block's likelihood ratios are raised, or lowered.

    before: (B,), ln of what all bets come to before the block. after: (J, B), ln of each bet after it. slopes: (J, B),
    by how much that is more for a failure of the canary instead of one of the stable arm, not negative. room: (B,), ln
    of what all bets may come to, more than before. block: (B, 4), failures and trials of the canary, then of the
    stable arm; both have trials.
    """
    y_c, n_c, y_s, n_s = block.T.astype(np.float64)
    counts, chances = _canary_failures(n_c, n_s, y_c + y_s)
    # Relative to before: each bet, (J, W, B), and what all come to, if so many of the failures are the canary's.
    logs = (after - before)[:, None] + slopes[:, None] * (counts - y_c)
    grown = np.exp(np.minimum(logs, MOST)).sum(axis=0)
    most = np.minimum(room - before, MOST)
    highest = most + before - np.logaddexp.reduce(after, axis=0)
    return np.asarray(np.minimum(np.log(_factor(grown, chances, np.exp(most))), highest))


def _canary_failures(n_c: Array, n_s: Array, failures: Array) -> tuple[Array, Array]:
    """How many of the failures may be the canary's, (W, B), and the chance of each number; some have the chance 0."""
    trials, surplus = n_c + n_s, failures - n_s
    mean = failures * n_c / trials
    variance = mean * (n_s / trials) * ((trials - failures) / np.maximum(trials - 1, 1))
    reach = np.ceil(_DEVIATIONS * np.sqrt(variance)) + _MORE
    least = np.maximum(np.maximum(0, surplus), np.floor(mean - reach))
    most = np.minimum(np.minimum(failures, n_c), np.ceil(mean + reach))
    counts = least + np.arange(int((most - least).max()) + 1)[:, None]
    # The chance of each number relative to that of the one before.
    ratios = (failures + 1 - counts) * (n_c + 1 - counts) / np.maximum(counts * (counts - surplus), 1)
    ratios[0] = 1.0
    chances = np.cumprod(np.where(counts <= most, ratios, 0.0), axis=0)
    return np.minimum(counts, most), chances / chances.sum(axis=0)


def _factor(grown: Array, chances: Array, most: Array) -> Array:
    """(B,), the factor with which the mean of what is not cut off at `most` is 1.

    That mean is concave in the factor, so each round's tangent reaches 1 before the mean does: the factor only grows,
    and is never too large.
    """
    shares = chances * grown
    factor = 1 / np.maximum(shares.sum(axis=0), _LEAST)
    cut = np.zeros(grown.shape, np.bool_)
    for _ in range(_ROUNDS):
        before, cut = cut, factor * grown >= most
        if (before == cut).all():
            break
        left = 1 - most * np.where(cut, chances, 0.0).sum(axis=0)
        factor = left / np.maximum(np.where(cut, 0.0, shares).sum(axis=0), _LEAST)
    return np.asarray(factor)
