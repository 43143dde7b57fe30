"""The live view: one frame of what there is to see, and two ways to show it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

PLAIN_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Evidence:
    """One metric as the status reports it: failures and trials of each arm, odds, and the verdict so far."""

    name: str
    verdict: str
    canary: tuple[int, int]
    stable: tuple[int, int]
    odds_worse: float
    odds_non_inferior: float


@dataclass(frozen=True)
class Frame:
    """What is to be seen at one moment; `seconds` since the chapter began."""

    chapter: str
    seconds: float
    phase: str
    weight: int
    stable: str
    canary: str
    sent: int
    failed: int
    late: int
    answers: Mapping[str, tuple[int, int]]
    p99: float | None
    evidence: tuple[Evidence, ...]
    message: str


def frame(
    chapter: str, seconds: float, status: Mapping[str, Any], stats: Mapping[str, Any], versions: Mapping[str, str]
) -> Frame:
    """Put a frame together from a ModelDeployment's status and the traffic's counts (either may be empty)."""
    reconciling = [one for one in status.get("conditions", []) if one["type"] == "Reconciling"]
    return Frame(
        chapter=chapter,
        seconds=seconds,
        phase=status.get("phase", "Pending"),
        weight=status.get("weight", 0),
        stable=status.get("stable", {}).get("version", "-"),
        canary=status.get("canary", {}).get("version", "-"),
        sent=stats.get("sent", 0),
        failed=stats.get("failed", 0),
        late=stats.get("late", 0),
        answers={
            versions.get(revision, revision): (one["n"], one["wrong"])
            for revision, one in stats.get("by_revision", {}).items()
        },
        p99=stats.get("p99"),
        evidence=tuple(_evidence(metric) for metric in status.get("metrics", [])),
        message=reconciling[0].get("message", "") if reconciling else "",
    )


def _evidence(metric: Mapping[str, Any]) -> Evidence:
    return Evidence(
        name=metric["name"],
        verdict=metric["verdict"],
        canary=(metric["canary"]["failures"], metric["canary"]["trials"]),
        stable=(metric["stable"]["failures"], metric["stable"]["trials"]),
        odds_worse=metric["oddsWorse"],
        odds_non_inferior=metric["oddsNonInferior"],
    )


def line(now: Frame) -> str:
    """A frame as one line of text."""
    parts = [f"{now.seconds:4.0f} s  {now.phase}, {now.weight} % canary"]
    if now.sent:
        parts.append(f"{now.sent:,} sent, {now.failed:,} failed")
    parts += [f"{one.name} {one.verdict} ({_rate(one.canary)} against {_rate(one.stable)})" for one in now.evidence]
    return " | ".join(parts)


def panel(now: Frame) -> Panel:
    """A frame as a table for a terminal."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("phase", f"[bold]{now.phase}[/bold]  {escape(now.message)}")
    facts.add_row("traffic", f"{now.weight} % {now.canary}, the rest {now.stable}")
    p99 = "-" if now.p99 is None else f"{now.p99:.0f} ms"
    colour = "red" if now.failed else "green"
    facts.add_row("requests", f"{now.sent:,} sent, [{colour}]{now.failed:,} failed[/{colour}], p99 {p99}")
    for version, counts in now.answers.items():
        facts.add_row(f"  {version}", f"{counts[0]:,} answers, {counts[1]:,} wrong")
    evidence = Table(box=None, padding=(0, 2))
    for heading in ("metric", "canary", "stable", "odds worse", "odds as good", "verdict"):
        evidence.add_column(heading, justify="left" if heading in ("metric", "verdict") else "right")
    for one in now.evidence:
        evidence.add_row(
            one.name,
            _rate(one.canary),
            _rate(one.stable),
            f"{one.odds_worse:,.1f}",
            f"{one.odds_non_inferior:,.1f}",
            one.verdict,
        )
    return Panel(Group(facts, evidence), title=f"{now.chapter}  {now.seconds:.0f} s", title_align="left")


def _rate(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,}/{counts[1]:,}"


class Screen(Protocol):
    """Where the story is told."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, now: Frame) -> None:
        """The state of things at this moment."""

    def close(self) -> None:
        """Nothing more is shown."""


class PlainScreen:
    """Lines for a log: at each change of phase, weight or verdict, and every few seconds between."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()
        self._at = 0.0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, now: Frame) -> None:
        state = (now.chapter, now.phase, now.weight, *(one.verdict for one in now.evidence))
        if state != self._last or time.monotonic() - self._at >= PLAIN_EVERY_SECONDS:
            self._last, self._at = state, time.monotonic()
            self.say(f"  {line(now)}")

    def close(self) -> None:
        """Lines need no end."""


class LiveScreen:
    """A table that is redrawn in place, under the lines that stay."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True, vertical_overflow="crop")
        self._live.start()

    def say(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def show(self, now: Frame) -> None:
        self._live.update(panel(now))

    def close(self) -> None:
        self._live.stop()


def open_screen() -> Screen:
    """A live table on a terminal, else lines."""
    console = Console()
    return LiveScreen(console) if console.is_terminal else PlainScreen()
