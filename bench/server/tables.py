"""The tables of the server's benchmark."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.decisions.report import Column, Record, Section
from bench.server.measure import FLOORS

_BUSY = 0.9  # of a core: a generator that has less than a tenth of its core left may be what bounds

Shown = list[tuple[Section, Sequence[Record]]]


def sections(records: Sequence[Record], footprints: Sequence[Record]) -> Shown:
    """Each table with its records."""
    found: Shown = [(_CASES, [_line(record) for record in records if record["server"] != FLOORS])]
    if floors := [record for record in records if record["server"] == FLOORS]:
        found.append((_FLOORS, floors))
    if footprints:
        found.append((_FOOTPRINTS, footprints))
    return found


def measured(conditions: Mapping[str, Any]) -> str:
    """A sentence on how and where."""
    return (
        "Measured in {minutes} minutes on {machine} (mean load {load}), one for the servers and one for the load, with "
        "Python {python}, {packages} and {peers}."
    ).format(**{key: _named(value) if isinstance(value, Mapping) else value for key, value in conditions.items()})


def _named(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _line(record: Record) -> Record:
    """A record for people: the settings of peers, and whether the generator had time left."""
    setting, at_rate = record["setting"], record["setting_at_rate"]
    text = setting if at_rate in (None, setting) else f"{setting}; at the rate {at_rate}"
    return {**record, "settings": text, "saturated": record["generator_busy"] > _BUSY}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


_CASES = Section(
    key="cases",
    title="Requests, processor time and latency",
    note=(
        "32 connections. Requests/s at saturation; CPU: the server's processor time for each, all of its processes;\n"
        "p50 and p99 at the fixed rate of the block, from when a request was due; calm: of those due while the\n"
        "machine ran as usual (see above). Bold: the load generator had less than a tenth of its core left, so\n"
        "that the server may be faster than that."
    ),
    columns=[
        Column("Server", "server"),
        Column("Setting", "settings"),
        Column("Requests/s", "per_second", _number, lambda record: bool(record["saturated"])),
        Column("CPU, µs", "cpu", _number),
        Column("p50, ms", "p50", _milliseconds),
        Column("p99, ms", "p99", _milliseconds),
        Column("p99 calm, ms", "p99_calm", _milliseconds),
        Column("Failed", "failures", _number, lambda record: record["failures"] > 0),
    ],
    tasks=(),
    runs=0,
    group="title",
)

_FLOORS = Section(
    key="floors",
    title="Floors",
    note=(
        "Microseconds of calls in one process: scikit-learn's own predict, the predict that the server calls, and\n"
        "that with orjson's parse before and encoding after it, without prediction ids."
    ),
    columns=[
        Column("Case", "case"),
        Column("scikit-learn", "sklearn", _number),
        Column("Served", "served", _number),
        Column("Parse, predict, encode", "whole", _number),
    ],
    tasks=(),
    runs=0,
)

_FOOTPRINTS = Section(
    key="footprints",
    title="Start and memory",
    note="From the process's start to its first ready answer, on all cores; resident memory after some load.",
    columns=[
        Column("Server", "server"),
        Column("Setting", "setting"),
        Column("Start, s", "ready", lambda value: f"{value:.2f}"),
        Column("Memory, MiB", "memory", _number),
    ],
    tasks=(),
    runs=0,
    group="model",
)
