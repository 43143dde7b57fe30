"""How much more failures scatter between two halves of one arm than independent trials would.

Failures that come in bursts (a slow node, a batch of bad inputs) look like evidence to a test that takes every trial
for an independent one. Two halves of the stable pods differ in nothing but such bursts, so they show the factor phi
by which the log likelihood ratios of the tests are divided. Drift that both halves share cancels, because each block
is compared within itself given its total (the variance of Fisher's exact test).

Everything here is pure. B metrics in a batch, K strata.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serin_operator.decide.projection import Array, Integers
from serin_operator.decide.sums import pack, unpack

_FEWEST_BLOCKS = 10
_LAYOUT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Dispersion:
    """Sums over blocks. Make it with `start`, change it with `grow` only.

    squares, variance: (B,), squared differences between the halves, and their expectation for independent trials.
    blocks: (B,), how many blocks said anything.
    """

    squares: Array
    variance: Array
    blocks: Integers

    def __len__(self) -> int:
        return len(self.blocks)


def start(batch: int) -> Dispersion:
    """Nothing known yet, for so many metrics."""
    return Dispersion(np.zeros(batch), np.zeros(batch), np.zeros(batch, np.int64))


def grow(state: Dispersion, counts: npt.ArrayLike) -> Dispersion:
    """With one more block: integers (B, K, 4), failures and trials of one half, then of the other.

    A block in which all trials failed or none did, or a half had no trial, says nothing. Raises ValueError unless
    0 <= failures <= trials.
    """
    counts = np.asarray(counts)
    if counts.ndim != 3 or counts.shape[::2] != (len(state), 4) or counts.dtype.kind not in "iu":
        raise ValueError(f"expected integers of shape ({len(state)}, K, 4), got {counts.dtype} of {counts.shape}")
    if not np.all((counts[..., ::2] >= 0) & (counts[..., ::2] <= counts[..., 1::2])):
        raise ValueError(f"need 0 <= failures <= trials, got {counts.tolist()}")
    y_1, n_1, y_2, n_2 = (counts[..., i].astype(np.float64) for i in range(4))
    failures, trials = y_1 + y_2, np.maximum(n_1 + n_2, 2)
    variance = n_1 * n_2 * failures * (trials - failures) / (trials**2 * (trials - 1))
    squares = np.where(variance > 0, (y_1 - n_1 * failures / trials) ** 2, 0.0)
    return Dispersion(
        state.squares + squares.sum(axis=1), state.variance + variance.sum(axis=1), state.blocks + (variance > 0).any(1)
    )


def phi(state: Dispersion) -> Array:
    """(B,), the overdispersion, at least 1; 1 while fewer than ten blocks said anything."""
    known = state.blocks >= _FEWEST_BLOCKS
    return np.where(known, np.maximum(1.0, state.squares / np.where(known, state.variance, 1.0)), 1.0)


def encode(state: Dispersion) -> list[str]:
    """One text per metric, about 30 characters. `decode` gives back an equal state."""
    nothing = np.zeros(0, np.float32)
    rows = zip(state.squares, state.variance, state.blocks, strict=True)
    return [pack([_LAYOUT, int(blocks)], sums, nothing) for *sums, blocks in rows]


def decode(texts: Sequence[str]) -> Dispersion:
    """Reads what `encode` wrote. Raises ValueError for anything else, another layout included."""
    rows = []
    for text in texts:
        integers, doubles, singles = unpack(text)
        if len(integers) != 2 or integers[0] != _LAYOUT or len(doubles) != 2 or len(singles):
            raise ValueError(f"not a stored state of dispersion in layout {_LAYOUT}: {text!r}")
        if not np.all((doubles >= 0) & np.isfinite(doubles)):
            raise ValueError(f"a stored state of dispersion holds sums that are not finite: {text!r}")
        rows.append((*doubles, integers[1]))
    squares, variance, blocks = np.array(rows, np.float64).reshape(-1, 3).T
    return Dispersion(squares, variance, blocks.astype(np.int64))
