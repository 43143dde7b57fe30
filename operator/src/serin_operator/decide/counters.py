"""From cumulative counters of many processes to what one arm counted since the last look.

A series is one process's counters for one metric. Its key is any string that names the process, with its
start time, so that a restarted process is a new series. A `Ledger` remembers how far each series of one arm
has been counted; `advance` counts the rest. Pure: the caller keeps the ledger.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from serin_operator.decide.evidence import Counts


@dataclass(frozen=True, slots=True)
class Ledger:
    """Per series, the part of its cumulative counters that is counted already."""

    counted: Mapping[str, Counts]


class NotACounter(Exception):  # noqa: N818  # it names what was found, as people read it
    """A series went down as no counter does. Its text says from what to what."""


def baseline(snapshot: Mapping[str, Counts]) -> Ledger:
    """The ledger at the start of a rollout: everything up to `snapshot` is history and is never counted."""
    return Ledger(dict(snapshot))


def advance(
    ledger: Ledger,
    snapshot: Mapping[str, Counts],
    *,
    historic: Collection[str] = (),
    unclocked: Collection[str] = (),
    gone: Collection[str] = (),
) -> tuple[Ledger, Counts]:
    """What `snapshot` shows beyond `ledger`, summed over series, and the ledger after it.

    - A series that is new counts from 0, as its process started after the baseline. For a process that is
      older but could not be read then, name its series in `historic`: its first reading is its baseline.
    - A reading below the one before it is of an earlier moment, since a process that starts anew is another series:
      two Prometheus servers behind one address are seconds apart, and a clock can be set back. It counts nothing.
    - A series in `unclocked` does not tell when its process started, so there a lower reading may be a reset. Its first
      reading is its baseline, and the first one after a reset too. If it keeps more than half of what it had, that was
      no reset: NotACounter.
    - A series that is missing was not read this time. Its next reading brings what was missed, in one piece,
      unless it is in `gone`: then no more readings of it can come, and it is forgotten.
    - More new failures than new trials means that the two were not read at one instant. Each failure too many
      is held over, uncounted, until a later reading shows its trial.

    The same snapshot again counts nothing.
    """
    counted = {series: at for series, at in ledger.counted.items() if series in snapshot or series not in gone}
    total = Counts()
    for series, reading in snapshot.items():
        clocked = series not in unclocked
        before = counted.get(series, Counts() if clocked and series not in historic else reading)
        if reading.failures < before.failures or reading.trials < before.trials:
            if clocked:
                continue
            _check_reset(before, reading)
            before = reading
        trials = reading.trials - before.trials
        failures = min(reading.failures - before.failures, trials)
        counted[series] = Counts(before.failures + failures, reading.trials)
        total += Counts(failures, trials)
    return Ledger(counted), total


def _check_reset(before: Counts, now: Counts) -> None:
    """Raises NotACounter for a series that went down, but by less than a process does that starts anew."""
    was, is_now = (before.trials, now.trials) if now.trials < before.trials else (before.failures, now.failures)
    if is_now > was / 2:
        raise NotACounter(f"went from {was} to {is_now}")
