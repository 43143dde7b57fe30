"""What a check finds out."""

from dataclasses import dataclass, field
from typing import Any

from serin_server.protocol.metadata import PREDICT
from serin_server.protocol.tensors import TensorSpec


@dataclass(frozen=True)
class Estimator:
    """The model as its file describes it; None where the file does not say.

    `described` is false when no more than the kind can be read without loading.
    `methods` are those that are outputs.
    `classes` are None for a model that is not a classifier, and for classes that cannot be read without loading.
    """

    kind: str
    features: int | None = None
    names: tuple[str, ...] | None = None
    inputs: tuple[TensorSpec, ...] | None = None
    classes: list[Any] | None = None
    methods: tuple[str, ...] = (PREDICT,)
    described: bool = True


@dataclass(frozen=True)
class Report:
    """`needs` maps a package to the versions that the file names, empty when it names none.

    `suspects` are what the file would run or construct beyond what is known to be safe.
    """

    format: str
    needs: dict[str, list[str]]
    suspects: list[str]
    estimator: Estimator | None
    notes: list[str] = field(default_factory=list)
