"""The picture of a plan as a file: time to promotion against the margin, for several amounts of traffic."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serin_operator.cli.errors import InputError
from serin_operator.decide import words
from serin_operator.decide.forecast import Prospect

_TRAFFIC = (0.1, 1.0, 10.0)  # times the traffic
_MARGINS = np.geomspace(0.25, 4, 60)  # times the margin
_MARKS_X = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # points
_MARKS_Y = (1 / 60, 1 / 12, 0.5, 1, 2, 5, 10, 30, 60, 180, 720, 1440, 4320, 14400, 43200, 144000)  # minutes


def draw(path: Path, gate: Prospect, waits: Callable[[Sequence[Prospect]], list[float]]) -> None:
    """Writes the picture, as SVG, PNG or PDF by the file's name. Raises InputError when that is not possible.

    waits: minutes until gates are passed.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for factor in _TRAFFIC:
        margins = [margin for margin in gate.margin * _MARGINS if gate.tolerance < margin < 1 - gate.failure_rate]
        gates = [replace(gate, margin=margin, per_minute=gate.per_minute * factor) for margin in margins]
        label = f"{words.count(gate.per_minute * factor / 60)} a second"
        width = 2.5 if factor == 1 else 1.2
        axes.plot(100 * np.array(margins), waits(gates), label=label, linewidth=width)
    (here,) = waits([gate])
    if math.isfinite(here):
        text = f"{words.points(gate.margin)}: {words.duration(here)}"
        axes.plot([100 * gate.margin], [here], "o", color="black")
        axes.annotate(text, (100 * gate.margin, here), (8, 8), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="margin, in percentage points", ylabel="time to promotion")
    axes.set_title(f"{gate.name}: stable fails {words.percent(gate.failure_rate)}")
    _mark(axes)
    axes.legend(title=gate.trials)
    try:
        with mpl.rc_context({"svg.hashsalt": "serin", "svg.fonttype": "none"}):  # the same plan gives the same file
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _mark(axes: Axes) -> None:
    """Marks both axes at numbers that people say, inside what is drawn."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    points = [mark for mark in _MARKS_X if left <= mark <= right]
    minutes = [mark for mark in _MARKS_Y if low <= mark <= high]
    axes.set_xticks(points, [f"{mark:g}" for mark in points])
    axes.set_yticks(minutes, [words.duration(mark) for mark in minutes])
    axes.set_xticks([], minor=True)
    axes.set_yticks([], minor=True)
    axes.grid(color="0.85")
