"""Conversion of scikit-learn estimators to ONNX at load, kept only where it is proven equal and faster."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Accelerate(StrEnum):
    """`server.accelerate` of the resource."""

    AUTO = "Auto"
    NEVER = "Never"


@dataclass(frozen=True)
class Acceleration:
    """The object to predict with, and in a sentence why it is this one."""

    estimator: Any
    reason: str
    accelerated: bool


def accelerate(estimator: Any, wish: Accelerate, forks: bool = False) -> Acceleration:
    """Return the estimator's accelerated form, or itself with the reason. Never raises for what an estimator is.

    Takes at most a bounded time (see child.py). Call it before any thread starts; with `forks` it starts none either.
    """
    if wish is Accelerate.NEVER:
        return Acceleration(estimator, "not accelerated: not asked for", False)
    # Nobody else's objects can be converted, and what they compute is not known: no child for them.
    if not type(estimator).__module__.startswith("sklearn."):
        return Acceleration(estimator, "not accelerated: it is not an estimator of scikit-learn's own", False)
    from serin_server.runtime.acceleration.child import GaveUpError, convert_in_child

    try:
        graph, found = convert_in_child(estimator, forks)
    except GaveUpError as error:
        return stays(estimator, str(error))
    return _accelerated(estimator, graph, found)


def accelerate_at_a_distance(load: Callable[[], Any], load_again: Callable[[], Any]) -> tuple[Acceleration, str] | None:
    """The accelerated form of an estimator that this process does not load, and the name of its class.

    `load` is called in a child process, `load_again` here if ever the original is needed. None when this process must
    load it in any case; raises GaveUpError when it must, and need not try to convert it again.
    """
    from serin_server.runtime.acceleration.child import GaveUpError, load_and_convert_in_child
    from serin_server.runtime.acceleration.scout import Distant

    try:
        graph, found, facts = load_and_convert_in_child(load)
    except GaveUpError as error:
        if error.loaded:
            raise
        return None
    if found["kept_steps"]:
        return None
    return _accelerated(Distant(facts, load_again), graph, found), facts.kind


def stays(estimator: Any, reason: str) -> Acceleration:
    """The estimator itself."""
    return Acceleration(estimator, f"not accelerated: {reason}", False)


def _accelerated(original: Any, graph: bytes, found: Mapping[str, Any]) -> Acceleration:
    from serin_server.runtime.acceleration.accelerated import Accelerated

    reason = (
        f"accelerated: equal on {found['rows']} rows, one row takes {found['seconds'] * 1e6:.0f} µs "
        f"instead of {found['original_seconds'] * 1e6:.0f} µs"
    )
    made = Accelerated(original, graph, found["kept_steps"], found["exact"], found["singles"])
    return Acceleration(made, reason, True)
