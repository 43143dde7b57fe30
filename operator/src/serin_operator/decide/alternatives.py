"""What the tests look for: rates of the canary that lie outside a null hypothesis, and the stake of each.

All are made from the stable arm's rate before the block, so that more failures of the canary never move them.
"""

from dataclasses import dataclass

import numpy as np

from serin_operator.decide.grid import GRID
from serin_operator.decide.projection import Array, Integers

_LOWEST_RATE = 1e-6  # where f_s - margin/2 is not a rate, the alternative is "the canary hardly ever fails"
_HIGHEST_RATE = 1 - 1e-12  # keeps logarithms finite where f_s + tolerance is all but 1
_LEAST_PART = 1e-4  # a canary that is better fails at least this part of the stable rate
_LEAST_CHANCE = 1e-12  # of a lesson that is worth its time
_MOST_HISTORY = 1000  # trials; more of the past would hold on to a rate that has changed since


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """Alternatives: `margins` beyond the limit in multiples of the margin, then by the ratio `odds`. Equal lengths.

    log_weights: of each, their exponentials sum to 1.
    first: the part of the stake that is laid at the start; the rest is for onsets.
    lesson: of a first block without history, up to so many stable trials teach the rate and are not tested.
    """

    margins: Array
    odds: Array
    log_weights: Array
    first: float = 1.0
    lesson: int = 0

    @classmethod
    def of(
        cls, margins: list[float], log_odds: list[float], weights: list[float], *, first: float = 1.0, lesson: int = 0
    ) -> "Prior":
        """Weights in any unit."""
        return cls(np.array(margins), np.exp(log_odds), np.log(np.array(weights) / sum(weights)), first, lesson)

    def share(self, onset: Integers) -> Array:
        """What the k-th onset gets, k = 1, 2, ..., relative to what was laid at the start."""
        return np.asarray((1 - self.first) / self.first / (onset * (onset + 1)))

    def unspent(self, onsets: Integers) -> Array:
        """The part of the stake that is left after so many onsets."""
        return np.asarray((1 - self.first) / (onsets + 1))


# What the user declared to matter is the margin, so nearly all of the stake is on one to three of it. Chosen by
# simulation: docs/adr/0010-alternatives-in-margins.md.
WORSE = Prior.of(margins=[1, 2.2, 3.5, 8], log_odds=[0.0] * 4, weights=[16, 56, 18, 10], first=0.97, lesson=50)
NON_INFERIOR = Prior.of(margins=[0.0, 0.5, -0.5], log_odds=[0.0] * 3, weights=[2, 1, 1])
SUPERIOR = Prior.of(margins=[0.5, 1, 2, 0, 0], log_odds=[0, 0, 0, 0.7, 2.0], weights=[0.25, 0.25, 0.2, 0.2, 0.1])


def recent(history: Integers) -> Integers:
    """Failures and trials (..., 2), scaled down to what the past may weigh."""
    trials = np.maximum(history[..., 1:], 1)
    return np.rint(history * np.minimum(1.0, _MOST_HISTORY / trials)).astype(np.int64)


def lessons(failures: Integers, trials: Integers, most: int) -> tuple[Integers, Array]:
    """Where the rate is not known yet, a third of a block's stable trials, at most `most`, teach it.

    failures, trials: (B,), of the block. Returns how many trials teach (B,), and the chances (B, most + 1) that
    0, 1, ... of them are failures, if any of the block's trials are as likely to be among them. The mean over these
    chances of the e-value of the other trials is an e-value: it is one whichever trials teach.
    """
    teach = np.minimum(trials // 3, most)
    drawn = np.arange(most + 1)
    chances = np.zeros((len(trials), most + 1))
    chances[:, 0] = 1.0
    for i in range(most):
        left = np.maximum(trials - i, 1)[:, None]
        failing = np.clip(failures[:, None] - drawn, 0, left) / left
        following = chances * (1 - failing)
        following[:, 1:] += chances[:, :-1] * failing[:, :-1]
        chances = np.where((i < teach)[:, None], following, chances)
    return teach, np.where(chances > _LEAST_CHANCE, chances, 0.0)


def stable_rate(failures: Array, trials: Array) -> Array:
    """The stable arm's past rate, always strictly within (0, 1)."""
    return np.asarray((1 + failures) / (10 + trials))


def canary_rate(failures: Array, trials: Array, f_s: Array) -> Array:
    """The canary's past rate, drawn to f_s with the weight of one failure (or success, if that is rarer)."""
    weight = 1 / np.minimum(f_s, 1 - f_s)
    return np.asarray((failures + weight * f_s) / (trials + weight))


def above(f_s: Array, tolerance: Array, margin: Array, prior: Prior) -> Array:
    """Rates above f_s + tolerance, bent so that none reaches 1; f_s where that limit is 1 or more."""
    limit = f_s + tolerance
    room = np.maximum(1 - limit, 1e-300)
    missing = room * np.exp(-np.minimum(prior.margins * margin / room, 600.0))
    missing = missing / (missing + (1 - missing) * prior.odds)
    return np.where(limit < 1, np.minimum(1 - missing, _HIGHEST_RATE), f_s)


def below(f_s: Array, margin: Array, prior: Prior) -> Array:
    """Rates below f_s, bent so that none reaches 0."""
    rate = f_s * np.maximum(np.exp(-np.minimum(prior.margins * margin / f_s, 600.0)), _LEAST_PART)
    return np.asarray(rate / (rate + (1 - rate) * prior.odds))


def near(f_s: Array, margin: Array, prior: Prior) -> Array:
    """Rates about f_s, to be told from f_s + margin."""
    return np.minimum(np.maximum(f_s + margin * prior.margins, _LOWEST_RATE), 1 - _LOWEST_RATE)


def side_by_side(f_c: Array, f_s: Array, tolerance: Array, margin: Array, prior: Prior) -> tuple[Array, Array]:
    """All alternatives: those of `prior`, of NON_INFERIOR and of SUPERIOR, then f_c for each difference in GRID.

    f_c, f_s: (B, K, 1), the arms' past rates. tolerance, margin: (B,). Returns the canary's rates (B, K, A) and the
    differences where the null hypotheses end (B, A).
    """
    margins = margin[:, None, None]
    families = [
        above(f_s, tolerance[:, None, None], margins, prior),
        near(f_s, margins, NON_INFERIOR),
        below(f_s, margins, SUPERIOR),
        np.repeat(f_c, len(GRID), axis=2),
    ]
    rates = np.concatenate(families, axis=2)
    limits = np.zeros((len(f_s), rates.shape[2]))
    first, second = len(prior.margins), len(prior.margins) + len(NON_INFERIOR.margins)
    limits[:, :first] = tolerance[:, None]
    limits[:, first:second] = margin[:, None]
    limits[:, -len(GRID) :] = GRID
    return rates, limits
