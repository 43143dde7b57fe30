"""How long a rollout has to wait for its verdict, and what it can see in the time it has. Pure arithmetic.

A test's average wait for its evidence is at least the missing log odds divided by the Kullback-Leibler divergence
that a minute of traffic adds: no test that keeps its error rate is quicker (Wald). Overdispersion phi makes every
minute worth 1/phi of that. What is told to plan for is PLANNING_FACTOR times as long.

A schedule is a sequence of (weight in per cent, least minutes) from now on; the last weight serves for as long as it
takes. A metric's traffic is its trials per minute in both arms together.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serin_operator.api.spec import Goal
from serin_operator.api.status import Forecast
from serin_operator.decide.projection import Array, project

# Times the average that no test can beat. About seven in ten waits for promotion end within it (simulated: failure
# rate 0.05, margin 0.02, 100 requests a second, a tenth to the canary).
PLANNING_FACTOR = 1.5
_PRECISION = 1e-5  # of a detectable worsening, as a fraction

Schedule = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Prospect:
    """One gate before its verdict: all that a forecast needs to know of it.

    failure_rate: of the stable arm, strictly within (0, 1). per_minute: trials in both arms; `trials` is what they are
    called. phi: every log likelihood ratio is divided by it. missing: log odds still to be gained for the goal.
    for_rollback: log odds at which this metric alone rolls back; None if it can not.
    bound, missing_under: the absolute bound, and the log odds still to be gained that the canary is under it.
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
    superior = goal is Goal.SUPERIOR
    canary_rate = max(failure_rate - margin, failure_rate / 100) if superior else failure_rate
    weights = [weight for weight, _ in schedule]
    gains = per_minute / phi * divergence(canary_rate, failure_rate, 0.0 if superior else margin, weights)
    return _minutes(schedule, gains, log_odds)


def minutes_under_bound(
    schedule: Schedule, *, failure_rate: float, bound: float, per_minute: float, log_odds: float, phi: float = 1.0
) -> float:
    """The same for the evidence that the canary is under an absolute bound; inf when it fails as often as that."""
    if failure_rate >= bound:
        return math.inf if log_odds > 0 else _minutes(schedule, np.zeros(len(schedule)), 0.0)
    shares = np.array([weight / 100 for weight, _ in schedule])
    return _minutes(schedule, per_minute / phi * _kl(failure_rate, bound) * shares, log_odds)


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
    weights = [weight for weight, _ in spent]
    trials = np.array([per_minute * at_weight for _, at_weight in spent])

    def suffices(excess: float) -> bool:
        gains = divergence(failure_rate + excess, failure_rate, tolerance, weights)
        return bool(trials @ gains / phi >= PLANNING_FACTOR * log_odds)

    low, high = tolerance, 1 - failure_rate - 1e-9
    if low >= high or not suffices(high):
        return None
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def forecast(
    gates: Sequence[Prospect], remaining: Schedule, whole: Schedule, *, max_minutes: float, time: float
) -> Forecast:
    """What status tells: when the slowest gate decides, and which worsening of it is found in the time there is.

    remaining: the schedule from now on; whole: from the first request to the canary, served for at most `max_minutes`
    (maxDuration). time: now, in seconds since the epoch. Raises ValueError without gates.
    """
    waits = {gate.name: _wait(gate, remaining) for gate in gates}
    slowest = max(gates, key=lambda gate: waits[gate.name])
    minutes = waits[slowest.name]
    detectable = None
    if slowest.for_rollback is not None:
        detectable = detectable_worsening(
            whole,
            max_minutes,
            failure_rate=slowest.failure_rate,
            tolerance=slowest.tolerance,
            per_minute=slowest.per_minute,
            log_odds=slowest.for_rollback,
            phi=slowest.phi,
        )
    return Forecast(
        time=time,
        message=_message(slowest, minutes, detectable, max_minutes),
        minutes=minutes if math.isfinite(minutes) else None,
        limited_by=slowest.name,
        detectable=detectable,
        per_minute=slowest.per_minute,
    )


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


def duration(minutes: float) -> str:
    """A duration as people say it: 40 s, 16 min, 3.5 h, 2 days."""
    for unit, size, most in (("s", 1 / 60, 90), ("min", 1.0, 120), ("h", 60.0, 48)):
        if minutes / size < most:
            return f"{_two_digits(minutes / size)} {unit}"
    return f"{_two_digits(minutes / 1440)} days"


def _wait(gate: Prospect, schedule: Schedule) -> float:
    wait = minutes_to_promotion(
        schedule,
        failure_rate=gate.failure_rate,
        margin=gate.margin,
        per_minute=gate.per_minute,
        log_odds=gate.missing,
        phi=gate.phi,
        goal=gate.goal,
    )
    if gate.bound is None:
        return wait
    under = minutes_under_bound(
        schedule,
        failure_rate=gate.failure_rate,
        bound=gate.bound,
        per_minute=gate.per_minute,
        log_odds=gate.missing_under,
        phi=gate.phi,
    )
    return max(wait, under)


def _minutes(schedule: Schedule, gains: Array, log_odds: float) -> float:
    """Minutes until the schedule is done and PLANNING_FACTOR * log_odds are gained; gains: per minute of each step."""
    if not schedule:
        raise ValueError("a schedule needs at least one step")
    least = sum(minutes for _, minutes in schedule)
    missing = PLANNING_FACTOR * log_odds - float(gains @ np.array([minutes for _, minutes in schedule]))
    if missing <= 0:
        return least
    return least + missing / float(gains[-1]) if gains[-1] > 0 else math.inf


def _spent(schedule: Schedule, minutes: float) -> Iterator[tuple[float, float]]:
    """How much of `minutes` each weight serves."""
    for index, (weight, least) in enumerate(schedule):
        spent = minutes if index == len(schedule) - 1 else min(least, minutes)
        yield weight, spent
        minutes -= spent


def _message(slowest: Prospect, minutes: float, detectable: float | None, max_minutes: float) -> str:
    traffic = f"{_grouped(slowest.per_minute)} {slowest.trials} a minute"
    if slowest.per_minute <= 0:
        return (
            f"No {slowest.trials} were counted yet for {slowest.name}, so nothing can be said about the time it takes."
        )
    good = f"better by {points(slowest.margin)}" if slowest.goal is Goal.SUPERIOR else "good"
    if math.isfinite(minutes):
        wait = f"a verdict takes about {duration(minutes)} if the canary is {good} (longest for {slowest.name})"
    elif slowest.bound is not None and slowest.failure_rate >= slowest.bound:
        wait = f"{slowest.name} never allows promotion: even the stable revision breaks its bound"
    else:
        wait = f"{slowest.name} never comes to a verdict"
    found = ""
    if detectable is not None:
        found = f"; a worsening of {slowest.name} by {points(detectable)} or more is found within maxDuration"
        found += f" ({duration(max_minutes)})"
    elif slowest.for_rollback is not None:
        found = f"; no worsening of {slowest.name} is sure to be found within maxDuration ({duration(max_minutes)})"
    return f"At {traffic} {wait}{found}."


def points(fraction: float) -> str:
    """A difference of shares in percentage points, with two significant digits: 1.3 points."""
    return f"{_two_digits(100 * fraction)} points"


def _two_digits(value: float) -> str:
    """Two significant digits, never in exponents."""
    if value == 0:
        return "0"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:,.0f}"


def _grouped(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else _two_digits(value)


def _kl(f: npt.ArrayLike, g: npt.ArrayLike) -> Array:
    f, g = np.asarray(f), np.asarray(g)
    return np.asarray(f * np.log(f / g) + (1 - f) * np.log((1 - f) / (1 - g)))
