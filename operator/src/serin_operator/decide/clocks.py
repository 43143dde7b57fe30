"""The clocks of a rollout: of its step and of maxDuration. Both stand still while it is paused. All in seconds."""

from dataclasses import replace

from serin_operator.api import spec
from serin_operator.api.status import Rollout

QUIET_LOOKS = 3  # so many looks without anything new are normal: the first requests take a moment to be counted


def due(last: float | None, interval: float, now: float) -> bool:
    """Whether it is time for the look after the last one. One in the future was made before the clock was set back."""
    return last is None or not 0 <= now - last < interval


def due_at(last: float | None, interval: float, now: float) -> float:
    """When it is."""
    return now if last is None or due(last, interval, now) else last + interval


def timed(rollout: Rollout, paused: bool, now: float) -> Rollout:
    """The rollout with its clocks moved on by a pause that is over; the begin of a pause is noted."""
    if paused or rollout.paused_at is None:
        return replace(rollout, paused_at=(rollout.paused_at or now) if paused else None)
    pause, step = now - rollout.paused_at, rollout.step_started_at
    return replace(
        rollout,
        started_at=rollout.started_at + pause,
        step_started_at=None if step is None else min(step + pause, now),  # it may have begun within the pause
        paused_at=None,
    )


def served(rollout: Rollout, now: float) -> float:
    """How long the step's weight has been served; 0 before it is seen serving."""
    return 0.0 if rollout.step_started_at is None else max(0.0, _clock(rollout, now) - rollout.step_started_at)


def left(rollout: Rollout, wanted: spec.Rollout, now: float) -> float:
    """What is left of maxDuration; 0 when it is over."""
    return max(0.0, wanted.max_duration - (_clock(rollout, now) - rollout.started_at))


def _clock(rollout: Rollout, now: float) -> float:
    return now if rollout.paused_at is None else rollout.paused_at
