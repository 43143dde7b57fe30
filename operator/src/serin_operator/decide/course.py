"""What is ahead of a canary until its promotion, for forecasts: a split of the requests, or first being a shadow.

A shadow answers copies of requests beside stable: the accuracy is decided by pairs of answers to the same request, the
other metrics arm by arm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serin_operator.decide import forecast, paired_forecast
from serin_operator.decide.forecast import Prospect, Schedule


@dataclass(frozen=True, slots=True)
class Split:
    """The canary gets a share of the requests. remaining: the schedule from now on; whole: from its first request."""

    remaining: Schedule
    whole: Schedule

    def waits(self, gates: Sequence[Prospect]) -> list[float]:
        """Minutes to plan for until each gate lets a good canary be promoted; inf for never."""
        return forecast.waits(gates, self.remaining)

    def worsening(self, gate: Prospect, minutes: float) -> float | None:
        """The smallest that is mostly rolled back within so many minutes of the whole; None if none is."""
        return _of_arms(gate, self.whole, minutes)


@dataclass(frozen=True, slots=True)
class Shadow:
    """The canary gets copies of `percent` of the requests until all gates are passed, for `least` minutes at least.

    after: least minutes of what follows. The shadow's odds count on there, so no more is planned for.
    """

    percent: int
    least: float
    after: float

    def waits(self, gates: Sequence[Prospect]) -> list[float]:
        """Minutes to plan for until each gate lets a good canary be promoted; inf for never."""
        return [max(self.least, self.evidence(gate)) + self.after for gate in gates]

    def evidence(self, gate: Prospect) -> float:
        """Minutes until the gate is passed, however long the shadow has to last."""
        if not gate.paired:
            return forecast.waits([gate], self._copied)[0]
        pairs = paired_forecast.pairs_missing(gate)
        if not pairs:
            return 0.0
        return gate.silence + pairs / gate.per_minute if gate.per_minute else math.inf

    def worsening(self, gate: Prospect, minutes: float) -> float | None:
        """The smallest that is mostly rolled back within so many minutes, none of which any client gets."""
        if not gate.paired:
            return _of_arms(gate, self._copied, minutes)
        if gate.answers is None or gate.for_rollback is None:
            return None
        return paired_forecast.detectable_worsening(
            gate.answers,
            max(0.0, minutes - gate.delay) * gate.per_minute,
            tolerance=gate.tolerance,
            most=1 - gate.failure_rate,
            log_odds=gate.for_rollback,
        )

    @property
    def _copied(self) -> Schedule:
        """The canary's part of what both answer."""
        return [(100 * self.percent / (100 + self.percent), 0.0)]


def _of_arms(gate: Prospect, schedule: Schedule, minutes: float) -> float | None:
    if gate.for_rollback is None:
        return None
    return forecast.detectable_worsening(
        schedule,
        max(0.0, minutes - gate.delay),
        failure_rate=gate.failure_rate,
        tolerance=gate.tolerance,
        per_minute=gate.per_minute,
        log_odds=gate.for_rollback,
        phi=gate.phi,
    )
