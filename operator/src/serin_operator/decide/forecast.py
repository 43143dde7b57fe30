"""How long a rollout has to wait for its verdict, and what it can see in the time it has. Pure arithmetic.

A test's average wait for its evidence is at least the missing log odds divided by the Kullback-Leibler divergence
that a minute of traffic adds: no test that keeps its error rate is quicker (Wald). Overdispersion phi makes every
minute worth 1/phi of that. What is told to plan for is PLANNING_FACTOR times as long.

A schedule is a sequence of (weight in per cent, least minutes) from now on; the last weight serves for as long as it
takes. A metric's traffic is its trials per minute in both arms together. Where labels are counted at an age, all
evidence comes so much later; once the first have come, it comes as fast as without.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from serin_operator.api.spec import Goal
from serin_operator.api.status import Forecast
from serin_operator.decide.projection import Array, project
from serin_operator.decide.words import count, duration, points

# Times the average that no test can beat. Simulated at rates of 0.01 to 0.2, margins of 0.01 and 0.02, 10 and 100
# requests a second, a tenth or half of them to the canary: 73 to 77 % of the waits for promotion end within it (their
# average is 1.1 to 1.24 times the bound), and at least 53, 60 and 71 % of those for a worsening of 0.5, 1, 2.5 margins.
PLANNING_FACTOR = 1.5
_PRECISION = 1e-5  # of a detectable worsening, as a fraction
_TRIED_AT_ONCE = 101

Schedule = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known of a shadow's pairs of answers.

    differ: the share of requests that both answer differently, just one of them rightly as far as is known.
    labelled: of all pairs. settled: of those that differ; the same where labels come at random.
    """

    differ: float
    labelled: float
    settled: float


@dataclass(frozen=True, slots=True)
class Prospect:
    """One gate before its verdict: all that a forecast needs to know of it.

    failure_rate: of the stable arm, strictly within (0, 1). per_minute: trials in both arms; `trials` is what they are
    called. phi: every log likelihood ratio is divided by it. missing: log odds still to be gained for the goal.
    for_rollback: log odds at which this metric alone rolls back; None if it can not.
    bound, missing_under: the absolute bound, and the log odds still to be gained that the canary is under it.
    delay: minutes from a trial to when it is counted. under_way: minutes since the canary's first trial.
    paired: whether a shadow's pairs of answers decide; they are its trials then. answers: what is known of them; None
        while that is too little.
    """

    name: str
    trials: str
    goal: Goal
    tolerance: float
    margin: float
    failure_rate: float
    per_minute: float
    phi: float
    missing: float
    for_rollback: float | None
    bound: float | None = None
    missing_under: float = 0.0
    delay: float = 0.0
    under_way: float = 0.0
    paired: bool = False
    answers: Answers | None = None

    @property
    def silence(self) -> float:
        """Minutes until the canary's first trial is counted."""
        return max(0.0, self.delay - self.under_way)


class Course(Protocol):
    """What is ahead of a canary until its promotion."""

    def waits(self, gates: Sequence[Prospect]) -> list[float]:
        """Minutes to plan for until each gate lets a good canary be promoted; inf for never."""

    def worsening(self, gate: Prospect, minutes: float) -> float | None:
        """The smallest that is mostly rolled back within so many minutes; None if none is."""


def minutes_to_promotion(
    schedule: Schedule,
    *,
    failure_rate: float,
    margin: float,
    per_minute: float,
    log_odds: float,
    phi: float = 1.0,
    goal: Goal = Goal.NON_INFERIOR,
) -> float:
    """Minutes to plan for until the schedule is done and `log_odds` are gained; inf when that never comes.

    It takes the canary to fail as often as the stable arm or, for the goal Superior, less often by the margin
    (hardly ever, if the stable arm fails no more often than that). Raises ValueError for an empty schedule.
    """
    gains = _gain_for_goal(goal is Goal.SUPERIOR, failure_rate, margin, _weights(schedule))
    return _minutes(schedule, per_minute / phi * gains, log_odds)


def waits(gates: Sequence[Prospect], schedule: Schedule) -> list[float]:
    """The same for what each gate still misses, its bound included."""
    for_goal, under_bound = _gains(gates, _weights(schedule))
    return [
        max(
            _minutes(schedule, gate.per_minute * for_goal[i], gate.missing, gate.silence),
            _minutes(schedule, gate.per_minute * under_bound[i], gate.missing_under, gate.silence),
        )
        for i, gate in enumerate(gates)
    ]


def canary_trials(gates: Sequence[Prospect], weights: Sequence[float]) -> list[float]:
    """Trials of the canary to plan for until each gate passes; inf when it never does.

    weights: per gate, the canary's share of its trials in per cent.
    """
    shares = np.array(weights)[:, None]
    return [
        weight
        / 100
        * max(_minutes([(weight, 0)], *need) for need in ((goal, gate.missing), (under, gate.missing_under)))
        for gate, weight, goal, under in zip(gates, weights, *_gains(gates, shares), strict=True)
    ]


def detectable_worsening(
    schedule: Schedule,
    minutes: float,
    *,
    failure_rate: float,
    tolerance: float,
    per_minute: float,
    log_odds: float,
    phi: float = 1.0,
) -> float | None:
    """The smallest f_c - f_s that gains `log_odds` for *worse* within `minutes`; None if none does.

    Planned with PLANNING_FACTOR; rounded up to 1e-5.
    """
    spent = list(_spent(schedule, minutes))
    weights = _weights(spent)
    trials = np.array([per_minute * at_weight for _, at_weight in spent])

    low, high = tolerance, 1 - failure_rate - 1e-9
    if low >= high:
        return None
    while True:
        # Many at once: a call for one takes as long. The more it is worse, the more is gained.
        tried = np.linspace(low, high, _TRIED_AT_ONCE)
        gains = divergence(failure_rate + tried[:, None], failure_rate, tolerance, weights) @ trials / phi
        suffices = gains >= PLANNING_FACTOR * log_odds
        if not suffices[-1]:
            return None
        first = int(np.argmax(suffices))
        low, high = float(tried[max(0, first - 1)]), float(tried[first])
        if high - low <= _PRECISION:
            return high


def forecast(gates: Sequence[Prospect], course: Course, *, max_minutes: float, time: float) -> Forecast:
    """What status tells: when the slowest gate decides, and which worsening of it is likely found in the time there is.

    max_minutes: from the first request to the canary (maxDuration). time: now, in seconds since the epoch. Raises
    ValueError without gates.
    """
    minutes, slowest = max(zip(course.waits(gates), gates, strict=True), key=lambda each: each[0])
    detectable = course.worsening(slowest, max_minutes)
    return Forecast(
        time=time,
        message=message(slowest, minutes, detectable, max_minutes),
        minutes=minutes if math.isfinite(minutes) else None,
        limited_by=slowest.name,
        detectable=detectable,
        per_minute=slowest.per_minute,
    )


def message(slowest: Prospect, minutes: float, detectable: float | None, max_minutes: float) -> str:
    """The sentence of a forecast. slowest: the gate that takes `minutes`, inf for never. detectable: a worsening."""
    name, limit = slowest.name, duration(max_minutes)
    if slowest.per_minute <= 0:
        return f"Too few {slowest.trials} were counted yet for {name} to say how long it takes."
    good = f"better by {points(slowest.margin)}" if slowest.goal is Goal.SUPERIOR else "good"
    if math.isfinite(minutes):
        late = f", whose labels count {duration(slowest.delay)} after the prediction" if slowest.delay else ""
        wait = f"a verdict takes about {duration(minutes)} if the canary is {good} (longest for {name}{late})"
    elif slowest.bound is not None and slowest.failure_rate >= slowest.bound:
        wait = f"{name} never allows promotion: even the stable revision breaks its bound"
    else:
        wait = f"{name} never comes to a verdict"
    found = ""
    if detectable is not None:
        found = f"; a worsening of {name} by {points(detectable)} or more is mostly found within maxDuration ({limit})"
    elif slowest.for_rollback is not None:
        found = f"; no worsening of {name} is likely to be found within maxDuration ({limit})"
    return f"At {count(slowest.per_minute)} {slowest.trials} a minute {wait}{found}."


def divergence(
    canary_rate: npt.ArrayLike, stable_rate: npt.ArrayLike, difference: npt.ArrayLike, weight: npt.ArrayLike
) -> Array:
    """Kullback-Leibler divergence of one trial, the canary's with probability weight/100, from g_c = g_s + difference.

    The arguments broadcast. Rates within (0, 1); weight in per cent, 0 to 100: with one arm alone it is 0.
    """
    f_c, f_s, d, share = np.broadcast_arrays(
        *(np.asarray(value, np.float64) for value in (canary_rate, stable_rate, difference, np.asarray(weight) / 100))
    )
    both = (share > 0) & (share < 1)
    n_c = np.where(both, share, 0.5)
    g_c, g_s = project(f_c, f_s, d, n_c, 1 - n_c)
    return np.where(both, n_c * _kl(f_c, g_c) + (1 - n_c) * _kl(f_s, g_s), 0.0)


def _gains(gates: Sequence[Prospect], weights: Array) -> tuple[Array, Array]:
    """Log odds per trial, for each gate's goal and for being under its bound, each (gates, weights).

    weights: (weights,) or (gates, 1). Without a bound it is 0, and nothing is missing.
    """
    superior = np.array([gate.goal is Goal.SUPERIOR for gate in gates])[:, None]
    f, margin, phi = (
        np.array([getattr(gate, n) for gate in gates])[:, None] for n in ("failure_rate", "margin", "phi")
    )
    bound = np.array([gate.failure_rate if gate.bound is None else gate.bound for gate in gates])[:, None]
    # A canary that fails as often as the stable arm is never found to be under a bound that this one breaks.
    under = weights / 100 * _kl(f, np.maximum(bound, f))
    return _gain_for_goal(superior, f, margin, weights) / phi, under / phi


def _gain_for_goal(
    superior: npt.ArrayLike, failure_rate: npt.ArrayLike, margin: npt.ArrayLike, weights: Array
) -> Array:
    """Log odds per trial; the arguments broadcast."""
    better = np.maximum(np.subtract(failure_rate, margin), np.divide(failure_rate, 100))
    canary_rate = np.where(superior, better, failure_rate)
    return divergence(canary_rate, failure_rate, np.where(superior, 0.0, margin), weights)


def _minutes(schedule: Schedule, gains: Array, log_odds: float, silence: float = 0.0) -> float:
    """Minutes until the schedule is done and PLANNING_FACTOR * log_odds are gained; gains: per minute of each step.

    silence: minutes until the first of them come.
    """
    if not schedule:
        raise ValueError("a schedule needs at least one step")
    least = sum(minutes for _, minutes in schedule)
    missing, gained = PLANNING_FACTOR * log_odds, 0.0
    if missing <= 0:
        return least
    for (_, minutes), gain in zip(schedule[:-1], gains[:-1], strict=True):
        if missing <= gain * minutes:
            return max(least, silence + gained + missing / float(gain))
        missing, gained = missing - float(gain) * minutes, gained + minutes
    return max(least, silence + gained + missing / float(gains[-1])) if gains[-1] > 0 else math.inf


def _spent(schedule: Schedule, minutes: float) -> Iterator[tuple[float, float]]:
    """How much of `minutes` each weight serves."""
    for index, (weight, least) in enumerate(schedule):
        spent = minutes if index == len(schedule) - 1 else min(least, minutes)
        yield weight, spent
        minutes -= spent


def _weights(schedule: Schedule) -> Array:
    return np.array([weight for weight, _ in schedule], np.float64)


def _kl(f: npt.ArrayLike, g: npt.ArrayLike) -> Array:
    f, g = np.asarray(f), np.asarray(g)
    return np.asarray(f * np.log(f / g) + (1 - f) * np.log((1 - f) / (1 - g)))
