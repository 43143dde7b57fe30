"""How many pairs of answers a shadow's test has to wait for. Pure arithmetic, as `forecast` has it for two arms.

A bet's log odds grow by the mean of ln(1 + l (d - t)) per pair, at best with the strength of `bets.strengths`: that is
the Kullback-Leibler divergence from the nearest point of the hypothesis, so that no test that keeps its error rate is
quicker. What is told to plan for is PLANNING_FACTOR times as long.

The evidence is the mean of two tests (`pairs`): of all pairs, in which those whose answers differ count against what is
to be shown until a label tells who is right, and of the labelled ones only.
"""

import math
from dataclasses import replace

import numpy as np

from serin_operator.api.spec import Goal
from serin_operator.decide import bets
from serin_operator.decide.forecast import PLANNING_FACTOR, Answers, Prospect, canary_trials
from serin_operator.decide.pairs import Totals

_PRECISION = 1e-5  # of a detectable worsening, as a fraction
_HALVINGS = 40  # for a number of pairs
_LEAST = 1e-9  # of a share, so that no bet is lost for certain
# From so many pairs on that a share of the margin would be so many, and from so many labels on, something is said.
_ENOUGH_DIFFERENT, _ENOUGH_LABELLED = 4, 5


def by_pairs(gate: Prospect, totals: Totals, per_minute: float) -> Prospect:
    """The same of a gate that pairs decide. totals: counted so far. per_minute: pairs of late."""
    answers = observed(totals, gate.margin)
    if answers is None:
        return replace(gate, paired=True, trials="labelled pairs of answers", per_minute=0.0)
    return replace(gate, paired=True, trials="pairs of answers", per_minute=per_minute, answers=answers)


def observed(totals: Totals, margin: float) -> Answers | None:
    """What the pairs so far tell of those to come; None while that is too little."""
    if totals.all * margin < _ENOUGH_DIFFERENT or totals.labelled < _ENOUGH_LABELLED:
        return None
    known = totals.only_canary + totals.only_stable  # of the others that differ, both are wrong
    differ, labelled = known + totals.waiting, totals.labelled / totals.all
    # As if half a pair more differed, and had its label: that none was seen yet does not mean that there are none.
    return Answers((0.5 + differ) / (0.5 + totals.all), labelled, settled=(0.5 + known) / (0.5 + differ))


def pairs_missing(gate: Prospect) -> float:
    """Pairs to plan for until the gate passes, its bound included; inf if never, or if too little is known of them."""
    if max(gate.missing, gate.missing_under) <= 0:
        return 0.0
    if gate.answers is None:
        return math.inf
    pairs = pairs_to_goal(gate, gate.answers)
    if gate.bound is None:
        return pairs
    (labels,) = canary_trials([replace(gate, missing=0.0)], [100.0])
    return max(pairs, labels / max(gate.answers.labelled, _LEAST))


def labels_missing(gate: Prospect) -> float | None:
    """Labels of the canary that come with so many pairs; None while too little is known of them."""
    return None if gate.answers is None else pairs_missing(gate) * gate.answers.labelled


def pairs_to_goal(gate: Prospect, answers: Answers) -> float:
    """Pairs to plan for until the gate's goal is shown, if the canary is as good as stable, or better by the margin."""
    better_by = min(gate.margin, 0.99 * gate.failure_rate) if gate.goal is Goal.SUPERIOR else None
    return pairs_to_promotion(answers, margin=gate.margin, log_odds=gate.missing, better_by=better_by)


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
    if log_odds <= 0:
        return 0.0
    limit, excess = (margin, 0.0) if better_by is None else (0.0, -better_by)
    return _pairs(*_growths(answers, limit, excess, below=True), PLANNING_FACTOR * log_odds)


def detectable_worsening(
    answers: Answers, pairs: float, *, tolerance: float, most: float, log_odds: float
) -> float | None:
    """The smallest excess, up to `most`, that gains `log_odds` for *worse* within so many pairs; None if none does."""

    def found(excess: float) -> bool:
        return _gained(pairs, *_growths(answers, tolerance, excess, below=False)) >= PLANNING_FACTOR * log_odds

    low, high = tolerance, most
    if low >= high or not found(high):
        return None
    while high - low > _PRECISION:
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


def _growths(answers: Answers, limit: float, excess: float, *, below: bool) -> tuple[float, float]:
    """Log odds per pair of both tests: of all pairs, and of those with a label."""
    b, c = one_wrong(answers.differ, excess)
    waiting = (b + c) * (1 - answers.settled)
    b, c = b * answers.settled, c * answers.settled
    more_b, more_c = (waiting, 0.0) if below else (0.0, waiting)
    every = growth(limit, b + more_b, c + more_c, below=below)
    labelled = max(answers.labelled, b + c)
    return every, labelled * growth(limit, b / labelled, c / labelled, below=below) if labelled else 0.0


def _gained(pairs: float, every: float, labelled: float) -> float:
    """Log odds of the mean of both tests' odds after so many pairs. every, labelled: log odds per pair."""
    return float(np.logaddexp(pairs * every, pairs * labelled)) - math.log(2)


def _pairs(every: float, labelled: float, log_odds: float) -> float:
    """How many pairs until the mean of both tests' odds has grown to that. every, labelled: log odds per pair."""
    faster, slower = max(every, labelled), min(every, labelled)
    if faster <= 0:
        return math.inf
    low, high = log_odds / faster, (log_odds + math.log(2)) / faster
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _gained(middle, faster, slower) >= log_odds
        low, high = (low, middle) if enough else (middle, high)
    return high
