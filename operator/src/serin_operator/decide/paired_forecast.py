"""How many pairs of answers a shadow's test has to wait for. Pure arithmetic, as `forecast` has it for two arms.

A bet's log odds grow by the mean of ln(1 + l (d - t)) per pair, at best with the strength of `bets.strengths`: that is
the Kullback-Leibler divergence from the nearest point of the hypothesis, so that no test that keeps its error rate is
quicker. What is told to plan for is PLANNING_FACTOR times as long.

The evidence is the mean of two tests (`pairs`): of all pairs, in which those whose answers differ count against what is
to be shown until a label tells who is right, and of the labelled ones only.
"""

import math
from dataclasses import dataclass

import numpy as np

from serin_operator.decide import bets
from serin_operator.decide.forecast import PLANNING_FACTOR

_HALVINGS = 40
_LEAST = 1e-9  # of a share, so that no bet is lost for certain


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known of the pairs.

    differ: the share of requests that both answer differently, just one of them rightly. labelled: of all pairs.
    """

    differ: float
    labelled: float


def one_wrong(differ: float, excess: float) -> tuple[float, float]:
    """The shares of pairs where only the canary's answer is wrong, and only stable's.

    differ: the share whose answers differ, just one of them right. excess: the canary's share of failures minus
    stable's; the answers differ at least as often.
    """
    differ = max(differ, abs(excess))
    return (differ + excess) / 2, (differ - excess) / 2


def pairs_to_promotion(answers: Answers, *, margin: float, log_odds: float, better_by: float | None = None) -> float:
    """Pairs to plan for until `log_odds` are gained that the canary is worse by less than the margin; may be inf.

    It takes the canary to fail as often as stable. better_by: that it is better is to be shown, and it is by so much.
    """
    limit, excess = (margin, 0.0) if better_by is None else (0.0, -better_by)
    b, c = one_wrong(answers.differ, excess)
    unknown = (b + c) * (1 - answers.labelled)
    every = growth(limit, b * answers.labelled + unknown, c * answers.labelled, below=True)
    labelled = answers.labelled * growth(limit, b, c, below=True)
    return _pairs(every, labelled, PLANNING_FACTOR * log_odds)


def detectable_worsening(
    answers: Answers, pairs: float, *, tolerance: float, most: float, log_odds: float
) -> float | None:
    """The smallest excess, up to `most`, that gains `log_odds` for *worse* within so many pairs; None if none does."""

    def found(excess: float) -> bool:
        b, c = one_wrong(answers.differ, excess)
        unknown = (b + c) * (1 - answers.labelled)
        every = growth(tolerance, b * answers.labelled, c * answers.labelled + unknown, below=False)
        labelled = answers.labelled * growth(tolerance, b, c, below=False)
        return _pairs(every, labelled, PLANNING_FACTOR * log_odds) <= pairs

    low, high = tolerance, most
    if low >= high or not found(high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def growth(limit: float, b: float, c: float, *, below: bool) -> float:
    """Log odds per pair of the best bet that the mean of d is below the limit, or above it; 0 where it is not.

    b, c: the shares of pairs that count as d = 1 and d = -1.
    """
    if (b - c >= limit) if below else (b - c <= limit):
        return 0.0
    p_b, p_c, t = (np.array(value) for value in (max(b, _LEAST), max(c, _LEAST), limit))
    strength = bets.strengths(p_b, p_c, t)
    return float(bets.winnings(strength, t, 1 - p_b - p_c, p_b, p_c))


def _pairs(every: float, labelled: float, log_odds: float) -> float:
    """How many pairs until the mean of both tests' odds has grown to that. every, labelled: log odds per pair."""
    faster, slower = max(every, labelled), min(every, labelled)
    if faster <= 0:
        return math.inf
    low, high = log_odds / faster, (log_odds + math.log(2)) / faster
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = np.logaddexp(middle * faster, middle * slower) - math.log(2) >= log_odds
        low, high = (low, middle) if enough else (middle, high)
    return high
