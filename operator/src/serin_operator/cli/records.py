"""The file that `serin replay` reads: one row per scrape, metric and arm, with the counts of that scrape.

CSV with a header or JSONL, told apart by the first character. The columns are `time`, `metric`, `arm`, `failures`,
`trials` and, if one file holds many rollouts, `series`. Rows may come in any order, as long as the times of one series,
metric and arm rise. An arm or a metric without a row at some time counted nothing then.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from serin_operator.cli.errors import InputError

COLUMNS = ("time", "metric", "arm", "failures", "trials", "series")
REQUIRED = COLUMNS[:5]
_ARMS = {"canary": 0, "stable": 2}  # where an arm's failures stand among y_c, n_c, y_s, n_s
_MOST = 10**15  # of failures or trials in one scrape: keeps every sum exact
_HINT = f"the columns are {', '.join(REQUIRED)} and optionally series"

Label = str | int
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recording:
    """Rollouts of one file; R rows of the file, sorted by scrape, are kept as they are counted.

    series, metrics: names, in the file's order; the one series of a file without that column is None.
    times: per series and scrape, seconds; shown: the same as the file writes it.
    scrapes, rollouts, columns: (R,) number of the scrape within its series, of the series and of the metric.
    arms: (R,) 0 for the canary, 2 for the stable. counts: (R, 2) failures and trials.
    """

    series: tuple[Label | None, ...]
    metrics: tuple[str, ...]
    times: tuple[tuple[float, ...], ...]
    shown: tuple[tuple[float | int | str, ...], ...]
    scrapes: Ints
    rollouts: Ints
    columns: Ints
    arms: Ints
    counts: Ints

    @property
    def most_scrapes(self) -> int:
        """The scrapes of the longest series."""
        return max(map(len, self.times))

    def measured(self) -> npt.NDArray[np.bool_]:
        """(series, metrics): whether a series has any row of a metric."""
        found = np.zeros((len(self.series), len(self.metrics)), bool)
        found[self.rollouts, self.columns] = True
        return found

    def scrape(self, number: int) -> Ints:
        """(series, metrics, 4): y_c, n_c, y_s, n_s of every series' scrape of this number, zeros after its last."""
        first, last = np.searchsorted(self.scrapes, [number, number + 1])
        rows = slice(first, last)
        block = np.zeros((len(self.series), len(self.metrics), 4), np.int64)
        for offset in (0, 1):
            block[self.rollouts[rows], self.columns[rows], self.arms[rows] + offset] = self.counts[rows, offset]
        return block


def read(name: str, lines: Iterable[str]) -> Recording:
    """The recording in the lines of a file called `name`. Raises InputError with the line and what to do."""
    numbers: list[int] = []
    index: dict[str, dict[Any, int]] = {"series": {}, "metric": {}}
    latest: dict[tuple[int, int, int], float] = {}
    times: list[float] = []
    shown: list[float | int | str] = []
    for line, (time, metric, arm, failures, trials, series) in _rows(name, lines):
        offset = _ARMS.get(arm) if isinstance(arm, str) else None
        if offset is None:
            raise _wrong(name, line, f"arm is {arm!r}; write canary or stable")
        if not isinstance(metric, str) or not metric:
            raise _wrong(name, line, f"metric is {metric!r}; write its name")
        try:
            y, n = _count("failures", failures), _count("trials", trials)
            at, text = _time(time)
        except ValueError as error:
            raise _wrong(name, line, str(error)) from None
        if y > n:
            raise _wrong(name, line, f"{y} failures in {n} trials; trials must include the failures")
        rollout = index["series"].setdefault(series, len(index["series"]))
        column = index["metric"].setdefault(metric, len(index["metric"]))
        key = (rollout, column, offset)
        if (before := latest.get(key)) is not None and at <= before:
            raise _wrong(name, line, _not_later(at == before, text, series, metric, arm))
        latest[key] = at
        times.append(at)
        shown.append(text)
        numbers += (rollout, column, offset, y, n)
    if not times:
        raise InputError(f"{name}: no rows; write one per scrape, metric and arm ({_HINT})")
    return _sorted(tuple(index["series"]), tuple(index["metric"]), times, shown, numbers)


def _sorted(
    series: tuple[Label | None, ...],
    metrics: tuple[str, ...],
    times: list[float],
    shown: list[float | int | str],
    numbers: list[int],
) -> Recording:
    """Numbers each series' scrapes by time and puts the rows into the order of the scrapes."""
    rows = np.array(numbers, np.int64).reshape(-1, 5)
    rollouts, at = rows[:, 0], np.array(times)
    order = np.lexsort((at, rollouts))
    fresh = np.ones(len(order), bool)  # whether a row begins a scrape: another series or another time
    fresh[1:] = (np.diff(rollouts[order]) != 0) | (np.diff(at[order]) != 0)
    firsts = order[fresh]
    ends = np.cumsum(np.bincount(rollouts[firsts], minlength=len(series)))
    starts = np.concatenate([[0], ends[:-1]])
    scrapes = np.empty(len(order), np.int64)
    scrapes[order] = np.cumsum(fresh) - 1 - starts[rollouts[order]]
    spans = [firsts[start:end].tolist() for start, end in zip(starts, ends, strict=True)]
    by_scrape = np.argsort(scrapes, kind="stable")
    rows = rows[by_scrape]
    return Recording(
        series=series,
        metrics=metrics,
        times=tuple(tuple(times[row] for row in span) for span in spans),
        shown=tuple(tuple(shown[row] for row in span) for span in spans),
        scrapes=scrapes[by_scrape],
        rollouts=rows[:, 0],
        columns=rows[:, 1],
        arms=rows[:, 2],
        counts=rows[:, 3:],
    )


# --- rows ------------------------------------------------------------------------------------------------------


def _rows(name: str, lines: Iterable[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Line numbers and values in the order of COLUMNS; a series that is not given is None."""
    numbered = iter(lines)
    for skipped, line in enumerate(numbered):
        if text := line.lstrip("\ufeff \t\r\n"):
            yield from (_jsonl if text.startswith("{") else _csv)(name, chain([text], numbered), skipped)
            return


def _csv(name: str, lines: Iterator[str], skipped: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            if not header:
                header = [column.strip() for column in row]
                _check_columns(name, skipped + 1, header)
                places = [header.index(column) for column in COLUMNS if column in header]
                lone = () if "series" in header else (None,)
            elif len(row) == len(header):
                yield skipped + reader.line_num, (*(row[place].strip() for place in places), *lone)
            elif row:
                what = f"{len(row)} values under {len(header)} columns; write one for each of {', '.join(header)}"
                raise _wrong(name, skipped + reader.line_num, what)
    except csv.Error as error:
        raise _wrong(name, skipped + reader.line_num, f"not CSV: {error}") from None


def _jsonl(name: str, lines: Iterator[str], skipped: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    known: set[tuple[str, ...]] = set()
    for line, text in enumerate(lines, skipped + 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _wrong(name, line, f"not JSON: {error}; write one object per line") from None
        if not isinstance(row, dict):
            raise _wrong(name, line, f"{text.strip()[:40]} is not an object; write one object per line")
        if (columns := tuple(row)) not in known:
            _check_columns(name, line, list(columns))
            known.add(columns)
        series = row.get("series")
        if series is not None and (isinstance(series, bool) or not isinstance(series, str | int)):
            raise _wrong(name, line, f"series is {series!r}; write text or a whole number")
        yield line, (row["time"], row["metric"], row["arm"], row["failures"], row["trials"], series)


def _check_columns(name: str, line: int, columns: list[str]) -> None:
    if unknown := [column for column in columns if column not in COLUMNS]:
        raise _wrong(name, line, f"unknown column {', '.join(map(repr, unknown))}; {_HINT}")
    if missing := [column for column in REQUIRED if column not in columns]:
        raise _wrong(name, line, f"column {', '.join(missing)} is missing; {_HINT}")
    if doubled := [column for column in COLUMNS if columns.count(column) > 1]:
        raise _wrong(name, line, f"column {', '.join(doubled)} comes twice; keep one")


# --- values ----------------------------------------------------------------------------------------------------


def _count(column: str, value: Any) -> int:
    """A count, however it is written: 3, "3", 3.0. Raises ValueError with what to do."""
    number = _whole(value)
    if number is None:
        raise ValueError(f"{column} is {value!r}; write a whole number, what this scrape alone counted")
    if not 0 <= number <= _MOST:
        raise ValueError(f"{column} is {number}; write what this scrape alone counted, from 0 to {_MOST:.0e}")
    return number


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = _float(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _time(value: Any) -> tuple[float, float | int | str]:
    """Seconds, and the time as the file has it: a number or RFC 3339. Raises ValueError with what to do."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return moment(value.strip()), value.strip()
    if type(value) is int and abs(value) <= _MOST:
        return float(value), value
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"time is {value!r}; write seconds or RFC 3339")
    return value, int(value) if value.is_integer() else value


def moment(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time. Raises ValueError with what to do."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"time is {text!r}; write seconds or RFC 3339, such as 2026-03-01T12:00:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"time {text!r} has no time zone; write Z behind it if it is UTC")
    return found.timestamp()


def _not_later(same: bool, text: float | int | str, series: Label | None, metric: str, arm: str) -> str:
    whose = f"metric {metric}, arm {arm}" + ("" if series is None else f", series {series}")
    if same:
        return f"a second row for time {text} ({whose}); add the two up or remove one"
    return f"time {text} is not later than the row before of the same kind ({whose}); sort the rows by time"


def _wrong(name: str, line: int, what: str) -> InputError:
    return InputError(f"{name}, line {line}: {what}")
