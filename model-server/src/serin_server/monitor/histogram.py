"""Histograms that cost a request little: the library's take several times as long to observe."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from serin_server.monitor.exposition import head, labels, number


class Observed:
    """What one series of a histogram has seen. Belongs to one thread."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the buckets' upper ends, rising; each belongs to its bucket."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histogram:
    """A family of them, by label values."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], names: Sequence[str]) -> None:
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._bound_texts = (*map(number, bounds), "+Inf")
        self._names = tuple(names)
        self._children: dict[tuple[str, ...], Observed] = {}

    def labels(self, *values: str) -> Observed:
        """The series with these label values, which exists from now on."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Observed(self._bounds)
        return child

    def render(self) -> str:
        """The family in Prometheus' text format."""
        return head(self._name, "histogram", self._text) + "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for values, child in self._children.items():
            own = labels(**dict(zip(self._names, values, strict=True)))
            yield from self._buckets(own, child.counts)
            yield f"{self._name}_sum{{{own}}} {number(child.total)}\n"

    def _buckets(self, own: str, counts: Iterable[int]) -> Iterator[str]:
        count = 0
        for bound, more in zip(self._bound_texts, counts, strict=True):
            count += more
            yield f'{self._name}_bucket{{{own},le="{bound}"}} {count}.0\n'
        yield f"{self._name}_count{{{own}}} {count}.0\n"
