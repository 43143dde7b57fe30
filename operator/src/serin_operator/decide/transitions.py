"""The transitions of a rollout: pure changes of status, each with its record. Others decide which and when."""

from dataclasses import replace

from serin_operator.api.spec import Goal, Mode, Shadow, Strategy
from serin_operator.api.status import ByHand, Failure, Phase, Record, Rejected, Revision, Rollout, Status, Watch
from serin_operator.decide import analysis
from serin_operator.decide.capacity import DRAIN_SECONDS as DRAIN_SECONDS
from serin_operator.decide.capacity import load, room
from serin_operator.decide.conditions import Activity
from serin_operator.decide.observed import Observed, Trouble
from serin_operator.decide.roles import compares, kept


def begin(observed: Observed, status: Status, target: Revision, now: float) -> Status:
    """Gives the target the canary's role. A revision that is still warm or draining is taken over as it runs."""
    pods = next((each.replicas for each in kept(status) if each.revision == target.revision), 0)
    previous = status.previous if status.previous and status.previous.revision != target.revision else None
    strategy = observed.spec.rollout.strategy
    steps = step_count(observed, strategy)
    how = (
        f"in {steps} step{'s' if steps > 1 else ''}"
        if steps
        else "as fast as the evidence and the exposure budget allow"
    )
    if strategy is Strategy.SHADOW:
        how = "as a shadow"
    elif strategy is Strategy.CANARY and observed.spec.rollout.shadow is not None:
        how = f"as a shadow, then {how}"
    elif strategy is Strategy.BLUE_GREEN:
        how = f"beside the stable revision, for the Service {observed.name}-preview, until all requests are switched"
    elif strategy is Strategy.RECREATE:
        how = "after the old revision is taken down"
    return replace(
        status,
        canary=replace(target, replicas=pods, stopped=True if strategy is Strategy.RECREATE else None),
        previous=previous,
        retiring=tuple(revision for revision in status.retiring if revision.revision != target.revision),
        rejected=None,
        rollout=Rollout(started_at=now, steps=steps, strategy=strategy),
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


def step_count(observed: Observed, strategy: Strategy) -> int:
    """How many steps a rollout has; 0 in mode Adaptive and with another strategy than Canary, which have none."""
    wanted = observed.spec.rollout
    return len(wanted.steps) if wanted.mode is Mode.STEPS and strategy is Strategy.CANARY else 0


def to_shadow(observed: Observed, status: Status, shadow: Shadow, now: float) -> tuple[Status, Activity]:
    """The canary gets copies of requests, whose answers nobody gets."""
    assert status.canary and status.rollout
    message = (
        f"Copies of {shadow.percent} % of the requests to {status.canary.version}; clients get none of its answers."
    )
    record = Record(now, "Advanced", "CanaryReady", message, step=0)
    return to_weight(observed, status, record, now, mirror=shadow.percent)


def to_step(observed: Observed, status: Status, index: int, now: float) -> tuple[Status, Activity]:
    """Goes to a step of the user's list."""
    assert status.canary and status.rollout
    steps = observed.spec.rollout.steps
    weight = steps[index].weight
    message = f"Step {index + 1} of {len(steps)}: {weight} % of the traffic to {status.canary.version}."
    passed = index > 0 or status.rollout.mirror > 0
    reason = "ByHand" if status.rollout.by_hand is ByHand.STEP else "StepPassed" if passed else "CanaryReady"
    return to_weight(observed, status, Record(now, "Advanced", reason, message, step=index, weight=weight), now)


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
    return to_weight(observed, status, record, now)


def to_weight(
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
    steps = step_count(observed, rollout.strategy)
    rollout = replace(
        rollout,
        step=record.step,
        steps=steps,
        mirror=mirror,
        step_started_at=None,
        step_trials={},
        capacity=following,
        by_hand=None if steps and rollout.by_hand is ByHand.STEP else rollout.by_hand,
        evidence=analysis.step(observed.spec.analysis, rollout.evidence),
    )
    record = replace(record, to_revision=canary.revision, metrics=status.metrics)
    status = replace(status, rollout=rollout, weight=record.weight, phase=Phase.PROGRESSING).recorded(record)
    return status, Activity("VerifyingRoute", record.message)


def promote(
    observed: Observed, status: Status, judged: analysis.Judgement | None, now: float
) -> tuple[Status, Activity]:
    """The canary becomes stable where it runs; the old stable stays warm, as long as the promotion is watched.

    Before it gets all traffic, the canary gets the pods for it. judged: None by hand alone, before anything was
    counted; then there is nothing to watch with.
    """
    canary, stable, rollout, spec = status.canary, status.stable, status.rollout, observed.spec
    assert canary and stable and rollout
    if waiting := room(observed, status, 100, now):
        return waiting
    by_hand = {ByHand.FULL: ", by hand and without waiting for evidence", ByHand.STEP: ", as allowed by hand"}
    how = by_hand.get(rollout.by_hand, "") if rollout.by_hand else ""
    superior = any(metric.gates and metric.goal is Goal.SUPERIOR for metric in spec.analysis.metrics)
    reason = "Superior" if superior else "NonInferior" if compares(rollout.strategy) else "UnderBound"
    record = Record(
        now,
        "Promoted",
        "ByHand" if rollout.by_hand is ByHand.FULL else reason,
        f"{canary.version} serves all traffic{how}. {judged.summary if judged else ''}".rstrip(),
        from_revision=stable.revision,
        to_revision=canary.revision,
        step=rollout.step,
        weight=100,
        metrics=status.metrics,
    )
    drained = (replace(status.previous, kept_until=now + DRAIN_SECONDS),) if status.previous else ()
    warm = max(spec.rollout.keep_previous, spec.rollout.watch, DRAIN_SECONDS)
    watch = None
    if spec.rollout.watch > 0 and judged is not None:
        watch = Watch(
            canary.revision,
            stable.revision,
            until=now + spec.rollout.watch,
            strategy=rollout.strategy,
            evidence_at=now,
            evidence=analysis.watch(spec.analysis, judged.state),
        )
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
    """All traffic back to stable, and the canary is remembered as turned down: rejected before it could have any."""
    canary, stable = status.canary, status.stable
    assert canary and stable
    began = (status.rollout is not None and status.rollout.step is not None) or stable.stopped
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


def turned_down(observed: Observed, status: Status, target: Revision) -> bool:
    """Whether the target was turned down before, and nobody has asked for another try since."""
    rejected = status.rejected
    return bool(rejected and rejected.revision == target.revision and observed.retry in (None, rejected.retry))


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


def revert(status: Status, now: float) -> tuple[Status, Activity]:
    """The user goes back to what served until a moment ago: one change of the route, no rollout.

    What is left so earns its traffic again by a rollout, should somebody ask for it once more.
    """
    old, back = status.stable, status.previous
    assert old and back
    message = f"Back to {back.version}, which is still warm."
    record = Record(
        now, "Reverted", "SpecChanged", message, from_revision=old.revision, to_revision=back.revision, weight=0
    )
    status = replace(
        status,
        stable=replace(back, kept_until=None),
        previous=None,
        retiring=(*status.retiring, replace(old, kept_until=now + DRAIN_SECONDS)),
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
    assert status.canary and status.rollout
    stopped = True if status.rollout.strategy is Strategy.RECREATE else None  # the old one waits for its place
    retiring = (*status.retiring, replace(status.canary, kept_until=now + DRAIN_SECONDS, stopped=stopped))
    return replace(status, canary=None, retiring=retiring, rollout=None, weight=0)
