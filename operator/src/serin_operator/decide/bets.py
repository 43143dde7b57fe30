"""Bets on the difference of two answers to the same request: what the paired tests lay their stake on.

A pair counts d = 1 if only the canary's answer is wrong, -1 if only the stable arm's is, else 0. A bet of strength l
against "the mean of d is at most t" multiplies what is laid by 1 + l (d - t) at each pair. For 0 <= l <= 1 / (1 + t)
that is never negative, and its mean is at most 1 whatever the rates are, as long as the mean of d is at most t: the
product over pairs is an e-process. With negative l, down to -1 / (1 - t), it is one against "the mean of d is at least
t". Each pair may have other rates than the one before; only the mean of d, given the pairs before, has to be on that
side.

The strength follows from an alternative, the shares p_b of d = 1 and p_c of d = -1, as that whose logarithm grows
fastest. By the Karush-Kuhn-Tucker conditions the point of {mean of d <= t} that is nearest in the Kullback-Leibler
sense has the probabilities p / (1 + l (d - t)) with this very l. So the bet is the likelihood ratio against the reverse
information projection, and all alternatives of one strength are the same bet.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"; Larsson, Ramdas and Ruf,
"The numeraire e-variable and reverse information projection".

Shapes: B tests, A alternatives, R rates of disagreement.
"""

import numpy as np
import numpy.typing as npt

from serin_operator.decide.alternatives import Prior
from serin_operator.decide.projection import Array, Integers

_NOT_SURE = 0.96  # an alternative's mean of d is at most this part of its rate of disagreement
_LARGEST_MEAN = 0.9
_TRUST = 0.95  # in the rate of disagreement from before; the rest is for one that has changed

# How often just one of the answers is right, before anything is known about that.
_RATES = 0.0025 * 2.0 ** np.arange(9)
_RATE_WEIGHTS = np.array([1, 1, 2, 3, 3, 3, 2, 1, 1]) / 17

# Parts of the strongest bet, for every difference of the interval.
_PARTS = np.geomspace(0.01, 0.95, 12)


def strengths(p_b: Array, p_c: Array, limit: Array) -> Array:
    """Of the bet against a mean of d on the other side of `limit` from p_b - p_c. The arguments broadcast.

    p_b, p_c: positive, p_b + p_c <= 1. limit: within (-1, 1). The derivative of the growth is, times its positive
    denominators, a quadratic in the strength; of its roots this is the one between the strongest bets.
    """
    apart = p_b - p_c - limit
    square = limit * (1 - limit**2)
    linear = p_b * (1 - limit) * (1 + 2 * limit) + p_c * (1 + limit) * (1 - 2 * limit) - 2 * (1 - p_b - p_c) * limit**2
    return np.asarray(2 * apart / (linear + np.sqrt(linear**2 - 4 * square * apart)))


def of_alternatives(limit: Array, margin: Array, prior: Prior) -> Array:
    """(B, A * R), strengths for means of d that are the prior's multiples of the margin beyond the limit.

    limit, margin: (B, 1). Every such mean goes with every rate of disagreement, or the least that allows it.
    """
    mean = limit + prior.margins * margin
    mean = np.clip(mean, -_LARGEST_MEAN, _LARGEST_MEAN)[..., None]
    rate = np.maximum(_RATES, np.abs(mean) / _NOT_SURE)
    found = strengths((rate + mean) / 2, (rate - mean) / 2, limit[..., None])
    # An alternative that is not beyond the limit is no bet.
    outside = np.sign(mean - limit[..., None]) == np.sign(prior.margins)[:, None]
    return np.where(outside, found, 0.0).reshape(len(limit), len(prior.margins) * len(_RATES))


def log_weights(prior: Prior, history: Integers) -> Array:
    """(B, A * R), of the strengths that `of_alternatives` gives.

    history: (B, 2), earlier pairs whose answers differed, and all of them: rates of disagreement weigh as likely as
    they made these.
    """
    differed, pairs = (history[:, i, None].astype(np.float64) for i in range(2))
    log_likelihood = differed * np.log(_RATES) + (pairs - differed) * np.log1p(-_RATES)
    learned = _RATE_WEIGHTS * np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    learned /= learned.sum(axis=1, keepdims=True)
    of_rates = np.log(_TRUST * learned + (1 - _TRUST) * _RATE_WEIGHTS)
    return np.asarray(prior.log_weights[:, None] + of_rates[:, None, :]).reshape(
        len(history), len(prior.margins) * len(_RATES)
    )


def of_parts(limit: Array, side: int) -> Array:
    """(G, 12), strengths for the limits (G,). side: 1 against a mean of at most the limit, -1 of at least it."""
    return np.asarray(side * _PARTS / (1 + side * limit[:, None]))


def winnings(strength: Array, limit: Array, same: Array, b: Array, c: Array) -> Array:
    """ln of what the bets have become after so many pairs with d = 0, 1 and -1. The arguments broadcast."""
    return np.asarray(
        same * np.log1p(-strength * limit)
        + b * np.log1p(strength * (1 - limit))
        + c * np.log1p(-strength * (1 + limit))
    )


def log_mean(values: Array, log_weight: npt.ArrayLike) -> Array:
    """ln of the weighted mean of the exponentials, over the last axis."""
    return np.asarray(np.logaddexp.reduce(values + np.asarray(log_weight), axis=-1))


def log_even(values: Array) -> Array:
    """The same with equal weights."""
    return log_mean(values, -np.log(values.shape[-1]))
