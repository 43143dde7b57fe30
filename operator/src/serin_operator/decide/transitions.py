"""The transitions of a rollout: pure changes of status, each with its record. Others decide which and when."""

from dataclasses import replace

from serin_operator.api.spec import Goal, Mode, Shadow, Strategy
from serin_operator.api.status import Failure, Phase, Record, Rejected, Revision, Rollout, Status, Watch
from serin_operator.decide import analysis
from serin_operator.decide.capacity import DRAIN_SECONDS as DRAIN_SECONDS
from serin_operator.decide.capacity import load, room
from serin_operator.decide.conditions import Activity
from serin_operator.decide.observed import Observed, Trouble
from serin_operator.decide.roles import kept


def begin(observed: Observed, status: Status, target: Revision, now: float) -> Status:
    """Gives the target the canary's role. A revision that is still warm or draining is taken over as it runs."""
    pods = next((each.replicas for each in kept(status) if each.revision == target.revision), 0)
    previous = status.previous if status.previous and status.previous.revision != target.revision else None
    steps = step_count(observed)
    how = f"in {steps} steps" if steps else "as fast as the evidence and the exposure budget allow"
    if observed.spec.rollout.strategy is Strategy.SHADOW:
        how = "as a shadow"
    elif observed.spec.rollout.shadow is not None:
        how = f"as a shadow, then {how}"
    return replace(
        status,
        canary=replace(target, replicas=pods),
        previous=previous,
        retiring=tuple(revision for revision in status.retiring if revision.revision != target.revision),
        rejected=None,
        rollout=Rollout(started_at=now, steps=steps),
        watch=None,
        metrics=(),
        weight=0,
        phase=Phase.PROGRESSING,
    ).recorded(
        Record(
            now,
            "Started",
            "SpecChanged",
            f"Rolling out {target.version} {how}.",
            from_revision=status.stable.revision if status.stable else None,
            to_revision=target.revision,
        )
    )


def step_count(observed: Observed) -> int:
    """How many steps the rollout has; 0 in mode Adaptive and of a mere shadow, which have none."""
    rollout = observed.spec.rollout
    return len(rollout.steps) if rollout.mode is Mode.STEPS and rollout.strategy is not Strategy.SHADOW else 0


def to_shadow(observed: Observed, status: Status, shadow: Shadow, now: float) -> tuple[Status, Activity]:
    """The canary gets copies of requests, whose answers nobody gets."""
    assert status.canary and status.rollout
    message = (
        f"Copies of {shadow.percent} % of the requests to {status.canary.version}; clients get none of its answers."
    )
    record = Record(now, "Advanced", "CanaryReady", message, step=0)
    return _to_weight(observed, status, record, now, mirror=shadow.percent)


def to_step(observed: Observed, status: Status, index: int, now: float) -> tuple[Status, Activity]:
    """Goes to a step of the user's list."""
    assert status.canary
    steps = observed.spec.rollout.steps
    weight = steps[index].weight
    message = f"Step {index + 1} of {len(steps)}: {weight} % of the traffic to {status.canary.version}."
    passed = index > 0 or (status.rollout is not None and status.rollout.mirror > 0)
    record = Record(now, "Advanced", "StepPassed" if passed else "CanaryReady", message, step=index, weight=weight)
    return _to_weight(observed, status, record, now)


def to_granted(observed: Observed, status: Status, weight: int, why: str, now: float) -> tuple[Status, Activity]:
    """Goes to the weight that the exposure budget grants, up or down. `why`: a sentence."""
    canary, rollout = status.canary, status.rollout
    assert canary and rollout
    message = f"{weight} % of the traffic to {canary.version}. {why}"
    if rollout.step is None or rollout.mirror:
        record = Record(
            now, "Advanced", "StepPassed" if rollout.mirror else "CanaryReady", message, step=0, weight=weight
        )
    elif weight > status.weight:
        record = Record(now, "Advanced", "WithinBudget", message, step=rollout.step + 1, weight=weight)
    else:
        reason = "ExposureBudget" if weight else "ExposureSpent"
        record = Record(now, "Reduced", reason, message, step=rollout.step, weight=weight)
    return _to_weight(observed, status, record, now)


def _to_weight(
    observed: Observed, status: Status, record: Record, now: float, mirror: int = 0
) -> tuple[Status, Activity]:
    """The record's weight is written, or what is copied. Its step begins when that is seen serving.

    Before more the canary gets the pods for it.
    """
    canary, rollout = status.canary, status.rollout
    assert canary and rollout
    following = max(record.weight, mirror)
    if following > load(status) and (waiting := room(observed, status, following, now)):
        return waiting
    rollout = replace(
        rollout,
        step=record.step,
        steps=step_count(observed),
        mirror=mirror,
        step_started_at=None,
        step_trials={},
        capacity=following,
        evidence=analysis.step(observed.spec.analysis, rollout.evidence),
    )
    record = replace(record, to_revision=canary.revision, metrics=status.metrics)
    status = replace(status, rollout=rollout, weight=record.weight, phase=Phase.PROGRESSING).recorded(record)
    return status, Activity("VerifyingRoute", record.message)


def promote(observed: Observed, status: Status, judged: analysis.Judgement, now: float) -> tuple[Status, Activity]:
    """The canary becomes stable where it runs; the old stable stays warm, as long as the promotion is watched.

    Before it gets all traffic, the canary gets the pods for it.
    """
    canary, stable, spec = status.canary, status.stable, observed.spec
    assert canary and stable
    if waiting := room(observed, status, 100, now):
        return waiting
    superior = any(metric.gates and metric.goal is Goal.SUPERIOR for metric in spec.analysis.metrics)
    record = Record(
        now,
        "Promoted",
        "Superior" if superior else "NonInferior",
        f"{canary.version} serves all traffic. {judged.summary}",
        from_revision=stable.revision,
        to_revision=canary.revision,
        step=status.rollout.step if status.rollout else None,
        weight=100,
        metrics=status.metrics,
    )
    drained = (replace(status.previous, kept_until=now + DRAIN_SECONDS),) if status.previous else ()
    warm = max(spec.rollout.keep_previous, spec.rollout.watch, DRAIN_SECONDS)
    watch = None
    if spec.rollout.watch > 0:
        state = analysis.watch(spec.analysis, judged.state)
        watch = Watch(canary.revision, stable.revision, until=now + spec.rollout.watch, evidence_at=now, evidence=state)
    status = replace(
        status,
        stable=canary,
        canary=None,
        previous=replace(stable, kept_until=now + warm),
        retiring=status.retiring + drained,
        rollout=None,
        watch=watch,
        weight=0,
        phase=Phase.SERVING,
    ).recorded(record)
    return status, Activity.none()


def reject(observed: Observed, status: Status, reason: str, message: str, now: float) -> tuple[Status, Activity]:
    """All traffic back to stable, and the canary is remembered as turned down: rejected before it had any."""
    canary, stable = status.canary, status.stable
    assert canary and stable
    began = status.rollout is not None and status.rollout.step is not None
    record = Record(
        now,
        "RolledBack" if began else "Rejected",
        reason,
        message,
        from_revision=canary.revision,
        to_revision=stable.revision,
        step=status.rollout.step if status.rollout else None,
        weight=0,
        metrics=status.metrics,
    )
    status = replace(
        _without_canary(status, now),
        rejected=Rejected(canary.revision, reason, message, now, observed.retry),
        phase=Phase.ROLLED_BACK,
    ).recorded(record)
    return status, Activity(reason, message, stalled=True)


def take_back(observed: Observed, status: Status, reason: str, message: str, now: float) -> tuple[Status, Activity]:
    """Undoes a promotion: the old stable, still warm, serves all traffic again, and the promoted one is turned down."""
    promoted, back = status.stable, status.previous
    assert promoted and back
    record = Record(
        now,
        "RolledBack",
        reason,
        message,
        from_revision=promoted.revision,
        to_revision=back.revision,
        weight=0,
        metrics=status.metrics,
    )
    status = replace(
        status,
        stable=replace(back, kept_until=None),
        previous=None,
        retiring=(*status.retiring, replace(promoted, kept_until=now + DRAIN_SECONDS)),
        rejected=Rejected(promoted.revision, reason, message, now, observed.retry),
        watch=None,
        phase=Phase.ROLLED_BACK,
    ).recorded(record)
    return status, Activity(reason, message, stalled=True)


def supersede(status: Status, target: Revision | None, now: float) -> Status:
    """The spec asks for something else, so the canary under way is dropped without a verdict on it."""
    assert status.canary and status.stable
    message = f"{status.canary.version} is no longer what the spec asks for."
    record = Record(
        now,
        "Superseded",
        "SpecChanged",
        message,
        from_revision=status.canary.revision,
        to_revision=target.revision if target else status.stable.revision,
        metrics=status.metrics,
    )
    return replace(_without_canary(status, now), metrics=(), phase=Phase.SERVING).recorded(record)


def revert(observed: Observed, status: Status, now: float) -> tuple[Status, Activity]:
    """The user goes back to what served until a moment ago: one change of the route, no rollout."""
    old, back = status.stable, status.previous
    assert old and back
    message = f"Back to {back.version}, which is still warm."
    record = Record(
        now, "Reverted", "SpecChanged", message, from_revision=old.revision, to_revision=back.revision, weight=0
    )
    kept_until = now + max(observed.spec.rollout.keep_previous, DRAIN_SECONDS)
    status = replace(
        status,
        stable=replace(back, kept_until=None),
        previous=replace(old, kept_until=kept_until),
        rejected=None,
        watch=None,
        metrics=(),
        phase=Phase.SERVING,
    ).recorded(record)
    return status, Activity.none()


def with_failure(status: Status, revision: str, trouble: Trouble | None, now: float) -> Status:
    """Remembers a container's failure; the same one seen again is not news."""
    last = status.last_failure
    if trouble is None or (
        last and (last.revision, last.reason, last.message) == (revision, trouble.reason, trouble.message)
    ):
        return status
    return replace(status, last_failure=Failure(revision, trouble.reason, trouble.message, now, trouble.exit_code))


def _without_canary(status: Status, now: float) -> Status:
    assert status.canary
    retiring = (*status.retiring, replace(status.canary, kept_until=now + DRAIN_SECONDS))
    return replace(status, canary=None, retiring=retiring, rollout=None, weight=0)
