"""Sequential evidence from pairs: two revisions answer the same request, as when live requests are mirrored.

Only pairs in which just one answer is wrong tell the revisions apart, so few labels suffice where the models mostly
agree. With d = 1 if only the canary is wrong, -1 if only the stable arm is, else 0, the mean of d is f_c - f_s, the
difference of the shares of failures. The hypotheses are those of `evidence.py`, and each test is an e-process:

- *worse* is evidence against H0: f_c - f_s <= tolerance.
- *non-inferior* is evidence against H0: f_c - f_s >= margin.
- *superior* is evidence against H0: f_c - f_s >= 0.

Each is a mixture of bets (`bets.py`), whose winnings depend on the totals of pairs only: in which order pairs come and
how scrapes group them changes nothing, apart from when a late onset of *worse* begins.

A pair is counted as one of four kinds, `same`, `b`, `c`, `open`:

- same: both answers right or both wrong. Where the answers are equal that is known without a label.
- b: only the canary's is wrong. c: only the stable arm's is.
- open: they differ, and no label tells who is right. For *worse* it counts as c, for the others as b, so that each
  e-value is at most what it would be with the label. So nothing is assumed about which labels are missing.

Hence two ways to count, to be chosen beforehand. `of_labelled` takes labelled pairs only, and assumes that a label that
is missing says nothing. Or all pairs are counted, those with equal answers as `same`, and labels are needed only where
answers differ. Where they differ seldom, this needs no label at all: |f_c - f_s| is at most the share of pairs whose
answers differ, so a share below the margin shows non-inferiority (`with_waiting`).

Everything here is pure. All evidence is in natural logarithms. B tests in a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from serin_operator.decide import bets, grid
from serin_operator.decide.alternatives import Prior, recent
from serin_operator.decide.grid import GRID
from serin_operator.decide.projection import Array, Integers
from serin_operator.decide.sums import Singles, pack, rounded_down, unpack

# In multiples of the margin, as in docs/adr/0017-paired-shadow-test.md. *Superior* mirrors *worse*.
WORSE = Prior.of(margins=[0.5, 1, 2.5, 6], log_odds=[0.0] * 4, weights=[15, 40, 35, 10], first=0.96)
NON_INFERIOR = Prior.of(margins=[-1.0, -0.5, -1.5], log_odds=[0.0] * 3, weights=[75, 15, 10])
SUPERIOR = Prior.of(margins=[-0.5, -1, -2.5, -6], log_odds=[0.0] * 4, weights=[15, 40, 35, 10])

_FIRST_ONSET = 256  # pairs; then whenever they have doubled
_LAYOUT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """The state of a batch of tests. Make it with `start`, change it with `update`, `onset` and `retarget` only.

    tolerance, margin: (B,), the hypotheses, as fractions.
    history: (B, 2), earlier pairs whose answers differed, and all of them, at most a thousand.
    pairs: (B, 4), counted so far: same, b, c, open.
    onsets, onset_pairs: (B,), how many onsets there were after the start, and the pairs at the last.
    worse: (B, J), per bet the ln of the summed winnings since each onset, weighted by the onsets' shares relative to
        the start's; single-precision numbers, rounded down.
    """

    tolerance: Array
    margin: Array
    history: Integers
    pairs: Integers
    onsets: Integers
    onset_pairs: Integers
    worse: Singles

    def __len__(self) -> int:
        return len(self.tolerance)


def start(*, tolerance: npt.ArrayLike, margin: npt.ArrayLike, history: npt.ArrayLike | None = None) -> Paired:
    """No evidence yet, for as many tests as the longest argument has numbers.

    history: integers (B, 2), earlier pairs whose answers differed, and all of them, as from the warm-up. They only
    choose the bets and must not be counted again. Raises ValueError unless 0 <= tolerance < margin < 1, and for
    impossible counts.
    """
    tolerance, margin = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(value, np.float64)) for value in (tolerance, margin))
    )
    if not np.all((tolerance >= 0) & (tolerance < margin) & (margin < 1)):
        raise ValueError(f"need 0 <= tolerance < margin < 1, got tolerance {tolerance} and margin {margin}")
    batch = len(tolerance)
    before = np.zeros((batch, 2), np.int64) if history is None else _checked(history, (batch, 2))
    if np.any(before[:, 0] > before[:, 1]):
        raise ValueError(f"more pairs differ than there are: {before.tolist()}")
    bets_for_worse = bets.of_alternatives(tolerance[:, None], margin[:, None], WORSE)
    return Paired(
        tolerance=tolerance.copy(),
        margin=margin.copy(),
        history=recent(before),
        pairs=np.zeros((batch, 4), np.int64),
        onsets=np.zeros(batch, np.int64),
        onset_pairs=np.zeros(batch, np.int64),
        worse=np.zeros(bets_for_worse.shape, np.float32),
    )


def retarget(paired: Paired, *, tolerance: npt.ArrayLike, margin: npt.ArrayLike) -> Paired:
    """The tests under tolerances and margins that were edited while the rollouts run; scalars or (B,).

    A test whose values are new starts again, and what it has counted becomes history. The same values change nothing.
    Raises ValueError as `start`.
    """
    rate_known = paired.history + np.stack([paired.pairs[:, 1:].sum(axis=1), _total(paired)], axis=1)
    fresh = start(tolerance=np.broadcast_to(tolerance, len(paired)), margin=margin, history=rate_known)
    kept = (fresh.tolerance == paired.tolerance) & (fresh.margin == paired.margin)
    chosen: dict[str, Any] = {}
    for name in _ARRAYS:
        old, new = getattr(paired, name), getattr(fresh, name)
        chosen[name] = np.where(kept.reshape(-1, *[1] * (old.ndim - 1)), old, new)
    return Paired(**chosen)


def of_labelled(outcomes: npt.ArrayLike) -> Integers:
    """Counts for `update` from labelled pairs only.

    outcomes: integers (B, 4): both answers right, only the canary's wrong, only the stable arm's wrong, both wrong.
    """
    outcomes = np.asarray(outcomes)
    both_right, b, c, both_wrong = _checked(outcomes, (len(outcomes), 4)).T
    return np.stack([both_right + both_wrong, b, c, np.zeros_like(b)], axis=1)


def update(paired: Paired, counts: npt.ArrayLike) -> Paired:
    """The evidence after one more scrape. counts: integers (B, 4), further pairs: same, b, c, open.

    A pair is counted once, when nothing more is expected to be known of it: an open one at the age at which labels are
    no longer waited for. No pairs change nothing. Raises ValueError for another shape or negative numbers.
    """
    block = _checked(counts, paired.pairs.shape)
    same, b, c, open_ = (block[:, i, None].astype(np.float64) for i in range(4))
    limit = paired.tolerance[:, None]
    strength = bets.of_alternatives(limit, paired.margin[:, None], WORSE)
    following = replace(
        paired,
        pairs=paired.pairs + block,
        worse=rounded_down(paired.worse + bets.winnings(strength, limit, same, b, c + open_)),
    )
    return _begin(following, _total(following) >= np.maximum(_FIRST_ONSET, 2 * paired.onset_pairs))


def onset(paired: Paired, where: npt.ArrayLike = True) -> Paired:
    """New bets on worse are laid now, with the next share of the stake, as by `evidence.onset`."""
    return _begin(paired, np.asarray(where, np.bool_))


def with_waiting(paired: Paired, waiting: npt.ArrayLike) -> Paired:
    """What is known already about the canary's being good enough, of pairs that are not counted yet.

    waiting: integers (B, 2), such pairs whose answers are equal, and whose answers differ. They count as if no label
    ever came, for all but `log_e_worse`. The result is for reading, not for `update`: later the pairs are counted
    themselves. At each time the evidence is at most that of the same pairs with all labels, so one may read it at all
    times, and promote before there is any label.
    """
    waiting = _checked(waiting, (len(paired), 2))
    nobody = np.zeros(len(paired), np.int64)
    return replace(paired, pairs=paired.pairs + np.stack([waiting[:, 0], nobody, nobody, waiting[:, 1]], axis=1))


def log_e_worse(paired: Paired) -> Array:
    """(B,), ln of the odds that the canary is worse: f_c - f_s > tolerance. 0 without data."""
    laid = math.log(WORSE.first) + bets.log_mean(
        paired.worse.astype(np.float64), bets.log_weights(WORSE, paired.history)
    )
    return np.asarray(np.logaddexp(laid, np.log(WORSE.unspent(paired.onsets))))


def log_e_non_inferior(paired: Paired) -> Array:
    """(B,), ln of the odds that the canary is good enough: f_c - f_s < margin. 0 without data."""
    return _below(paired, paired.margin, NON_INFERIOR)


def log_e_superior(paired: Paired) -> Array:
    """(B,), ln of the odds that the canary is better: f_c - f_s < 0. 0 without data."""
    return _below(paired, np.zeros(len(paired)), SUPERIOR)


def interval(paired: Paired, *, alpha: float, beta: float) -> Array:
    """(B, 2), confidence sequences (low, high) for f_c - f_s, as of `evidence.interval`."""
    above, below = _of_grid(paired)
    return grid.interval(
        above,
        below,
        tolerance=paired.tolerance[:, None],
        margin=paired.margin[:, None],
        worse=log_e_worse(paired)[:, None],
        non_inferior=log_e_non_inferior(paired)[:, None],
        superior=log_e_superior(paired)[:, None],
        alpha=alpha,
        beta=beta,
    )


def difference(paired: Paired) -> Array:
    """(B,), the observed f_c - f_s over the pairs that are not open; nan while there is none."""
    same, b, c, _ = paired.pairs.T
    known = same + b + c
    return np.where(known > 0, (b - c) / np.maximum(known, 1), np.nan)


def take(paired: Paired, indices: npt.ArrayLike) -> Paired:
    """The tests at these places of the batch, in this order."""
    chosen: dict[str, Any] = {name: getattr(paired, name)[indices] for name in _ARRAYS}
    return replace(paired, **chosen)


def concat(batches: Sequence[Paired]) -> Paired:
    """All tests of several batches, in order. Raises ValueError without any."""
    joined: dict[str, Any] = {name: np.concatenate([getattr(each, name) for each in batches]) for name in _ARRAYS}
    return Paired(**joined)


def encode(paired: Paired) -> list[str]:
    """One text per test. `decode` gives back what encodes equal."""
    texts = []
    for i in range(len(paired)):
        integers = [_LAYOUT, paired.onsets[i], paired.onset_pairs[i], *paired.history[i], *paired.pairs[i]]
        texts.append(pack(map(int, integers), [paired.tolerance[i], paired.margin[i]], paired.worse[i]))
    return texts


def decode(texts: Sequence[str]) -> Paired:
    """Reads what `encode` wrote. Raises ValueError for anything else, another layout included."""
    return concat([_decode(text) for text in texts])


def _decode(text: str) -> Paired:
    integers, doubles, singles = unpack(text)
    if integers[:1] != [_LAYOUT] or len(integers) != 9 or len(doubles) != 2:
        raise ValueError(f"not a stored state of a paired test in layout {_LAYOUT}: {text!r}")
    fresh = start(tolerance=doubles[0], margin=doubles[1], history=[integers[3:5]])
    if len(singles) != fresh.worse.shape[1] or not np.isfinite(singles).all():
        raise ValueError(f"a stored state of a paired test needs {fresh.worse.shape[1]} finite sums, got {singles}")
    return replace(
        fresh,
        onsets=np.array(integers[1:2]),
        onset_pairs=np.array(integers[2:3]),
        pairs=np.array([integers[5:]]),
        worse=singles[None],
    )


_ARRAYS = tuple(field.name for field in fields(Paired))


def _below(paired: Paired, limit: Array, prior: Prior) -> Array:
    same, b, c, open_ = (paired.pairs[:, i, None].astype(np.float64) for i in range(4))
    strength = bets.of_alternatives(limit[:, None], paired.margin[:, None], prior)
    won = bets.winnings(strength, limit[:, None], same, b + open_, c)
    return bets.log_mean(won, bets.log_weights(prior, paired.history))


def _of_grid(paired: Paired) -> tuple[Singles, Singles]:
    """(B, len(GRID)) each: log evidence against f_c - f_s <= d, and against f_c - f_s >= d."""
    same, b, c, open_ = (paired.pairs[:, i, None, None].astype(np.float64) for i in range(4))
    limit = GRID[:, None]
    above = bets.log_even(bets.winnings(bets.of_parts(GRID, 1), limit, same, b, c + open_))
    below = bets.log_even(bets.winnings(bets.of_parts(GRID, -1), limit, same, b + open_, c))
    return rounded_down(above), rounded_down(below)


def _begin(paired: Paired, where: npt.NDArray[np.bool_]) -> Paired:
    pairs = _total(paired)
    where = where & (pairs > paired.onset_pairs)
    onsets = paired.onsets + where
    share = np.log(WORSE.share(np.maximum(onsets, 1)))[:, None]
    return replace(
        paired,
        onsets=onsets,
        onset_pairs=np.where(where, pairs, paired.onset_pairs),
        worse=np.where(where[:, None], rounded_down(np.logaddexp(paired.worse, share)), paired.worse),
    )


def _total(paired: Paired) -> Integers:
    return np.asarray(paired.pairs.sum(axis=1))


def _checked(counts: npt.ArrayLike, shape: tuple[int, ...]) -> Integers:
    """The counts as integers. Raises ValueError for impossible ones."""
    counts = np.asarray(counts)
    if counts.shape != shape or counts.dtype.kind not in "iu":
        raise ValueError(f"expected integers of shape {shape}, got {counts.dtype} of shape {counts.shape}")
    if np.any(counts < 0):
        raise ValueError(f"a number of pairs is negative: {counts.tolist()}")
    return counts.astype(np.int64)
