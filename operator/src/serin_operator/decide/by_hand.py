"""What somebody asks for by an annotation: to wait no longer, to promote without more evidence, or to roll back.

A mark acts once, on the rollout that is under way when it is first seen. Which one that was is in the status, so that
neither a restart nor the next rollout takes it for a new one. Nobody's word goes before evidence of harm.
"""

from dataclasses import replace

from serin_operator.api.spec import Mode, Promotion, Spec, Strategy
from serin_operator.api.status import ByHand, Marks, Record, Rollout, Status
from serin_operator.decide.clocks import served
from serin_operator.decide.observed import Observed

_FULL = "full"


def heed(observed: Observed, status: Status, now: float) -> Status:
    """The status with the marks that are new taken in: what they ask of the rollout, or why they ask in vain."""
    before, marks = status.marks or Marks(), Marks(observed.promote, observed.abort)
    if marks == before:
        return status
    status = replace(status, marks=None if marks == Marks() else marks)
    if marks.abort not in (None, before.abort):
        return _asked(observed, status, ByHand.ABORT, now)
    if marks.promote is not None and marks.promote != before.promote:
        full, revision = _read(marks.promote)
        return _asked(observed, status, ByHand.FULL if full else ByHand.STEP, now, revision)
    return status


def awaited(rollout: Rollout, wanted: Spec, enough: bool, now: float) -> str | None:
    """What somebody is waited for to allow, when nothing else holds the rollout; None if nobody is.

    enough: whether the evidence suffices for promotion.
    """
    if not may_wait(rollout, wanted) or rollout.step is None:
        return None
    steps = wanted.rollout.steps
    if stepwise(rollout, wanted):
        step = steps[min(rollout.step, len(steps) - 1)]
        if served(rollout, now) < step.duration:
            return None
        if step.pause:
            return "the next step" if rollout.step < len(steps) - 1 else "promotion"
        if rollout.step < len(steps) - 1:
            return None
    return "promotion" if enough and wanted.rollout.promotion is Promotion.MANUAL else None


def may_wait(rollout: Rollout, wanted: Spec) -> bool:
    """Whether a rollout can be waiting for somebody: its clocks, which stand still then, go on when it can not."""
    if rollout.by_hand is not None or rollout.step is None or (rollout.mirror and rollout.strategy is Strategy.CANARY):
        return False
    steps = wanted.rollout.steps
    pauses = stepwise(rollout, wanted) and steps[min(rollout.step, len(steps) - 1)].pause
    return pauses or wanted.rollout.promotion is Promotion.MANUAL


def stepwise(rollout: Rollout, wanted: Spec) -> bool:
    """Whether the user's list of steps drives the rollout."""
    return rollout.strategy is Strategy.CANARY and wanted.rollout.mode is Mode.STEPS


def how_to_promote(observed: Observed) -> str:
    """The command that ends the wait."""
    mark = 'serin.dev/promote="$(date +%s)" --overwrite'
    return f"serin promote {observed.name}, or kubectl annotate mdep {observed.name} {mark}"


def _read(mark: str) -> tuple[bool, str | None]:
    """Whether it asks for everything, and of which revision, if it says so.

    That is `full` or `full:REVISION`, perhaps with something after a dash that makes it new: `full-2`. Anything else
    asks for a step, a time of day with its colons as well.
    """
    asked, names, revision = mark.partition("-")[0].partition(":")
    full = asked == _FULL
    return full, revision if full and names else None


def _asked(observed: Observed, status: Status, asked: ByHand, now: float, revision: str | None = None) -> Status:
    if status.stable is None:
        return status  # the annotations that it came with
    rollout = status.rollout
    vain = _in_vain(rollout, observed.spec, asked)
    if not vain and revision is not None and (status.canary is None or status.canary.revision != revision):
        under_way = status.canary.revision if status.canary else "none"
        vain = f"It names the revision {revision or '(empty)'}, and the one under way is {under_way}."
    if rollout is None or vain:
        reason = "NothingToAbort" if asked is ByHand.ABORT else "NothingToPromote"
        return status.recorded(Record(now, "Ignored", reason, vain, weight=status.weight))
    if rollout.by_hand is ByHand.FULL and asked is ByHand.STEP:
        return status
    return replace(status, rollout=replace(rollout, by_hand=asked))


def _in_vain(rollout: Rollout | None, wanted: Spec, asked: ByHand) -> str:
    """Why the rollout can not do what is asked; empty if it can."""
    if rollout is None:
        return "No rollout is under way. To go back to another revision, change the spec."
    if asked is ByHand.ABORT:
        return ""
    if rollout.strategy is Strategy.RECREATE:
        return "The strategy Recreate waits for nobody: the new revision takes over as soon as it answers."
    if asked is ByHand.STEP and rollout.step is None:
        return "The canary has no traffic yet, so there is no step to end."
    if asked is ByHand.STEP and not stepwise(rollout, wanted) and wanted.rollout.promotion is Promotion.AUTOMATIC:
        return "Nothing waits for anybody: promotion comes with the evidence. The value full promotes without it."
    return ""
