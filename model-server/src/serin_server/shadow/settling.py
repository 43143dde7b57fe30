"""A sample of pairs that waits until they are of one age, as `monitor/cohorts.py` does for all labels.

Labels that come early must not weigh more than those that come late. So which pairs are remembered is decided by their
draws alone (`memory`), and those are remembered until they are counted, with or without a label: each pair of one
bucket of time has the same chance, whenever its label comes and whatever it says.
"""

import random
from dataclasses import dataclass

from serin_server.monitor.classes import Outcome
from serin_server.monitor.cohorts import bucket_width
from serin_server.shadow.memory import Drawn, draw_of

# Of each bucket. A window has 60 buckets and those that are being filled: 20,000 pairs or so.
EACH = 333

Label = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one row of a request: a server's own, and that of the stable revision `stable`.

    made: when, in seconds since 1970.
    """

    stable: str
    own: Outcome
    theirs: Outcome
    made: int


@dataclass(slots=True)
class _Waiting:
    pair: Pair
    nonce: str
    label: Label | None = None


class Settling:
    """The pairs that are not yet as old as `window`, in seconds: of each bucket of time at most `each`."""

    def __init__(self, window: int, each: int = EACH) -> None:
        self.window = window
        self._width = bucket_width(window)
        self._each = each
        self._buckets: dict[int, Drawn[_Waiting]] = {}
        self._by_nonce: dict[str, _Waiting] = {}

    def add(self, pair: Pair, nonce: str) -> None:
        """Remember the pair, if it is drawn: of n pairs of its bucket each is with the chance each / n.

        nonce: of the stable revision's prediction id; "" if it gave none, and no label can come.
        """
        drawn = self._buckets.setdefault(pair.made // self._width, Drawn(self._each))
        draw = draw_of(nonce) if nonce else random.getrandbits(64)
        if not drawn.takes(draw):
            return
        waiting = _Waiting(pair, nonce)
        gone = drawn.put(draw, waiting)
        if gone is not None:
            self._by_nonce.pop(gone.nonce, None)
        if nonce:
            self._by_nonce[nonce] = waiting

    def label(self, nonce: str, label: Label, at: float) -> None:
        """The label of a pair, if that is remembered; it counts if it came in time, `at` in seconds since 1970."""
        waiting = self._by_nonce.get(nonce)
        if waiting is not None and waiting.label is None and at - waiting.pair.made <= self.window:
            waiting.label = label

    def settled(self, until: float) -> list[tuple[Pair, Label | None]]:
        """A bucket that is old enough at `until`, and is forgotten by that; nothing if there is none."""
        due = (number for number in self._buckets if (number + 1) * self._width + self.window <= until)
        number = next(due, None)
        waiting = [] if number is None else list(self._buckets.pop(number))
        for one in waiting:
            self._by_nonce.pop(one.nonce, None)
        return [(one.pair, one.label) for one in waiting]
