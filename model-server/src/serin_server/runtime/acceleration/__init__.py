"""Conversion of scikit-learn estimators to ONNX at load, kept only where it is proven equal and faster."""

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
        graph, facts = convert_in_child(estimator, forks)
    except GaveUpError as error:
        return Acceleration(estimator, f"not accelerated: {error}", False)
    from serin_server.runtime.acceleration.accelerated import Accelerated

    reason = (
        f"accelerated: equal on {facts['rows']} rows, one row takes {facts['seconds'] * 1e6:.0f} µs "
        f"instead of {facts['original_seconds'] * 1e6:.0f} µs"
    )
    made = Accelerated(estimator, graph, facts["kept_steps"], facts["exact"], facts["singles"])
    return Acceleration(made, reason, True)
