"""The proof that a conversion is equal and faster. Runs in the child process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from serin_server.protocol.datatypes import Array
from serin_server.runtime.acceleration.accelerated import Accelerated
from serin_server.runtime.acceleration.convert import convert
from serin_server.runtime.acceleration.rows import reference_rows
from serin_server.runtime.acceleration.unsupported import UnsupportedError

# The largest difference of a probability. Values may differ by this share of their own size or, near zero, of the mean
# size of all.
TOLERANCE = 1e-9
# Of the original's time for one row. Nearer to 1, noise would decide, and pods of one revision would differ.
_WORTH = 0.8
_MOST_ROUNDS = 50
_MEASURING_SECONDS = 0.25


@dataclass(frozen=True)
class Converted:
    """A graph that passed, with what its use and its report need.

    `kept_steps` first steps of a pipeline stay before it. `exact`: its sums are. `singles`: it takes single precision.
    `rows` were compared. The seconds are for one row.
    """

    graph: bytes
    kept_steps: int
    exact: bool
    singles: bool
    rows: int
    seconds: float
    original_seconds: float


def try_to_convert(estimator: Any) -> Converted:
    """Convert, compare and measure. Raises UnsupportedError with the reason when the original is to stay."""
    made, kept_steps, exact = convert(estimator)
    # Steps that stay are the same code before and after, so what follows them is compared alone.
    original = estimator.steps[-1][1] if kept_steps else estimator
    graph = made.SerializeToString()
    accelerated = Accelerated(original, graph, 0, exact, singles=True)
    rows = reference_rows(original)
    compare(original, accelerated, rows)
    singles = takes_singles(original, accelerated, rows)
    before, after = _measure(original.predict, accelerated.predict, rows[:1])
    many_before, many_after = _measure(original.predict, accelerated.predict, rows[:100])
    if after > _WORTH * before or many_after > many_before:
        raise UnsupportedError("it is not faster as ONNX")
    return Converted(graph, kept_steps, exact, singles, rows.shape[0], after, before)


def takes_singles(original: Any, accelerated: Accelerated, rows: Array) -> bool:
    """Whether rows in single precision are answered alike too."""
    limit = np.finfo(np.float32).max
    try:
        compare(original, accelerated, np.clip(rows, -limit, limit).astype(np.float32))
    except UnsupportedError:
        return False
    return True


def compare(original: Any, accelerated: Any, rows: Array) -> None:
    """Raises UnsupportedError unless both answer alike: every label equal, numbers within TOLERANCE."""
    expected, found = original.predict(rows), accelerated.predict(rows)
    if hasattr(original, "classes_"):
        different = np.flatnonzero(expected != found)
        if different.size:
            raise UnsupportedError(f"its ONNX form gives {different.size} of {rows.shape[0]} rows another label")
        expected, found = original.predict_proba(rows), accelerated.predict_proba(rows)
        scale: Any = 1.0
    else:
        if np.shape(expected) != np.shape(found):
            raise UnsupportedError("it has several targets")
        scale = np.maximum(np.abs(expected), np.abs(expected).mean())
    worst = np.max(np.abs(expected - found) / np.where(scale > 0, scale, 1.0))
    if not worst <= TOLERANCE:  # also when it is not a number
        raise UnsupportedError(f"its ONNX form differs by {worst:.2g}, more than {TOLERANCE:g}")


def _measure(first: Callable[[Array], Any], second: Callable[[Array], Any], rows: Array) -> tuple[float, float]:
    """Median seconds of each, called in turns so that both meet the same neighbours on the machine."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + _MEASURING_SECONDS
    for round_ in range(_MOST_ROUNDS):
        for call, taken in zip((first, second), times, strict=True):
            started = time.perf_counter()
            call(rows)
            if round_:  # the first call also warms up
                taken.append(time.perf_counter() - started)
        if round_ > 2 and time.perf_counter() > end:
            break
    return float(np.median(times[0])), float(np.median(times[1]))
