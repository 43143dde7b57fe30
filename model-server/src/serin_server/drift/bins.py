"""Bins of one feature: where its values are counted, in the reference and live alike."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serin_server.monitor.classes import class_outcome
from serin_server.protocol.datatypes import Array

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]

MISSING = "missing"
OTHER = "other"
# A category that fewer rows have is not named: it could be somebody's.
LEAST_NAMED = 10


@dataclass(frozen=True)
class NumericBins:
    """Half-open intervals between ascending `edges`; the first and the last are open to infinity.

    low, high: the range of the reference, rounded outwards; None when all of its values are missing.
    """

    edges: tuple[float, ...]
    low: float | None
    high: float | None

    @property
    def names(self) -> list[str]:
        """One for each bin, without that of missing values."""
        ends = ["-Inf", *map(_text, self.edges), "+Inf"]
        return [f"[{low}, {high})" for low, high in itertools.pairwise(ends)]

    def indices(self, values: Array) -> Indices:
        """The bin of each value, of shape [rows]; that of NaN comes after the last."""
        numbers = as_numbers(values)
        found = np.searchsorted(np.array(self.edges), numbers, side="right")
        found[np.isnan(numbers)] = len(self.edges) + 1
        return found


@dataclass(frozen=True)
class CategoryBins:
    """The most frequent categories, by their text, and one bin for all others."""

    categories: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """One for each bin, without that of missing values."""
        return [*(f"= {category}" for category in self.categories), OTHER]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {category: place for place, category in enumerate(self.categories)}

    def indices(self, values: Array) -> Indices:
        """The bin of each value, of shape [rows]; that of None, NaN and the empty text comes after the last."""
        return self.indices_of_texts([category_text(value) for value in values.tolist()])

    def indices_of_texts(self, texts: Sequence[str | None]) -> Indices:
        """The same of the values' texts; None is a missing one."""
        places, other = self._places, len(self.categories)
        return np.array([other + 1 if text is None else places.get(text, other) for text in texts], dtype=np.intp)


Bins = NumericBins | CategoryBins


def category_text(value: object) -> str | None:
    """The text of a category, bounded in length as those of classes are; None when the value is missing."""
    if value is None or value == "" or value != value:  # only NaN differs from itself
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return class_outcome(value).text


def as_numbers(values: Array) -> Floats:
    """The values as floats; what is no number is NaN."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    return np.array([_number(value) for value in values.tolist()], dtype=np.float64)


def numeric_bins(values: Floats, most: int) -> NumericBins:
    """At most so many bins with about equally many of the values [rows].

    No value is split, and up to `most` distinct values get a bin each. An edge is a round number between two
    neighbouring values and not a value itself, so that neither rounding nor single precision moves a value across it.
    """
    finite = np.sort(values[np.isfinite(values)])
    if finite.size == 0:
        return NumericBins((), None, None)
    distinct, counts = np.unique(finite, return_counts=True)
    upto = counts.cumsum()[:-1]  # how many values are below the gap after each distinct value
    gaps = np.arange(len(distinct) - 1)
    if len(distinct) > most:
        targets = finite.size * np.arange(1, most) / most
        right = np.clip(np.searchsorted(upto, targets), 1, len(upto) - 1)
        nearer_left = targets - upto[right - 1] < upto[right] - targets
        gaps = np.unique(np.where(nearer_left, right - 1, right))
    edges = sorted({_between(float(distinct[gap]), float(distinct[gap + 1])) for gap in gaps})
    return NumericBins(tuple(edges), *_outwards(float(distinct[0]), float(distinct[-1])))


def category_bins(values: Array, most: int) -> CategoryBins:
    """The `most` most frequent categories of the values [rows]; rare ones are not named."""
    texts = [text for value in values.tolist() if (text := category_text(value)) is not None]
    named = [(-count, name) for name, count in Counter(texts).items() if count >= LEAST_NAMED]
    return CategoryBins(tuple(name for _, name in sorted(named)[:most]))


def _between(low: float, high: float) -> float:
    """The roundest number in the middle half between two values."""
    half = (high - low) / 2
    middle = low + half
    if not (math.isfinite(half) and low < middle < high):
        return high
    first = math.floor(-math.log10(half))
    for digits in range(first - 1, first + 2):
        rounded = round(middle, digits)
        if abs(rounded - middle) <= half / 2:
            return rounded
    return middle


def _outwards(low: float, high: float) -> tuple[float, float]:
    """The range, rounded outwards to a hundredth of its width: it need not tell whose value is the largest."""
    if low == high or not math.isfinite(high - low):
        return low, high
    digits = 2 - math.ceil(math.log10(high - low))
    unit = 10.0**-digits
    down, up = math.floor(round(low / unit, 6)), math.ceil(round(high / unit, 6))
    return min(low, round(down * unit, digits)), max(high, round(up * unit, digits))


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _text(edge: float) -> str:
    return repr(edge).removesuffix(".0")
