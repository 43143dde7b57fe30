"""Sequential tests of one arm against a fixed rate: is its share of failures over a bound, is it under it?

The same family as `evidence.py`: mixtures of likelihood ratios, one per alternative, that are e-processes while the
rate is on the other side of the bound, whatever it does there. The bound comes with each block and may change between
blocks: then the evidence is against having been on that side of the bound of each time. So the share of the requests
that the canary gets is tested with it too, against the weight of the time.

Everything here is pure. All evidence is in natural logarithms. B tests in a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serin_operator.decide.projection import Array
from serin_operator.decide.sums import Singles, log_mean_exp, pack, rounded_down, unpack

# Alternatives: log odds ratios to the bound, and their weights. Shares of the traffic are off by little and are counted
# in thousands; failures are few and off by factors.
_LOG_ODDS = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
_LOG_WEIGHTS = np.log(np.array([1, 1, 2, 3, 3, 2, 1]) / 13)
_LAYOUT = 1


@dataclass(frozen=True, slots=True, eq=False)
class OneArm:
    """The state of a batch of tests. Make it with `start`, change it with `update` only.

    over, under: (B, 7), log likelihood ratio per alternative, rounded down to single precision.
    """

    over: Singles
    under: Singles

    def __len__(self) -> int:
        return len(self.over)


def start(batch: int) -> OneArm:
    """No evidence yet, for so many tests."""
    nothing = np.zeros((batch, len(_LOG_ODDS)), np.float32)
    return OneArm(nothing, nothing)


def update(state: OneArm, counts: npt.ArrayLike, bound: npt.ArrayLike, phi: npt.ArrayLike = 1.0) -> OneArm:
    """The evidence after one more block. A block without trials changes nothing.

    counts: integers (B, 2), failures and trials. bound, phi: scalars or (B,); phi is the overdispersion that the log
    likelihood ratios are divided by. Raises ValueError unless 0 <= failures <= trials, 0 < bound < 1 and phi >= 1.
    """
    counts, bound, phi = np.asarray(counts), np.asarray(bound, np.float64), np.asarray(phi, np.float64)
    if counts.shape != (len(state), 2) or counts.dtype.kind not in "iu":
        raise ValueError(f"expected integers of shape {(len(state), 2)}, got {counts.dtype} of shape {counts.shape}")
    if not np.all((counts[:, 0] >= 0) & (counts[:, 0] <= counts[:, 1])):
        raise ValueError(f"need 0 <= failures <= trials, got {counts.tolist()}")
    if not np.all((bound > 0) & (bound < 1)) or not np.all((phi >= 1) & (phi < math.inf)):
        raise ValueError(f"need 0 < bound < 1 and a finite phi of at least 1, got {bound} and {phi}")
    shape = (len(state), 1)
    bound, phi = (np.broadcast_to(each, len(state)).reshape(shape) for each in (bound, phi))
    failures, successes = counts[:, :1], counts[:, 1:] - counts[:, :1]

    def gain(log_odds: Array) -> Array:
        per_failure = -np.log(bound + (1 - bound) * np.exp(-log_odds))
        per_success = -np.log(1 - bound + bound * np.exp(log_odds))
        return np.asarray((failures * per_failure + successes * per_success) / phi)

    return OneArm(rounded_down(state.over + gain(_LOG_ODDS)), rounded_down(state.under + gain(-_LOG_ODDS)))


def log_e_over(state: OneArm) -> Array:
    """(B,), ln of the odds that the rate is over the bound. 0 without data."""
    return log_mean_exp(state.over, _LOG_WEIGHTS)


def log_e_under(state: OneArm) -> Array:
    """(B,), ln of the odds that the rate is under the bound. 0 without data."""
    return log_mean_exp(state.under, _LOG_WEIGHTS)


def log_e_either(state: OneArm) -> Array:
    """(B,), ln of the odds that the rate is not the bound, on either side. 0 without data."""
    return np.asarray(np.logaddexp(log_e_over(state), log_e_under(state)) - math.log(2))


def encode(state: OneArm) -> list[str]:
    """One text per test, at most 70 characters. `decode` gives back what encodes equal."""
    return [pack([_LAYOUT], [], np.concatenate(sums)) for sums in zip(state.over, state.under, strict=True)]


def decode(texts: Sequence[str]) -> OneArm:
    """Reads what `encode` wrote. Raises ValueError for anything else, another layout included."""
    sums = []
    for text in texts:
        integers, doubles, singles = unpack(text)
        if integers != [_LAYOUT] or len(doubles) or len(singles) != 2 * len(_LOG_ODDS):
            raise ValueError(f"not a stored state of a test of one arm in layout {_LAYOUT}: {text!r}")
        if not np.isfinite(singles).all():
            raise ValueError(f"a stored state of a test of one arm holds sums that are not finite: {text!r}")
        sums.append(singles)
    over, under = np.split(np.array(sums, np.float32).reshape(-1, 2 * len(_LOG_ODDS)), [len(_LOG_ODDS)], axis=1)
    return OneArm(over, under)
