"""What a rollout expects and what was noticed on the way: its forecast and its remarks, in status."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from serin_operator.api import spec
from serin_operator.api.spec import Mode, Strategy
from serin_operator.api.status import Remark, Rollout
from serin_operator.decide.clocks import left, served
from serin_operator.decide.course import Shadow, Split
from serin_operator.decide.forecast import Course, Prospect, Schedule, forecast
from serin_operator.decide.roles import shadow_of
from serin_operator.decide.words import duration

ENOUGH_SECONDS = 30.0  # counts of a shorter time forecast too roughly to warn of anything


def schedule(rollout: spec.Rollout) -> Schedule:
    """The weights that a canary gets, each with the least minutes that it serves. An adaptive ramp is soon over."""
    if rollout.mode is Mode.ADAPTIVE:
        return [(float(rollout.max_weight), 0.0)]
    return [(float(step.weight), step.duration / 60) for step in rollout.steps]


def foreseen(
    rollout: Rollout, wanted: spec.Rollout, prospects: Sequence[Prospect], seconds: float, now: float
) -> Rollout:
    """The rollout with its forecast of now, and a remark when that is too long.

    prospects: of every gate. seconds: how long the counts took that it rests on.
    """
    told = forecast(prospects, _course(rollout, wanted, now), max_minutes=wanted.max_duration / 60, time=now)
    rollout = replace(rollout, forecast=told)
    minutes_left = left(rollout, wanted, now) / 60
    if not told.per_minute or seconds < ENOUGH_SECONDS or (told.minutes is not None and told.minutes <= minutes_left):
        return rollout
    text = told.message
    if told.minutes is not None:
        text += (
            f" But only {duration(minutes_left)} of maxDuration are left: raise rollout.maxDuration, give "
            f"{told.limited_by} a wider margin, or send more traffic."
        )
    return with_remarks(rollout, [Remark("CannotDecideInTime", text)])


def with_remarks(rollout: Rollout, remarks: Iterable[Remark]) -> Rollout:
    """The rollout with these remarks, the latest of each reason. One that no longer holds stays: it was noticed."""
    known = {remark.reason: remark for remark in (*rollout.remarks, *remarks)}
    return replace(rollout, remarks=tuple(known.values()))


def _course(rollout: Rollout, wanted: spec.Rollout, now: float) -> Course:
    """What is ahead of the canary from now on."""
    steps = schedule(wanted)
    shadow = shadow_of(rollout.strategy, wanted)
    percent = rollout.mirror or (shadow.percent if shadow is not None and rollout.step is None else 0)
    if not percent:
        return Split(_remaining(rollout, wanted, now), steps)
    lasted = served(rollout, now) if rollout.mirror else 0.0
    least = max(0.0, shadow.duration - lasted) / 60 if shadow is not None else 0.0
    follows = steps if rollout.strategy is Strategy.CANARY else []
    return Shadow(percent, least, after=sum(minutes for _, minutes in follows))


def _remaining(rollout: Rollout, wanted: spec.Rollout, now: float) -> Schedule:
    """The schedule from now on."""
    ahead = schedule(wanted)
    if wanted.mode is Mode.ADAPTIVE or rollout.step is None:
        return ahead
    (weight, minutes), *later = ahead[min(rollout.step, len(ahead) - 1) :]
    return [(weight, max(0.0, minutes - served(rollout, now) / 60)), *later]
