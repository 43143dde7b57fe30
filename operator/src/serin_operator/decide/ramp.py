"""What moves a healthy rollout on: the user's steps, or in mode Adaptive the evidence within the exposure budget."""

import math

from serin_operator.api.spec import OnInconclusive
from serin_operator.api.status import Rollout, Status
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.conditions import Activity
from serin_operator.decide.exposure import limits, next_weight
from serin_operator.decide.observed import Observed
from serin_operator.decide.transitions import promote, reject, to_granted, to_step
from serin_operator.decide.verdict import Action, Finding
from serin_operator.decide.words import count, points


def next_step(observed: Observed, status: Status, judged: Judgement, now: float) -> tuple[Status, Activity] | None:
    """The step has lasted and nothing holds it: the next one follows, or after the last one promotion."""
    rollout = status.rollout
    assert rollout and rollout.step is not None
    if rollout.step < len(observed.spec.rollout.steps) - 1:
        return to_step(observed, status, rollout.step + 1, now)
    return promote(observed, status, judged, now) if judged.verdict.action is Action.PROMOTE else None


def first(observed: Observed, per_second: float) -> tuple[int, str]:
    """The first weight in mode Adaptive, and why it is that one. per_second: requests of the stable revision."""
    wanted = limits(observed.spec.rollout, observed.spec.analysis)
    weight = next_weight(0, exposed=0, worst_excess=1.0, per_second=per_second, limits=wanted)
    requests = count(max(weight, 1) / 100 * per_second * wanted.react)
    if weight:
        why = f"Nothing is known of it yet; it gets about {requests} requests until the next look can take them away."
        return weight, why
    text = (
        f"1 % of the traffic is about {requests} requests until the next look can take them away, more than the "
        f"exposure budget of {count(wanted.budget)}: raise it, or shorten analysis.interval."
    )
    return weight, text


def within_budget(observed: Observed, status: Status, judged: Judgement, now: float) -> tuple[Status, Activity] | None:
    """Mode Adaptive: takes traffic away if the present weight could break the budget; None if it keeps to it.

    This goes on whatever holds the rollout. While metrics can not be seen, the canary is taken to get what it got.
    """
    rollout, spec = status.rollout, observed.spec
    assert rollout
    granted = _granted(observed, status, judged)
    if granted < status.weight:
        return to_granted(observed, status, granted, _exposure(observed, status, judged), now)
    if granted or status.weight or spec.rollout.on_inconclusive is not OnInconclusive.ROLLBACK:
        return None
    # Labels of what it was sent may still free the budget, until all of them have been looked at.
    since, seen = rollout.step_started_at, rollout.evidence_at
    if spec.rollout.paused or judged.problem or since is None or seen is None:
        return None
    if seen < since + spec.analysis.label_window + spec.analysis.interval:
        return None
    return reject(observed, status, "ExposureSpent", _exposure(observed, status, judged), now)


def quiet(judged: Judgement, rollout: Rollout) -> list[str]:
    """Mode Adaptive: metrics that have never counted the canary; all of them if none did at this weight.

    What is sent at one weight may be labelled at another, so a metric need not count something at each.
    """
    if _nothing_new(judged, rollout):
        return list(judged.canary_trials)
    return judged.without_new_trials({})


def next_grant(observed: Observed, status: Status, judged: Judgement, now: float) -> tuple[Status, Activity] | None:
    """Mode Adaptive, and nothing holds the rollout: promotion as soon as the evidence suffices, or else what the budget
    grants. A weight rises only after a look that has counted something at it."""
    rollout = status.rollout
    assert rollout
    if judged.verdict.action is Action.PROMOTE:
        return promote(observed, status, judged, now)
    granted = _granted(observed, status, judged)
    looked = observed.snapshot is not None and (status.weight == 0 or not _nothing_new(judged, rollout))
    # More requests tell nothing as long as what they would show, such as their labels, does not come at all.
    if granted > status.weight and looked and not (status.weight and judged.without_new_trials({})):
        return to_granted(observed, status, granted, _exposure(observed, status, judged), now)
    if granted == 0:
        text = f"No traffic to the canary. {_exposure(observed, status, judged)}"
        return status, Activity("ExposureSpent", text)
    return None


def _nothing_new(judged: Judgement, rollout: Rollout) -> bool:
    return len(judged.without_new_trials(rollout.step_trials)) == len(judged.canary_trials)


def exposed(status: Status, judged: Judgement, now: float) -> int:
    """Requests that the canary has had, after a look: what was counted, or while not all can be seen, what it is likely
    to have got since the look before."""
    rollout = status.rollout
    assert rollout
    if not judged.problem or rollout.evidence_at is None:
        return judged.exposed
    # Until every router is seen to follow, the weight before may still serve.
    weight = status.weight if rollout.step_started_at is not None else max(status.weight, rollout.verified_weight)
    unseen = weight / 100 * (judged.per_second or 0.0) * max(0.0, now - rollout.evidence_at)
    return max(judged.exposed, rollout.exposed + math.ceil(unseen))


def _granted(observed: Observed, status: Status, judged: Judgement) -> int:
    rollout, spec = status.rollout, observed.spec
    assert rollout
    return next_weight(
        status.weight,
        exposed=rollout.exposed,
        worst_excess=judged.worst_excess,
        per_second=judged.per_second,
        limits=limits(spec.rollout, spec.analysis),
    )


def _exposure(observed: Observed, status: Status, judged: Judgement) -> str:
    """Where the budget stands, in a sentence."""
    assert status.rollout
    budget, had = observed.spec.rollout.exposure_budget, status.rollout.exposed
    excess = max(0.0, judged.worst_excess)
    unknown = [report.name for report in judged.reports if report.verdict == Finding.NO_DATA]
    why = f" ({', '.join(unknown)} has no data)" if unknown and judged.worst_excess >= 1 else ""
    return (
        f"It has had {count(had)} requests, and {points(excess)} more failures than stable's are not excluded{why}: "
        f"{count(had * excess)} of at most {count(budget)} harmed requests."
    )
