"""Files of recorded counts, and the command run on them in this process."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from serin_operator.cli.__main__ import main
from serin_operator.cli.records import COLUMNS

Row = dict[str, Any]


class Ran(NamedTuple):
    """What a run of the command gave."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Row]:
        """The objects of --json."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def evidence(self) -> list[Row]:
        """Those per series, scrape and metric."""
        return [line for line in self.lines if "metric" in line]

    @property
    def verdicts(self) -> list[Row]:
        """Those per series."""
        return [line for line in self.lines if "verdict" in line]


def serin(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Runs the command; wrong flags end it with SystemExit, as argparse does."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)


def rows(blocks: Sequence[Sequence[int]], *, metric: str = "accuracy", interval: float = 30, **more: Any) -> list[Row]:
    """Two rows per block (y_c, n_c, y_s, n_s)."""
    return [
        {"time": number * interval, "metric": metric, "arm": arm, "failures": y, "trials": n, **more}
        for number, (y_c, n_c, y_s, n_s) in enumerate(blocks)
        for arm, y, n in (("canary", y_c, n_c), ("stable", y_s, n_s))
    ]


def drawn(scrapes: int, canary: float = 0.05, stable: float = 0.05, seed: int = 1) -> list[list[int]]:
    """Random blocks of 30 and 270 trials on average."""
    rng = np.random.default_rng(seed)
    trials = rng.poisson([30, 270], (scrapes, 2))
    failures = rng.binomial(trials, [canary, stable])
    return [[int(n) for pair in zip(y, n, strict=True) for n in pair] for y, n in zip(failures, trials, strict=True)]


def write_csv(path: Path, records: Iterable[Row]) -> Path:
    """With the columns that the first record has."""
    records = list(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, [column for column in COLUMNS if column in records[0]])
    writer.writeheader()
    writer.writerows(records)
    path.write_text(text.getvalue())
    return path


def write_jsonl(path: Path, records: Iterable[Row]) -> Path:
    """One object per line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
