"""A rollout under way, one pass at a time. The order of the questions is the safety argument.

A weight rises only when the weight before it was seen serving and the last look at the counters saw everything.
Whatever is uncertain holds; only evidence promotes.
"""

import math
from dataclasses import replace

from serin_operator.api.spec import Analysis, Mode, OnInconclusive, RouterType, Spec, Strategy
from serin_operator.api.status import ByHand, Phase, Remark, Rollout, Status
from serin_operator.decide import analysis, blue_green, by_hand, ramp, recreate, shadow
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.capacity import load, needed
from serin_operator.decide.clocks import QUIET_LOOKS, left, served, timed
from serin_operator.decide.conditions import UNTIL_UNPAUSED, Activity, of_trouble, what_was_not_seen, why_unready
from serin_operator.decide.first_step import take_first_step
from serin_operator.decide.keys import labelled
from serin_operator.decide.observed import Observed, Router, Workload
from serin_operator.decide.outlook import foreseen, with_remarks
from serin_operator.decide.roles import compares, route_of, router_of
from serin_operator.decide.transitions import promote, reject, with_failure
from serin_operator.decide.verdict import Action


def progress(observed: Observed, status: Status, now: float) -> tuple[Status, Activity]:
    """One pass over a rollout under way."""
    canary, rollout, spec = status.canary, status.rollout, observed.spec
    assert canary and rollout
    workload = observed.workloads.get(canary.revision, Workload())
    status = with_failure(status, canary.revision, workload.trouble, now)
    waited = rollout.paused_at is not None and by_hand.may_wait(rollout, spec)
    rollout = timed(rollout, spec.rollout.paused or waited, now)
    if not spec.rollout.paused:
        status = replace(status, phase=Phase.PROGRESSING)
    if rollout.strategy is not spec.rollout.strategy:
        text = f"This rollout goes on as it began, by {rollout.strategy}; {spec.rollout.strategy} is for the next one."
        rollout = with_remarks(rollout, [Remark("StrategyChanged", text)])
    listed = _listed(rollout, spec)
    if listed not in (None, status.weight):
        last = rollout.step is not None and rollout.step >= len(spec.rollout.steps) - 1
        then = "a promotion is next" if last else "holds from the next step on"
        text = (
            f"The step at {status.weight} % goes on as it began; rollout.steps has {listed} % for it by now, and "
            f"{then}. To take the traffic away at once: serin abort {observed.name}."
        )
        rollout = with_remarks(rollout, [Remark("StepsChanged", text)])
    if rollout.by_hand is ByHand.ABORT:
        return reject(observed, status, "Aborted", f"{canary.version} was turned down by hand.", now)
    if rollout.strategy is Strategy.RECREATE:
        return recreate.progress(observed, replace(status, rollout=rollout), workload, now)

    # Can it run at all? The router hides a canary that crashes, and its counters die with it: no metric tells.
    if workload.trouble and workload.trouble.permanent:
        return reject(observed, status, workload.trouble.reason, workload.trouble.message, now)
    rollout = replace(rollout, unready_since=min(rollout.unready_since or now, now) if workload.ready == 0 else None)
    status = replace(status, rollout=rollout)
    if rollout.unready_since is not None and now - rollout.unready_since >= spec.server.ready_timeout:
        why = why_unready(observed, workload)
        message = f"No pod of {canary.version} was ready for {spec.server.ready_timeout:g} s: {why}"
        return reject(observed, status, "NotReady", message, now)

    limit = spec.rollout.max_duration
    overdue = "" if left(rollout, spec.rollout, now) else f"No verdict within maxDuration ({limit:g} s)."
    ends = overdue and spec.rollout.on_inconclusive is OnInconclusive.ROLLBACK
    if rollout.step is None and ends:
        return reject(observed, status, "Inconclusive", overdue, now)
    if rollout.step is None:
        return take_first_step(observed, status, workload, now)

    # What does the evidence say? Worse goes before everything else.
    try:
        judged, status = _judge(observed, status, now)
    except ValueError as error:
        text = f"The stored evidence can not be read ({error}); change the spec back to drop it."
        return status, Activity("EvidenceUnreadable", text, stalled=True)
    if judged.verdict.action is Action.ROLL_BACK:
        return reject(observed, status, *judged.reason_for_rollback(), now)
    if ends:
        return reject(observed, status, "Inconclusive", overdue, now)
    if _adaptive(observed, status) and (lowered := ramp.within_budget(observed, status, judged, now)):
        return lowered

    # Is the weight that was written the weight that serves?
    router = observed.router or Router()
    route = route_of(status)
    if route is None or not router.serves(route):
        text = router.problem or f"Waiting until every router serves weight {status.weight}."
        return status, Activity("VerifyingRoute", text)
    rollout = status.rollout or rollout
    if rollout.step_started_at is None:
        rollout = replace(rollout, step_started_at=now, verified_weight=status.weight, step_trials=judged.canary_trials)
        status = replace(status, rollout=rollout)
    unfit = _unfit(observed, status, workload, now)
    if rollout.by_hand is ByHand.FULL:
        return unfit or promote(observed, status, judged, now)
    return _hold(observed, status, judged, unfit, overdue) or _move_on(observed, status, judged, now)


def _listed(rollout: Rollout, wanted: Spec) -> int | None:
    """The weight that the user's list has for the step under way; None where no list drives it."""
    if rollout.step is None or not rollout.steps or rollout.mirror or not by_hand.stepwise(rollout, wanted):
        return None
    return wanted.rollout.steps[min(rollout.step, len(wanted.rollout.steps) - 1)].weight


def _judge(observed: Observed, status: Status, now: float) -> tuple[Judgement, Status]:
    """What the counters, or without a new look what they showed last, say about the canary."""
    canary, stable, rollout, spec = status.canary, status.stable, status.rollout, observed.spec
    assert canary and stable and rollout
    alike = compares(rollout.strategy)
    if observed.snapshot is None:
        unseen = what_was_not_seen(status)
        judged = analysis.recall(spec.analysis, rollout.evidence, unseen, mirror=rollout.mirror, alike=alike)
        return judged, replace(status, metrics=judged.reports)
    judged = analysis.judge(
        spec.analysis,
        rollout.evidence,
        observed.snapshot,
        canary.revision,
        stable.revision,
        now,
        weight=_weight_since_last_look(observed, status),
        mirror=rollout.mirror,
        alike=alike,
    )
    rollout = replace(rollout, evidence=judged.state, evidence_at=now, exposed=ramp.exposed(status, judged, now))
    rollout = with_remarks(rollout, judged.remarks)
    if judged.prospects and not judged.problem and rollout.step_started_at is not None:
        rollout = foreseen(rollout, spec.rollout, judged.prospects, served(rollout, now), now)
    return judged, replace(status, rollout=rollout, metrics=judged.reports)


def _weight_since_last_look(observed: Observed, status: Status) -> int | None:
    """The weight, or what a shadow gets copies of, if every router has served just that, with a canary to send to,
    ever since the last look.

    Pods make the split by connections, of which one client may have many or few: not what the test of shares assumes.
    Nor is what Prometheus tells, whose samples of two pods are of moments that are seconds apart, or a minute.
    """
    canary, rollout, router, route = status.canary, status.rollout, observed.router, route_of(status)
    assert canary and rollout
    if router_of(status) is RouterType.REPLICA_RATIO or observed.spec.analysis.prometheus is not None:
        return None
    weight = rollout.mirror or status.weight
    if rollout.step_started_at is None or rollout.evidence_at is None or not weight:
        return None
    if rollout.evidence_at < rollout.step_started_at or rollout.unready_since is not None:
        return None
    seen = router is not None and route is not None and router.serves(route) and router.reaches(canary.revision)
    return weight if seen else None


def _unfit(observed: Observed, status: Status, workload: Workload, now: float) -> tuple[Status, Activity] | None:
    """Why the canary can not get more traffic just now, whoever asks for it."""
    canary, spec = status.canary, observed.spec
    assert canary
    where = _where(observed, status)
    if spec.rollout.paused:
        asked = status.rollout is not None and status.rollout.by_hand is not None
        waits = " What somebody promoted by hand waits for that too." if asked else ""
        return replace(status, phase=Phase.PAUSED), Activity("Paused", f"{where}: paused, {UNTIL_UNPAUSED}.{waits}")
    pods = needed(spec, status, load(status), now)
    if workload.ready < pods:
        trouble = of_trouble(workload)
        text = f"{where}: holding, {workload.ready} of {pods} canary pods are ready.{trouble}"
        return status, Activity("CanaryNotReady", text)
    if not (observed.router and observed.router.reaches(canary.revision, pods)):
        return status, Activity("CanaryNotReady", f"{where}: holding, not every router reaches the canary.")
    return None


def _hold(
    observed: Observed, status: Status, judged: Judgement, unfit: tuple[Status, Activity] | None, overdue: str
) -> tuple[Status, Activity] | None:
    """The first reason not to move on, if there is one. The rollout is healthy and its weight serves."""
    where = _where(observed, status)
    if observed.spec.rollout.paused:
        return unfit
    if overdue:
        return status, Activity("Inconclusive", f"{where}: holding. {overdue}")
    if judged.problem:
        return status, Activity("CannotSee", f"{where}: holding, metrics can not be read: {judged.problem}")
    if unfit:
        return unfit
    remarks = {remark.reason: remark.message for remark in judged.remarks}
    if judged.share_mismatch:
        return status, Activity("TrafficShareMismatch", f"{where}: holding. {remarks['TrafficShareMismatch']}")
    if judged.both_over:
        text = f"{where}: holding, both revisions break the bound of {', '.join(judged.both_over)}. {judged.summary}"
        return status, Activity("StableOverBound", text)
    return None


def _move_on(observed: Observed, status: Status, judged: Judgement, now: float) -> tuple[Status, Activity]:
    """Nothing holds the rollout but time, traffic and the evidence itself."""
    rollout, spec = status.rollout, observed.spec
    assert rollout and rollout.step is not None
    where, lasted = _where(observed, status), served(rollout, now)
    awaited = by_hand.awaited(rollout, spec, judged.verdict.action is Action.PROMOTE, now)
    status = replace(status, rollout=timed(rollout, awaited is not None, now))
    if awaited:
        text = (
            f"{where}: waiting until somebody allows {awaited} ({by_hand.how_to_promote(observed)}). {judged.summary}"
        )
        return replace(status, phase=Phase.PAUSED), Activity("AwaitingPromotion", text)
    if rollout.strategy is Strategy.BLUE_GREEN:
        return blue_green.move_on(observed, status, judged, lasted, now)
    step = spec.rollout.steps[min(rollout.step, len(spec.rollout.steps) - 1)]
    least = step.duration if not rollout.mirror else spec.rollout.shadow.duration if spec.rollout.shadow else 0.0
    adaptive = _adaptive(observed, status)
    quiet = ramp.quiet(judged, rollout) if adaptive else judged.without_new_trials(rollout.step_trials)
    patience = min(math.inf if adaptive else least, QUIET_LOOKS * spec.analysis.interval)
    missed = [name for name in quiet if lasted >= patience + _label_window(spec.analysis, name)]
    if (status.weight or rollout.mirror) and missed:
        text = f"{where}: holding, no canary data at this step for {', '.join(missed)}."
        return status, Activity("NoTraffic", text)
    outlook = f"{where}: {_outlook(rollout, judged)}"
    if adaptive:
        return ramp.next_grant(observed, status, judged, now) or (status, Activity("GatheringEvidence", outlook))
    if quiet or (lasted < least and rollout.by_hand is None):
        return status, Activity("Evaluating", outlook)
    if rollout.mirror:
        return shadow.after(observed, status, judged, now) or (status, Activity("GatheringEvidence", outlook))
    return ramp.next_step(observed, status, judged, now) or (status, Activity("GatheringEvidence", outlook))


def _label_window(spec: Analysis, name: str) -> float:
    """How much later a metric can count what it is sent."""
    return spec.label_window if any(labelled(metric) for metric in spec.metrics if metric.name == name) else 0.0


def _where(observed: Observed, status: Status) -> str:
    """Where the rollout is."""
    rollout, steps = status.rollout, observed.spec.rollout.steps
    assert rollout and rollout.step is not None
    if rollout.mirror:
        return f"As a shadow of {rollout.mirror} % of the requests"
    if rollout.strategy is Strategy.BLUE_GREEN:
        return "In the preview"
    if _adaptive(observed, status):
        return f"At {status.weight} % of the traffic"
    pods = f" ({status.routing.weight:g} % of the pods)" if status.routing and status.routing.weight else ""
    return f"Step {min(rollout.step + 1, len(steps))} of {len(steps)} at {status.weight} %{pods}"


def _adaptive(observed: Observed, status: Status) -> bool:
    """Whether the evidence drives the weight."""
    assert status.rollout
    if status.rollout.strategy is not Strategy.CANARY or status.rollout.mirror:
        return False
    return observed.spec.rollout.mode is Mode.ADAPTIVE


def _outlook(rollout: Rollout, judged: Judgement) -> str:
    """What is known so far and how long the rest may take at the present traffic."""
    if judged.verdict.action is Action.PROMOTE:
        return f"the evidence suffices for promotion. {judged.summary}"
    told = f"{rollout.forecast.message} " if rollout.forecast else ""
    return f"{told}{judged.summary}"
