"""What a rule decided in each of many simulated rollouts, and what that cost."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int64]  # (runs, looks, 4): failures and trials of the canary, then of the stable, per look
Looks = npt.NDArray[np.int64]  # (runs,)
Hits = npt.NDArray[np.bool_]  # (runs, looks)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Per run, the index of the look that ended it, by a rollback or a promotion; `looks` where that never came.

    At most one of the two is below `looks`: a run that has neither holds.
    """

    looks: int
    rolled_back: Looks
    promoted: Looks

    @property
    def rollbacks(self) -> float:
        """Share of the runs that were rolled back."""
        return float(np.mean(self.rolled_back < self.looks))

    @property
    def promotions(self) -> float:
        """Share of the runs that were promoted."""
        return float(np.mean(self.promoted < self.looks))

    def rollback_delays(self, minutes: float) -> npt.NDArray[np.float64]:
        """Minutes from the first request to each rollback, with looks that are `minutes` apart."""
        return np.asarray((self.rolled_back[self.rolled_back < self.looks] + 1) * minutes, dtype=np.float64)

    def promotion_delays(self, minutes: float) -> npt.NDArray[np.float64]:
        """The same for promotions."""
        return np.asarray((self.promoted[self.promoted < self.looks] + 1) * minutes, dtype=np.float64)

    def harmed(self, table: Table, excess: float) -> float:
        """Mean over the runs of the requests harmed: `excess` times what the canary served.

        That is its own share until the run ends, and after a promotion all requests until the last look.
        """
        ended = np.minimum(self.rolled_back, self.promoted)[:, None]
        index = np.arange(self.looks)
        own = np.where(index <= ended, table[:, :, 1], 0).sum()
        afterwards = np.where(index > self.promoted[:, None], table[:, :, 1] + table[:, :, 3], 0).sum()
        return float(excess * (own + afterwards) / len(table))


def first(hits: Hits) -> Looks:
    """Index of the first hit of each run; the number of looks where there is none."""
    looks = hits.shape[1]
    return np.asarray(np.where(hits.any(axis=1), hits.argmax(axis=1), looks), dtype=np.int64)


def promoted_at_the_end(rolled_back: Looks, looks: int) -> Outcome:
    """For rules that promote whatever they did not roll back until the last look."""
    return Outcome(looks, rolled_back, np.where(rolled_back < looks, looks, looks - 1).astype(np.int64))


def never_promoted(rolled_back: Looks, looks: int) -> Outcome:
    """For tests that can only find a canary worse."""
    return Outcome(looks, rolled_back, np.full(len(rolled_back), looks, dtype=np.int64))
