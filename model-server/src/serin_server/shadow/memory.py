"""What waits for something that may come late: bounded, and forgotten by age and by chance, never by what it says.

What is forgotten by chance is that of the largest draws. A draw is made of the number in a prediction id, which servers
count up from a random start, and not by a generator: so all servers forget the same, and what one server still knows of
a prediction, such as its label, is of use to another.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from heapq import heappush, heappushpop
from typing import Generic, TypeVar

# Of each level of `Thinned`. All levels together remember 36,000 entries and reach back over 260 million.
EACH = 2_000
_LEVELS = 18
_DRAW_BITS = 64

V = TypeVar("V")


def draw_of(nonce: str) -> int:
    """Below 2 ** 64, and as if by chance."""
    return int.from_bytes(hashlib.blake2b(nonce.encode(), digest_size=_DRAW_BITS // 8).digest())


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

    What has to go from the latest gets the level of its draw: half get level 0, a quarter level 1, and so on. A level
    remembers the last EACH entries that it got, so level l reaches back over 2 ** (l + 1) times as many. Of what left
    the latest n entries ago, between EACH / n and 2 EACH / n is thus still there: twice the time takes one more level.
    """

    def __init__(self, most: int, each: int = EACH) -> None:
        self._latest: Recent[V] = Recent(most)
        self._older: dict[str, V] = {}
        self._levels: list[deque[str]] = [deque() for _ in range(_LEVELS)]
        self._each = each

    def put(self, key: str, value: V) -> None:
        """Keeps what is there already among the latest."""
        oldest = self._latest.put(key, value)
        if oldest is None:
            return
        zeros = _DRAW_BITS - draw_of(oldest[0]).bit_length()
        level = self._levels[min(zeros, _LEVELS - 1)]
        if len(level) >= self._each:
            self._older.pop(level.popleft(), None)
        level.append(oldest[0])
        self._older[oldest[0]] = oldest[1]

    def take(self, key: str) -> V | None:
        latest = self._latest.take(key)
        return self._older.pop(key, None) if latest is None else latest


class Drawn(Generic[V]):
    """Of all entries those with the smallest draws, `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._came = 0
        self._heap: list[tuple[int, int, V]] = []  # the largest draw first

    def takes(self, draw: int) -> bool:
        """Whether an entry with this draw would be among them."""
        return len(self._heap) < self._most or draw < -self._heap[0][0]

    def put(self, draw: int, value: V) -> V | None:
        """Returns the entry that is not among them any more, if there is one: perhaps this one."""
        self._came += 1
        entry = (-draw, self._came, value)
        if len(self._heap) >= self._most:
            return heappushpop(self._heap, entry)[2]
        heappush(self._heap, entry)
        return None

    def __iter__(self) -> Iterator[V]:
        return (value for *_, value in self._heap)

    def __len__(self) -> int:
        return len(self._heap)
