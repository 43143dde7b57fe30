"""When the whole machine stood nearly still: virtual ones do, for tens of milliseconds, and no software is at fault.

The load generator does a piece of arithmetic whenever a request is due, and looks at the processor time that it took.
What else runs on the machine is not in that time, and a cold cache makes little of it. Where it takes several times as
much as usual, the processor itself was slow. What was due around such a moment says nothing about the server.
"""

import bisect
import statistics
import time
from collections.abc import Sequence

_STEPS = 300  # about 20 µs
_SLOW = 2.5  # times the median
_BEFORE, _AFTER = 0.010, 0.050  # seconds: what is under way when it begins, and what has gathered when it ends


class Stalls:
    """Moments, in seconds of `time.perf_counter`, and what the arithmetic took at each."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, float]] = []

    def sample(self) -> None:
        """Measure now."""
        now, begin, total = time.perf_counter(), time.thread_time(), 0
        for step in range(_STEPS):
            total += step * step
        self._samples.append((now, time.thread_time() - begin))

    def calm(self, moments: Sequence[float]) -> list[bool]:
        """Of each moment, whether the machine ran as usual around it."""
        return calm(self._samples, moments)


def calm(samples: Sequence[tuple[float, float]], moments: Sequence[float]) -> list[bool]:
    """Of each moment, whether no slow sample is near. samples: moments in their order, and what each took."""
    usual = statistics.median(taken for _, taken in samples) if samples else 0.0
    slow = [moment for moment, taken in samples if taken > _SLOW * usual]
    return [_next(slow, moment - _AFTER) > moment + _BEFORE for moment in moments]


def _next(times: Sequence[float], after: float) -> float:
    """The first of them that is not before `after`."""
    place = bisect.bisect_left(times, after)
    return times[place] if place < len(times) else float("inf")
