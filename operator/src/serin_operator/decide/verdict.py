"""What the evidence on all metrics together asks for: roll back, promote or wait.

All evidence is in natural logarithms. Every log value may be a number, or an array of one shape with an entry per
rollout: the operator decides one rollout, a simulation thousands at once, and both with these rules.

Rolling back. Each guard brings the e-value for *worse*, and a second one for *over its bound* if it has one. Their
weighted mean is an e-value however the metrics depend on each other (Vovk and Wang, "E-values: calibration,
combination and applications"), so a canary that is worse on no guard and over no bound is ever rolled back with
probability at most alpha, and no correction for many metrics is needed. WATCH_SHARE of the weight belongs to the
watch after promotion (`watch` in `analysis`).

Promoting needs every gate, so a canary that fails any one of them is ever promoted with probability at most beta.

A bound that the stable revision breaks too is no reason to go back to it: it does not roll back, and as long as the
canary breaks it as well, nothing is promoted.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serin_operator.api.spec import Goal, Metric

Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Log = float | Array

_MOST = 1e300  # of a logarithm that others are subtracted from
WATCH_SHARE = 0.01  # of all weight in the mean; the rest is the guards'


class Finding(StrEnum):
    """What the evidence says about one metric."""

    WORSE = "Worse"
    NON_INFERIOR = "NonInferior"
    SUPERIOR = "Superior"
    UNDER_BOUND = "UnderBound"
    OVER_BOUND = "OverBound"
    BOTH_OVER_BOUND = "BothOverBound"
    NOT_COMPARED = "NotCompared"
    UNDECIDED = "Undecided"
    NO_DATA = "NoData"


class Action(StrEnum):
    """What all metrics together ask for."""

    ROLL_BACK = "RollBack"
    PROMOTE = "Promote"
    WAIT = "Wait"


class BoundOdds(NamedTuple):
    """Log odds that the canary is over a metric's absolute bound, that it is under it, that the stable is over it."""

    over: Log
    under: Log
    stable_over: Log


class Standing(NamedTuple):
    """Where one metric stands. `log_e_...`: log odds that the canary is worse, worse by less than the margin, better.

    guards, gates: whether it can roll back, whether it must pass before promotion. weight: positive.
    seen: whether both arms have counted anything. compared: whether the arms get requests of the same kind; else the
    bound alone decides, and only the canary need have counted.
    """

    name: str
    guards: bool
    gates: bool
    weight: float
    goal: Goal
    log_e_worse: Log
    log_e_non_inferior: Log
    log_e_superior: Log
    bound: BoundOdds | None = None
    seen: bool = True
    compared: bool = True

    @property
    def can_pass(self) -> bool:
        """Whether there can be evidence for what the gate asks."""
        return self.compared or (self.bound is not None and self.goal is Goal.NON_INFERIOR)

    @property
    def log_e_goal(self) -> Log:
        """Log odds for what the gate asks beside its bound, of which nothing is asked where nothing is compared."""
        if not self.compared:
            asked = math.inf if self.can_pass else -math.inf
            return asked if isinstance(self.log_e_worse, float) else np.full_like(self.log_e_worse, asked)
        return self.log_e_superior if self.goal is Goal.SUPERIOR else self.log_e_non_inferior


@dataclass(frozen=True, slots=True)
class Verdict:
    """`action` and, for a rollback, the `metric` with the most evidence for it and what was found on it.

    both_over: guards and gates whose bound both revisions break.
    """

    action: Action
    metric: str | None = None
    finding: Finding | None = None
    both_over: tuple[str, ...] = ()


def verdict(standings: Sequence[Standing], *, alpha: float, beta: float) -> Verdict:
    """The verdict on one rollout: log values are numbers. Rolling back goes before promoting."""
    both = tuple(
        each.name
        for each in standings
        if each.bound is not None and (each.guards or each.gates) and np.all(_both_over(each, alpha))
    )
    if rolls_back(standings, alpha=alpha):
        _, metric, finding = max(
            (math.log(weight) + float(log_e), name, finding)
            for name, finding, weight, log_e in _parts(standings, alpha)
        )
        return Verdict(Action.ROLL_BACK, metric, finding, both)
    return Verdict(Action.PROMOTE if promotes(standings, alpha=alpha, beta=beta) else Action.WAIT, both_over=both)


def rolls_back(standings: Sequence[Standing], *, alpha: float) -> BoolArray:
    """Whether the guards' evidence suffices for a rollback; False without guards."""
    return np.asarray(log_odds_for_rollback(standings, alpha=alpha) >= -math.log(alpha))


def promotes(standings: Sequence[Standing], *, alpha: float, beta: float) -> BoolArray:
    """Whether every gate has what it asks and no bound is broken by both; False without gates.

    It does not look at `rolls_back`, which goes before it.
    """
    enough = -math.log(beta)
    passed = [each.log_e_goal >= enough for each in standings if each.gates]
    if not passed:
        return np.zeros(_shape(standings), dtype=np.bool_)
    passed += [each.bound[1] >= enough for each in standings if each.gates and each.bound]
    passed += [~_both_over(each, alpha) for each in standings if each.bound and (each.guards or each.gates)]
    return np.asarray(reduce(operator.and_, passed))


def log_odds_for_rollback(standings: Sequence[Standing], *, alpha: float) -> Array:
    """Log of the weighted mean over the guards' e-values, to be compared with ln(1/alpha); -inf without guards."""
    parts = _parts(standings, alpha)
    if not parts:
        return np.full(_shape(standings), -math.inf)
    _, _, of_each, log_e = zip(*parts, strict=True)
    weights, logs = np.array(of_each), _rows(log_e)
    greatest = logs.max(axis=0)
    floor = np.minimum(np.maximum(greatest, -_MOST), _MOST)
    total = weights @ np.exp(logs - floor)
    return np.asarray(floor + np.log(total / weights.sum()) + math.log1p(-WATCH_SHARE))


def odds_alone(metrics: Sequence[Metric], *, alpha: float) -> dict[str, float]:
    """Per guard, the odds for worse, or over its bound, at which it rolls back even if nothing else speaks for it."""
    total = _total_weight(metrics)
    return {each.name: total / (each.weight * (1 - WATCH_SHARE) * alpha) for each in metrics if each.guards}


def log_odds_alone(metrics: Sequence[Metric], *, alpha: float) -> dict[str, float]:
    """Their natural logarithms."""
    return {name: math.log(odds) for name, odds in odds_alone(metrics, alpha=alpha).items()}


def odds_for_record(metric: Metric, metrics: Sequence[Metric], *, alpha: float) -> float:
    """The odds against a rate of the old stable at which the watch takes it to be lower (see `analysis.watch`)."""
    return _total_weight(metrics) / (metric.weight * WATCH_SHARE * alpha)


def finding(standing: Standing, *, alpha: float, beta: float) -> Finding:
    """What one metric of one rollout says on its own, whatever its role. What is bad goes first."""
    roll_back, promote = -math.log(alpha), -math.log(beta)
    if not standing.compared and standing.bound is None and standing.log_e_worse < roll_back:
        return Finding.NOT_COMPARED
    if not standing.seen:
        return Finding.NO_DATA
    if _both_over(standing, alpha):
        return Finding.BOTH_OVER_BOUND
    if standing.log_e_worse >= roll_back:
        return Finding.WORSE
    if standing.bound and standing.bound[0] >= roll_back:
        return Finding.OVER_BOUND
    if not standing.compared:
        return Finding.UNDER_BOUND if standing.bound and standing.bound[1] >= promote else Finding.UNDECIDED
    if standing.log_e_superior >= promote:
        return Finding.SUPERIOR
    if standing.log_e_non_inferior >= promote:
        return Finding.NON_INFERIOR
    return Finding.UNDECIDED


def _parts(standings: Sequence[Standing], alpha: float) -> list[tuple[str, Finding, float, Log]]:
    """Every e-value in the mean: metric, what it is evidence for, weight, log."""
    parts: list[tuple[str, Finding, float, Log]] = []
    for each in standings:
        if not each.guards:
            continue
        parts.append((each.name, Finding.WORSE, each.weight, each.log_e_worse))
        if each.bound:
            over, _, stable_over = each.bound
            # Nothing in its place, while its weight stays in the mean, can only lower an e-value.
            harmless = np.where(np.asarray(stable_over) >= -math.log(alpha), -math.inf, over)[()]  # a number stays one
            parts.append((each.name, Finding.OVER_BOUND, each.weight, harmless))
    return parts


def _rows(logs: Sequence[Log]) -> Array:
    """One row for each: (len(logs),) of numbers, else (len(logs), B)."""
    if np.ndarray in map(type, logs):
        logs = np.broadcast_arrays(*logs)
    return np.array(logs)


def _total_weight(metrics: Sequence[Metric]) -> float:
    return sum(metric.weight * (1 if metric.bound is None else 2) for metric in metrics if metric.guards)


def _both_over(standing: Standing, alpha: float) -> BoolArray:
    if standing.bound is None:
        return np.zeros((), dtype=np.bool_)
    over, _, stable_over = standing.bound
    return np.asarray(np.minimum(over, stable_over) >= -math.log(alpha))


def _shape(standings: Sequence[Standing]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(np.shape(each.log_e_worse) for each in standings))
