"""Mode Adaptive: how much traffic a canary on trial may have, so that the harm that it can do stays within a budget.

docs/adr/0011-adaptive-ramp.md has the proof and simulations.
"""

import math
from dataclasses import dataclass

from serin_operator.api.spec import Analysis, Rollout

ROUTE_SECONDS = 3.0  # from a decision until the last router has followed it
FIRST_WEIGHT = 10  # the most that a canary gets at first, in per cent
STEEPEST = 3  # a weight is at most so many times the one before
LEAST_RAISE = 1.5  # and at least so many times: a smaller raise is not worth a change of the route


@dataclass(frozen=True, slots=True)
class Limits:
    """What the weight has to keep to.

    budget: harmed requests. max_weight: in per cent.
    react: seconds until a weight that is chosen now can be taken back by what the next look shows.
    settle: seconds until a look can have tested what is sent now, labels included.
    """

    budget: float
    max_weight: int
    react: float
    settle: float


def limits(rollout: Rollout, analysis: Analysis) -> Limits:
    """The limits that a spec sets."""
    react = analysis.interval + ROUTE_SECONDS
    settle = react + analysis.warm_up * analysis.interval + analysis.label_window
    return Limits(rollout.exposure_budget, rollout.max_weight, react, settle)


def next_weight(weight: int, *, exposed: float, worst_excess: float, per_second: float | None, limits: Limits) -> int:
    """The canary's next weight in per cent; 0 when even 1 % could break the budget.

    weight: the present one, 0 before the first. exposed: N, the requests that the canary has had.
    worst_excess: U, the largest excess of its share of failures over the stable revision's that is not excluded yet;
    1.0 without data. per_second: requests of both revisions, None while unknown.

    Guarantee: with the weight that is given, (N + weight/100 · per_second · react) · U ≤ budget. So, as long as U is an
    upper confidence limit that holds at all looks at once, the traffic does not grow and the canary is not worse later
    than it was so far, the requests that it is expected to harm, N times its true excess, never exceed the budget.

    The weight falls only when it would break this. It rises only when the budget also lasts until what it sends has
    been tested (settle), or it would be gone before that could show anything; and by a factor of 1.5 to 3.
    """
    left = limits.budget / worst_excess - exposed if worst_excess > 0 else math.inf
    if left <= 0:
        return 0
    if not per_second:  # nothing is known of the traffic, so nothing is known of what a raise would send
        return weight or 1
    at_once = _affordable(left, per_second * limits.react, limits.max_weight)
    if at_once < 1:
        return 0
    steepest = STEEPEST * weight if weight else FIRST_WEIGHT
    lasting = max(1, min(_affordable(left, per_second * limits.settle, limits.max_weight), steepest))
    if lasting > weight:
        return lasting if lasting >= min(LEAST_RAISE * weight, limits.max_weight) else weight
    return weight if weight <= at_once else lasting


def _affordable(left: float, requests: float, max_weight: int) -> int:
    """The largest weight at which the canary's part of so many requests is not more than what is left."""
    return max_weight if left * 100 >= max_weight * requests else math.floor(left * 100 / requests)
