"""From the begin of a rollout to its first step: the canary starts, and the stable revision's pods are compared.

What is learned of the stable pods is kept where the evidence will be, in `status.rollout.evidence`.
"""

from dataclasses import replace

from serin_operator.api.spec import Mode, Spec, Strategy
from serin_operator.api.status import ByHand, Phase, Rollout, Status
from serin_operator.decide import analysis, blue_green, calibration, ramp, slots
from serin_operator.decide.calibration import Calibration
from serin_operator.decide.capacity import first_capacity, load, needed, room, staying
from serin_operator.decide.clocks import due
from serin_operator.decide.conditions import UNTIL_UNPAUSED, Activity, of_trouble
from serin_operator.decide.keys import REQUESTS
from serin_operator.decide.observed import Observed, Route, Router, Snapshot, Workload
from serin_operator.decide.outlook import foreseen
from serin_operator.decide.roles import compares, shadow_of
from serin_operator.decide.routing import still_called
from serin_operator.decide.transitions import promote, to_granted, to_shadow, to_step
from serin_operator.decide.words import duration


def wants_look(rollout: Rollout, wanted: Spec, now: float) -> bool:
    """Whether the counters are to be read: every interval, and always when only the canary is waited for, because
    the first step begins with a look."""
    if due(rollout.evidence_at, wanted.analysis.interval, now):
        return True
    return _seconds(_known(rollout)) >= _least_seconds(wanted, rollout)


def take_first_step(observed: Observed, status: Status, workload: Workload, now: float) -> tuple[Status, Activity]:
    """Takes the first step once the canary has its pods, the routers reach it and counting has a base."""
    canary, stable, spec = status.canary, status.stable, observed.spec
    assert canary and stable
    status, known = _calibrate(observed, status, now)
    assert status.rollout
    capacity = max(status.rollout.capacity, first_capacity(spec), load(status))
    status = replace(status, rollout=replace(status.rollout, capacity=capacity))
    pods = needed(spec, status, capacity, now)
    ready = staying(observed, canary)
    if ready < pods:
        text = f"{ready} of {pods} pods of {canary.version} are ready.{of_trouble(workload)}"
        return status, Activity("StartingCanary", text)
    router = observed.router or Router()
    if not router.serves(Route(stable.revision)) or not router.reaches(canary.revision, pods):
        text = slots.waited_for(observed, status) or "Waiting for the routers to reach the canary."
        return status, Activity("StartingCanary", router.problem or text)
    if waited_for := still_called(status, now):
        return status, Activity("StartingCanary", waited_for)
    if spec.rollout.paused:
        return replace(status, phase=Phase.PAUSED), Activity(
            "Paused", f"Paused before the first step, {UNTIL_UNPAUSED}."
        )
    if status.rollout and status.rollout.by_hand is ByHand.FULL:
        return promote(observed, status, None, now)
    missing = _least_seconds(spec, status.rollout) - _seconds(known)
    problem = _unseen(observed.snapshot)
    if missing > 0 and not (observed.snapshot and problem):
        text = f"Counting what {stable.version} does by itself for {duration(missing / 60)} more."
        return status, Activity("Calibrating", text)
    if observed.snapshot is None or problem:
        return status, Activity("CannotSee", f"No traffic moves before metrics can be read: {problem}")

    rollout = status.rollout
    assert rollout
    calibrated = calibration.dump(known) if known else ""
    arms, shadow = (canary.revision, stable.revision), shadow_of(rollout.strategy, spec.rollout)
    evidence = analysis.begin(spec.analysis, observed.snapshot, *arms, now, calibrated, shadow=shadow is not None)
    began = replace(status, rollout=replace(rollout, evidence=evidence, evidence_at=now))
    if rollout.strategy is Strategy.BLUE_GREEN:
        return blue_green.to_preview(observed, began, now)
    if shadow is not None:
        return to_shadow(observed, began, shadow, now)
    if spec.rollout.mode is Mode.STEPS:
        return to_step(observed, began, 0, now)
    weight, why = ramp.first(observed, known.per_minute([REQUESTS]) / 60 if known else 0.0)
    if not weight:
        return status, Activity("ExposureSpent", why)
    return room(observed, status, weight, now) or to_granted(observed, began, weight, why, now)


def _calibrate(observed: Observed, status: Status, now: float) -> tuple[Status, Calibration | None]:
    """With one more look at the stable revision's pods, if one is due, and what is known of them now."""
    stable, rollout, spec, snapshot = status.stable, status.rollout, observed.spec, observed.snapshot
    assert stable and rollout
    known = _known(rollout)
    if snapshot is None or snapshot.problem or not due(rollout.evidence_at, spec.analysis.interval, now):
        return status, known
    state = analysis.calibrate(spec.analysis, rollout.evidence if known else "", snapshot, stable.revision, now)
    known = calibration.load(state)
    rollout = replace(rollout, evidence=state, evidence_at=now)
    if compares(rollout.strategy):  # a preview's traffic is not known from the stable revision's
        gates = analysis.prospects(spec.analysis, state, shadow_of(rollout.strategy, spec.rollout))
        rollout = foreseen(rollout, spec.rollout, gates, _seconds(known), now)
    return replace(status, rollout=rollout), known


def _least_seconds(wanted: Spec, rollout: Rollout | None) -> float:
    """For how long the stable revision is looked at by itself. The exposure budget needs to know the traffic."""
    budgeted = wanted.rollout.mode is Mode.ADAPTIVE and rollout is not None and rollout.strategy is Strategy.CANARY
    return max(wanted.analysis.calibration, wanted.analysis.interval if budgeted else 0.0)


def _known(rollout: Rollout) -> Calibration | None:
    """What was learned so far; None before the first look, or when another version of Serin wrote it."""
    try:
        return calibration.load(rollout.evidence) if rollout.evidence else None
    except ValueError:
        return None  # it begins anew, for the price of some looks


def _seconds(known: Calibration | None) -> float:
    return known.at - known.since if known else 0.0


def _unseen(snapshot: Snapshot | None) -> str | None:
    """Why counting can not begin: every ready pod must give its base, or its past would count as news later."""
    if snapshot is None:
        return "the counters were not read yet."
    if snapshot.problem:
        return snapshot.problem
    return f"no counters from {', '.join(snapshot.unread)}." if snapshot.unread else None
