"""What waits for something that may come late: bounded, and forgotten by age and by chance, never by what it says."""

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

# Of each level of `Thinned`. All levels together remember 36,000 entries and reach back over 260 million.
EACH = 2_000
_LEVELS = 18

V = TypeVar("V")


class Recent(Generic[V]):
    """A bounded dictionary, whose oldest entry goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Of a plain dict that is full, the oldest takes as long to find as there are gaps before it: 10 µs.
        self._entries: OrderedDict[str, V] = OrderedDict()

    def put(self, key: str, value: V) -> tuple[str, V] | None:
        """Keeps what is there already. Returns the entry that had to go, if one had."""
        if key in self._entries:
            return None
        oldest = self._entries.popitem(last=False) if len(self._entries) >= self._most else None
        self._entries[key] = value
        return oldest

    def take(self, key: str) -> V | None:
        return self._entries.pop(key, None)


class Thinned(Generic[V]):
    """The latest entries, and of older ones a sample, the thinner the older they are.

    What has to go from the latest is given a level by chance: half get level 0, a quarter level 1, and so on. A level
    remembers the last EACH entries that it got, so level l reaches back over 2 ** (l + 1) times as many. Of what left
    the latest n entries ago, between EACH / n and 2 EACH / n is thus still there: twice the time takes one more level.
    """

    def __init__(self, most: int, each: int = EACH, bits: Callable[[int], int] = random.getrandbits) -> None:
        self._latest: Recent[V] = Recent(most)
        self._older: dict[str, V] = {}
        self._levels: list[deque[str]] = [deque() for _ in range(_LEVELS)]
        self._each = each
        self._bits = bits

    def put(self, key: str, value: V) -> None:
        """Keeps what is there already among the latest."""
        oldest = self._latest.put(key, value)
        if oldest is None:
            return
        level = self._levels[_trailing_zeros(self._bits(_LEVELS - 1))]
        if len(level) >= self._each:
            self._older.pop(level.popleft(), None)
        level.append(oldest[0])
        self._older[oldest[0]] = oldest[1]

    def take(self, key: str) -> V | None:
        latest = self._latest.take(key)
        return self._older.pop(key, None) if latest is None else latest


def _trailing_zeros(bits: int) -> int:
    """_LEVELS - 1 for no bit at all."""
    return (bits & -bits).bit_length() - 1 if bits else _LEVELS - 1
