"""The test for drift: is the live traffic still like the reference that the model was trained on?

It is asked once a period, of the rows of that period together, so that a day is judged as a whole and not its night.
Per feature it looks at events, sets of bins: each bin, each tail of ordered bins, and what is not in them. The null
hypothesis is that on average over each period an event has at most the share that it had where the reference came from,
plus a tolerance; which is so while live traffic is within that total variation distance.

- The reference's own share is known only from its rows. It is replaced by an upper limit, by Chernoff's bound for a
  binomial (P(X <= m) <= exp(-n kl(m/n, p))), for all events and features at once at `REFERENCE_ERROR`. One row is added
  to each event: an edge that lies at the reference's own quantile can hold that much less of it than it seems.
- Against a share of at most q, rows that fall into the event count (1 + d (1-q)/q), others (1 - d): a likelihood ratio
  for the alternative that a part d of all rows has come over. Its expectation is at most 1 for each row whose chance is
  at most q. It is linear in that chance, so by the inequality of arithmetic and geometric means also for a period whose
  average is at most q. The mean over events and alternatives is an e-value of the period, whatever hangs together.
- M <- (M + 1) e, the sum of the e-processes that begin at each period (an e-detector: Shin, Ramdas and Rinaldo 2022),
  exceeds 1/a no sooner than after 1/a periods on average while there is no drift. So does the mean over features.
- More rows than `MOST_ROWS` in a period count as so many (the exponent is below 1, so by Jensen's inequality this is
  still an e-value): rows that hang together are not taken for more evidence than they are.

Everything here is pure. Features are in the order in which they are given; evidence is in natural logarithms.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from serin_operator.decide.projection import Array, Integers

# The chance that a reference sample is so unlike what it was drawn from that the test's promise does not hold.
REFERENCE_ERROR = 0.01
MOST_ROWS = 10_000
# The alternatives: parts of all rows that have come over into an event.
_PARTS = np.array([0.02, 0.06, 0.2, 0.6])
_INTERVAL = re.compile(r"\[(\S+), (\S+)\)")
_HALVINGS = 50


@dataclass(frozen=True, slots=True)
class Feature:
    """What is counted of one feature: the names of its bins, and how many rows of the reference each has."""

    name: str
    bins: tuple[str, ...]
    reference: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Distance:
    """The event of a feature whose live share is furthest from the reference's; `event` is in words."""

    feature: str
    event: str
    live: float
    reference: float


@lru_cache(maxsize=1024)
def events(bins: tuple[str, ...]) -> tuple[tuple[str, ...], npt.NDArray[np.bool_]]:
    """The events of a feature, in words, and (E, K) which bins they are made of."""
    intervals = {place: match for place, name in enumerate(bins) if (match := _INTERVAL.fullmatch(name))}
    ordered = sorted(intervals, key=lambda place: float(intervals[place][1]))
    found: dict[tuple[int, ...], str] = {(place,): _words(bins[place]) for place in range(len(bins))}
    for end, (place, after) in enumerate(pairwise(ordered), start=1):
        edge = intervals[place][2]
        found[tuple(sorted(ordered[:end]))] = f"below {edge}"
        found[tuple(sorted(ordered[end:]))] = f"{intervals[after][1]} or more"
    sets = {members: words for members, words in found.items() if len(members) < len(bins)}
    for members, words in list(sets.items()):
        others = tuple(place for place in range(len(bins)) if place not in members)
        sets.setdefault(others, f"not {words}")
    matrix = np.array([[place in members for place in range(len(bins))] for members in sets], dtype=bool)
    return tuple(sets.values()), matrix.reshape(len(sets), len(bins))


def log_e(features: Sequence[Feature], live: Sequence[Integers], tolerance: float) -> Array:
    """(F,), ln of each feature's e-value for one period. live: rows of the period per bin, (K,) each."""
    return np.array(
        [
            _log_e(rows, _limits(feature, tolerance, len(features)), events(feature.bins)[1])
            for feature, rows in zip(features, live, strict=True)
        ]
    )


def advance(sums: Array, log_e_values: Array, *, log_most: float) -> Array:
    """(F,), ln of each feature's M after a period; ln 0 = -inf before the first. No more than `log_most` is kept."""
    return np.minimum(np.logaddexp(sums, 0.0) + log_e_values, log_most)


def log_mean(sums: Array) -> float:
    """ln of the mean over features: the odds against there being no drift."""
    return float(np.logaddexp.reduce(sums) - math.log(len(sums))) if len(sums) else -math.inf


def furthest(feature: Feature, live: Integers) -> Distance:
    """How far the period is from the reference, at the event where that is most; of a feature with rows in both."""
    words, matrix = events(feature.bins)
    reference = np.array(feature.reference)
    was, now = (matrix @ counts / counts.sum() for counts in (reference, live))
    place = int(np.argmax(now - was))
    return Distance(feature.name, words[place], float(now[place]), float(was[place]))


def _log_e(rows: Integers, limits: Array, matrix: npt.NDArray[np.bool_]) -> float:
    total = int(rows.sum())
    can_exceed = limits < 1
    if total == 0 or not can_exceed.any():
        return 0.0
    inside, limits = (matrix @ rows)[can_exceed, None], limits[can_exceed, None]
    per_inside, per_outside = np.log1p(_PARTS * (1 - limits) / limits), np.log1p(-_PARTS)
    gains = (inside * per_inside + (total - inside) * per_outside) * min(1.0, MOST_ROWS / total)
    return float(np.logaddexp.reduce(gains.ravel()) - math.log(gains.size))


@lru_cache(maxsize=1024)
def _limits(feature: Feature, tolerance: float, features: int) -> Array:
    """(E,), the greatest share of each event that is no drift."""
    matrix = events(feature.bins)[1]
    total = sum(feature.reference)
    if total == 0 or not len(matrix):
        return np.ones(len(matrix))
    inside = np.minimum(matrix @ np.array(feature.reference) + 1, total)
    chance = REFERENCE_ERROR / (features * len(matrix))
    return np.minimum(upper_limit(inside / total, math.log(1 / chance) / total) + tolerance, 1.0)


def upper_limit(shares: Array, bound: float) -> Array:
    """The greatest p with kl(share, p) <= bound, for each share."""
    low, high = shares.astype(np.float64), np.ones_like(shares, dtype=np.float64)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        within = _kl(shares, middle) <= bound
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    return high


def _kl(share: Array, p: Array) -> Array:
    """The divergence of two Bernoulli distributions; 0 ln 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(share > 0, share * np.log(share / p), 0.0)
        other = np.where(share < 1, (1 - share) * np.log((1 - share) / (1 - p)), 0.0)
    return one + other


def _words(name: str) -> str:
    interval = _INTERVAL.fullmatch(name)
    if interval is None:
        return name.removeprefix("= ")
    low, high = interval[1], interval[2]
    if low == "-Inf":
        return "any value" if high == "+Inf" else f"below {high}"
    return f"{low} or more" if high == "+Inf" else f"from {low} to {high}"
