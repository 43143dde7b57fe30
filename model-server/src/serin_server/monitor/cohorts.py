"""Counts that wait until the predictions they belong to are of one age. Pure: times are passed in.

A label tells something about the time at which its prediction was made, not about the time at which it arrives. Two
revisions are compared fairly only by predictions of equal age: a new revision's predictions are all young, so most
of the labels it has are the quick ones. So for each window W (seconds) there is a count in which predictions appear
when they are W old, with the labels that have come by then, and never change afterwards:

- Time is cut into buckets of `bucket_width(W)` seconds, aligned to the epoch, the same in every process. A prediction
  belongs to the bucket in which it was made.
- A bucket is open until its end is W old. Then all of it is added to the settled count, and it is closed.
- An event (a label, the prediction itself) counts if the prediction is at most W old when it arrives, so before its
  bucket closes. An event that comes later is not in this window's count at all, though it may be in a longer one's.

What has settled by some time thus depends only on the events until then, not on when or how often one looks, as long
as the clock does not go back. After a step back what falls into a closed bucket settles at once: nothing is lost.

Open buckets live in this process only: when it ends, events whose bucket is still open are in no settled count.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
WINDOWS = (10, _MINUTE, 5 * _MINUTE, 30 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY)

_MOST_RECENT = 4096  # events that may wait for being put into buckets

Key = TypeVar("Key", bound=Hashable)
Ints = npt.NDArray[np.int64]
Amounts = npt.NDArray[np.float64]


def bucket_width(window: int) -> int:
    """Seconds of prediction time that settle together: a sixtieth of the window, at least one."""
    return max(1, window // 60)


class Cohorts(Generic[Key]):
    """For every key and window, the sum of the amounts whose prediction time has settled.

    `add` is cheap: one increment in a dict. The work is done when somebody looks, or after _MOST_RECENT different
    events. Memory: at most 62 numbers a window, so 4.5 kB for each key with all windows (at most a quarter more is
    kept free), and nothing else grows. Keys are never forgotten. Sums of whole numbers are exact up to 2**53.
    """

    def __init__(self, windows: Sequence[int] = WINDOWS) -> None:
        """`windows` in seconds, rising; those above a minute must be whole minutes."""
        self._limits = tuple(windows)
        self._windows = tuple(_Window(window) for window in windows)
        self._columns: dict[Key, int] = {}
        # (column, second of the prediction, first window that counts it) to amount
        self._recent: dict[tuple[int, int, int], float] = {}
        self._latest = 0.0

    def expect(self, key: Key) -> None:
        """Let `settled` tell the key from now on, with zeros as long as nothing has settled."""
        self._columns.setdefault(key, len(self._columns))

    def add(self, key: Key, made: int, now: float, amount: float = 1) -> None:
        """Count what happened at `now` to a prediction `made` at that second, both in seconds since 1970.

        A prediction from the future, which another pod's clock can make, counts as made now.
        """
        made = min(made, int(now))
        first = bisect_left(self._limits, now - made)
        if first == len(self._limits):
            return
        event = (self._columns.setdefault(key, len(self._columns)), made, first)
        self._recent[event] = self._recent.get(event, 0) + amount
        self._latest = max(self._latest, now)
        if len(self._recent) >= _MOST_RECENT:
            self._settle(self._latest)

    def settle(self, key: Key, window: int, amount: float = 1) -> None:
        """Count in this window, and now, what somebody else has kept until it was so old."""
        column = self._columns.setdefault(key, len(self._columns))
        chosen = self._windows[self._limits.index(window)]
        chosen.reserve(len(self._columns))
        chosen.settled[column] += amount

    def settled(self, now: float) -> Iterator[tuple[Key, list[float]]]:
        """Every key with the amounts that have settled by `now`, one for each window."""
        self._settle(now)
        sums = np.stack([window.settled[: len(self._columns)] for window in self._windows], axis=1)
        return zip(self._columns, sums.tolist(), strict=True)

    def _settle(self, now: float) -> None:
        self._latest = max(self._latest, now)
        for window in self._windows:
            window.reserve(len(self._columns))
            window.close(self._latest)
        if not self._recent:
            return
        columns, made, first = np.array(list(self._recent), dtype=np.int64).T
        amounts = np.fromiter(self._recent.values(), dtype=np.float64)
        self._recent.clear()
        for index, window in enumerate(self._windows):
            counts = first <= index
            window.put(columns[counts], made[counts], amounts[counts])


class _Window:
    """The buckets of one window. `open` has shape [buckets, keys] and is a ring, `settled` has shape [keys]."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds
        self._width = bucket_width(seconds)
        self._buckets = seconds // self._width + 1
        self._first_open = 0
        self._open: Amounts = np.zeros((self._buckets, 0))
        self.settled: Amounts = np.zeros(0)

    def reserve(self, keys: int) -> None:
        """Make room for this many keys."""
        missing = keys - len(self.settled)
        if missing > 0:
            more = missing + keys // 4
            self._open = np.pad(self._open, ((0, 0), (0, more)))
            self.settled = np.pad(self.settled, (0, more))

    def close(self, now: float) -> None:
        """Settle the buckets whose end is `seconds` old."""
        first_open = int((now - self._seconds) // self._width)
        if first_open <= self._first_open:
            return
        closing = np.arange(self._first_open, min(first_open, self._first_open + self._buckets)) % self._buckets
        self.settled += self._open[closing].sum(axis=0)
        self._open[closing] = 0
        self._first_open = first_open

    def put(self, columns: Ints, made: Ints, amounts: Amounts) -> None:
        """Add amounts to the buckets of these seconds, which must not lie after the time of the last `close`."""
        buckets = made // self._width
        late = buckets < self._first_open
        np.add.at(self.settled, columns[late], amounts[late])
        np.add.at(self._open, (buckets[~late] % self._buckets, columns[~late]), amounts[~late])
