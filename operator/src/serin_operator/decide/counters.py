"""From cumulative counters of many processes to what one arm counted since the last look.

A series is one process's counters for one metric. Its key is any string that names the process, with its
start time, so that a restarted process is a new series. A `Ledger` remembers how far each series of one arm
has been counted; `advance` counts the rest. Pure: the caller keeps the ledger.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from serin_operator.decide.evidence import Counts


@dataclass(frozen=True, slots=True)
class Ledger:
    """Per series, the part of its cumulative counters that is counted already."""

    counted: Mapping[str, Counts]

    def to_json(self) -> dict[str, list[int]]:
        """Series to [failures, trials]. `from_json` gives back an equal value."""
        return {series: [counts.failures, counts.trials] for series, counts in self.counted.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Reads `to_json`'s form. Raises ValueError for anything else."""
        try:
            return cls({series: Counts(int(y), int(n)) for series, (y, n) in value.items()})
        except (AttributeError, TypeError) as error:
            raise ValueError(f"not a stored ledger: {error}") from error


def baseline(snapshot: Mapping[str, Counts]) -> Ledger:
    """The ledger at the start of a rollout: everything up to `snapshot` is history and is never counted."""
    return Ledger(dict(snapshot))


def advance(
    ledger: Ledger,
    snapshot: Mapping[str, Counts],
    *,
    historic: Collection[str] = (),
    gone: Collection[str] = (),
) -> tuple[Ledger, Counts]:
    """What `snapshot` shows beyond `ledger`, summed over series, and the ledger after it.

    - A series that is new counts from 0, as its process started after the baseline. For a process that is
      older but could not be read then, name its series in `historic`: its first reading is its baseline.
    - A counter that went down was reset, so the series counts from 0 again.
    - A series that is missing was not read this time. Its next reading brings what was missed, in one piece,
      unless it is in `gone`: then no more readings of it can come, and it is forgotten.
    - More new failures than new trials means that the two were not read at one instant. Each failure too many
      is held over, uncounted, until a later reading shows its trial. (Only a reset before that loses it.)

    The same snapshot again counts nothing.
    """
    counted = {series: at for series, at in ledger.counted.items() if series in snapshot or series not in gone}
    total = Counts()
    for series, reading in snapshot.items():
        before = counted.get(series, reading if series in historic else Counts())
        if reading.failures < before.failures or reading.trials < before.trials:
            before = Counts()
        trials = reading.trials - before.trials
        failures = min(reading.failures - before.failures, trials)
        counted[series] = Counts(before.failures + failures, reading.trials)
        total += Counts(failures, trials)
    return Ledger(counted), total
