"""What follows a shadow, the canary that gets copies of requests and whose answers no client gets."""

from serin_operator.api.spec import Mode, Strategy
from serin_operator.api.status import Status
from serin_operator.decide import ramp
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.conditions import Activity
from serin_operator.decide.observed import Observed
from serin_operator.decide.transitions import promote, to_granted, to_shadow, to_step
from serin_operator.decide.verdict import Action


def after(observed: Observed, status: Status, judged: Judgement, now: float) -> tuple[Status, Activity] | None:
    """The shadow has lasted and nothing holds it: promotion, or the first step, once every gate is passed.

    A canary gets traffic of its own only when it has shown that it is good enough, as for a promotion.
    """
    rollout, spec = status.rollout, observed.spec.rollout
    assert rollout
    if spec.shadow is not None and spec.shadow.percent != rollout.mirror:
        return to_shadow(observed, status, spec.shadow, now)
    if judged.verdict.action is not Action.PROMOTE:
        return None
    if rollout.strategy is Strategy.SHADOW:
        return promote(observed, status, judged, now)
    if spec.mode is Mode.STEPS:
        return to_step(observed, status, 0, now)
    weight, why = ramp.first(observed, judged.per_second or 0.0)
    return to_granted(observed, status, weight, why, now) if weight else None
