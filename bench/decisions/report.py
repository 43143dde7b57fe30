"""Sections of results: what they are made of, and how they are shown."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

Record = Mapping[str, Any]
Task = Callable[[int, int], list[Record]]  # (seed, runs): a picklable function


@dataclass(frozen=True, slots=True)
class Column:
    """`key` of the records, its `title`, how to write it, and when it is a number to be ashamed of."""

    title: str
    key: str
    write: Callable[[Any], str] = str
    bad: Callable[[Record], bool] = lambda _: False


@dataclass(frozen=True, slots=True)
class Section:
    """One table.

    group: the key of the records whose change begins a new block, with its heading. timed: it measures time.
    """

    key: str
    title: str
    note: str
    columns: Sequence[Column]
    tasks: Sequence[Task]
    runs: int
    group: str | None = None
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise, what was measured, and whether it is kept."""

    promise: str
    measured: str
    kept: bool


def percent(share: float | None) -> str:
    """In per cent, with as many digits as matter."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def rate(per_second: float) -> str:
    """Of requests."""
    return f"{per_second:g} request{'' if per_second == 1 else 's'}/s"


def minutes(value: float | None) -> str:
    """Minutes; a dash for what never came."""
    return "–" if value is None or not math.isfinite(value) else _three_digits(value)


def number(value: float | None) -> str:
    """A count or a mean of counts."""
    return "–" if value is None else _three_digits(value)


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def show(console: Console, section: Section, records: Sequence[Record]) -> None:
    """On the terminal, a table for each group; bad numbers are red."""
    console.print(Text(section.title, style="bold"))
    console.print(Text(section.note))
    widths = [
        max([len(column.title), *(len(column.write(record.get(column.key))) for record in records)])
        for column in section.columns
    ]
    for group, rows in groupby(records, key=lambda record: record[section.group] if section.group else None):
        table = RichTable(title=group, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for index, (column, width) in enumerate(zip(section.columns, widths, strict=True)):
            table.add_column(column.title, justify="left" if index == 0 else "right", min_width=width)
        for record in rows:
            cells = [(column.write(record.get(column.key)), column.bad(record)) for column in section.columns]
            table.add_row(*(Text(text, style="red" if bad else "") for text, bad in cells))
        console.print(table)


def markdown(section: Section, records: Sequence[Record]) -> str:
    """The same as a Markdown table; bad numbers are bold."""
    lines = [f"### {section.title}", "", section.note, ""]
    lines += ["| " + " | ".join(column.title for column in section.columns) + " |"]
    lines += ["|---|" + "---:|" * (len(section.columns) - 1)]
    group = None
    for record in records:
        if section.group and record[section.group] != group:
            group = record[section.group]
            lines.append(f"| **{group}** |" + " |" * (len(section.columns) - 1))
        cells = []
        for column in section.columns:
            text = column.write(record.get(column.key))
            cells.append(f"**{text}**" if column.bad(record) else text)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def goals_markdown(goals: Sequence[Goal]) -> str:
    """The goals as a Markdown table."""
    rows = [f"| {goal.promise} | {goal.measured} | {'yes' if goal.kept else '**no**'} |" for goal in goals]
    return "\n".join(["### Goals", "", "| Goal | Measured | Kept |", "|---|---|---|", *rows]) + "\n"


def show_goals(console: Console, goals: Sequence[Goal]) -> None:
    """The goals on the terminal."""
    table = RichTable(title="Goals", title_justify="left")
    for title in ("Goal", "Measured", "Kept"):
        table.add_column(title)
    for goal in goals:
        table.add_row(goal.promise, goal.measured, Text("yes" if goal.kept else "no", style="" if goal.kept else "red"))
    console.print(table)


def as_json(results: Mapping[str, Sequence[Record]], goals: Sequence[Goal], conditions: Mapping[str, Any]) -> str:
    """Everything that was measured, with the conditions; infinite and undefined numbers are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    sections = {key: [{k: plain(v) for k, v in record.items()} for record in rows] for key, rows in results.items()}
    kept = [{"promise": goal.promise, "measured": goal.measured, "kept": goal.kept} for goal in goals]
    return json.dumps({"conditions": dict(conditions), "goals": kept, "sections": sections}, indent=1)
