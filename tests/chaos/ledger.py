"""What became of every fault: the table at the end of the suite."""

import json
from dataclasses import asdict, dataclass, field

from demo.environment import REPOSITORY

FILE = REPOSITORY / "build" / "chaos-figures.json"
_HEAD = ("fault", "times", "requests", "failed", "cut off", "outcome")


@dataclass
class Entry:
    """One fault. failed: requests that a healthy pod could have answered; cut_off: that no router was there for."""

    fault: str
    times: int = 0
    requests: int = 0
    failed: int = 0
    cut_off: int = 0
    outcome: list[str] = field(default_factory=list)


@dataclass
class Ledger:
    """Of one run with one seed."""

    seed: int
    entries: list[Entry] = field(default_factory=list)

    def entry(self, fault: str) -> Entry:
        """A new line of the table."""
        entry = Entry(fault)
        self.entries.append(entry)
        return entry

    def write(self) -> None:
        """Keep everything as JSON."""
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def table(self) -> list[str]:
        """Lines for people."""
        rows = [_HEAD] + [
            (e.fault, str(e.times), str(e.requests), str(e.failed), str(e.cut_off), "; ".join(e.outcome))
            for e in self.entries
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [f"seed {self.seed}: SERIN_CHAOS_SEED={self.seed} strikes at the same moments again", *lines]
