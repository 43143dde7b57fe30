"""The transitions of a rollout: pure changes of status, each with its record. `rollout` decides which and when."""

from dataclasses import replace

from serin_operator.api.status import Phase, Record, Rejected, Revision, Rollout, Status
from serin_operator.decide import analysis
from serin_operator.decide.conditions import Activity
from serin_operator.decide.observed import Observed

DRAIN_SECONDS = 10.0  # how long a revision outlives its last traffic: requests in flight end, clients reconnect


def begin(observed: Observed, status: Status, target: Revision, now: float) -> Status:
    """Gives the target the canary's role. A revision that is still warm or draining is taken over as it runs."""
    previous = status.previous if status.previous and status.previous.revision != target.revision else None
    message = f"Rolling out {target.version} in {len(observed.spec.rollout.steps)} steps."
    return replace(
        status,
        canary=target,
        previous=previous,
        retiring=tuple(revision for revision in status.retiring if revision.revision != target.revision),
        rejected=None,
        rollout=Rollout(started_at=now, steps=len(observed.spec.rollout.steps)),
        metrics=(),
        weight=0,
        phase=Phase.PROGRESSING,
    ).recorded(
        Record(
            now,
            "Started",
            "SpecChanged",
            message,
            from_revision=status.stable.revision if status.stable else None,
            to_revision=target.revision,
        )
    )


def to_step(observed: Observed, status: Status, index: int, now: float) -> tuple[Status, Activity]:
    assert status.canary and status.rollout
    steps = observed.spec.rollout.steps
    weight = steps[index].weight
    rollout = replace(status.rollout, step=index, steps=len(steps), step_started_at=None, step_trials={})
    message = f"Step {index + 1} of {len(steps)}: {weight} % of the traffic to {status.canary.version}."
    record = Record(
        now,
        "Advanced",
        "StepPassed" if index else "CanaryReady",
        message,
        to_revision=status.canary.revision,
        step=index,
        weight=weight,
        metrics=status.metrics,
    )
    status = replace(status, rollout=rollout, weight=weight, phase=Phase.PROGRESSING).recorded(record)
    return status, Activity("VerifyingRoute", message)


def promote(observed: Observed, status: Status, judged: analysis.Judgement, now: float) -> tuple[Status, Activity]:
    """The canary becomes stable where it runs; the old stable stays warm."""
    canary, stable = status.canary, status.stable
    assert canary and stable
    message = f"{canary.version} serves all traffic. {judged.summary}"
    record = Record(
        now,
        "Promoted",
        "NonInferior",
        message,
        from_revision=stable.revision,
        to_revision=canary.revision,
        step=status.rollout.step if status.rollout else None,
        weight=100,
        metrics=status.metrics,
    )
    drained = (replace(status.previous, kept_until=now + DRAIN_SECONDS),) if status.previous else ()
    status = replace(
        status,
        stable=canary,
        canary=None,
        previous=replace(stable, kept_until=now + max(observed.spec.rollout.keep_previous, DRAIN_SECONDS)),
        retiring=status.retiring + drained,
        rollout=None,
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
        metrics=(),
        phase=Phase.SERVING,
    ).recorded(record)
    return status, Activity.none()


def _without_canary(status: Status, now: float) -> Status:
    assert status.canary
    retiring = (*status.retiring, replace(status.canary, kept_until=now + DRAIN_SECONDS))
    return replace(status, canary=None, retiring=retiring, rollout=None, weight=0)
