"""A loaded model, seen through what serving needs of it."""

import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from serin_server.monitor.classes import Outcome, class_outcome, quantity_outcome
from serin_server.protocol.datatypes import Array, datatype_name
from serin_server.protocol.metadata import OUTPUTS, PREDICT, PROBABILITIES, TRANSFORM, output_specs
from serin_server.protocol.rows import Rows, together
from serin_server.protocol.tensors import TensorSpec
from serin_server.runtime.acceleration.scout import AwayError
from serin_server.runtime.inputs import Frames, signature_of

log = logging.getLogger(__name__)


class PredictionError(Exception):
    """The model failed, or answered with something that is not a prediction for each row."""


class Predictions(NamedTuple):
    """`values` are the main output, [rows] or [rows, …]; `extras` are the others that were asked for, rows first.

    `outcomes` has one element a row, None when rows have several values and when nothing is predicted.
    """

    values: Array
    extras: Mapping[str, Array]
    outcomes: Sequence[Outcome] | None


class Model:
    """Wraps an object in scikit-learn's conventions: with `predict`, or a transformer with `transform` alone.

    An object that also has `predict_with_probabilities` gives both from one computation. `platform` is the protocol's
    name of what computes; `acceleration` says in a sentence whether the model was converted, and why not otherwise.
    What else is looked at: docs/model-server.md.
    """

    def __init__(
        self,
        estimator: Any,
        platform: str = "sklearn_joblib",
        acceleration: str = "not tried",
        description: str | None = None,
    ) -> None:
        self._estimator = estimator
        self._description = description or type(estimator).__name__
        self.platform = platform
        self.acceleration = acceleration
        self.signature = signature_of(estimator)
        self.batches = bool(getattr(estimator, "serin_batches", True))
        self.methods = tuple(name for name in OUTPUTS if callable(getattr(estimator, name, None)))
        self.main = PREDICT if PREDICT in self.methods else TRANSFORM
        self._frames: Frames | None = None
        if self.signature.by_name and self.signature.names and not getattr(estimator, "takes_columns", False):
            self._frames = Frames(self.signature.names, self.signature.categories)
        classes = getattr(estimator, "classes_", None)
        # Models with several targets have a list of arrays here.
        self._outcomes: dict[object, Outcome] | None = None
        self._datatype = "FP64"
        if isinstance(classes, np.ndarray) and classes.ndim == 1:
            self._datatype = datatype_name(classes)
            self._outcomes = {value: class_outcome(value) for value in classes.tolist()}

    def open(self) -> None:
        """Get ready to predict, in the process that does. Raises FatalError."""
        opening = getattr(self._estimator, "open_session", None)
        if callable(opening):
            opening()
        if callable(opening) or _is_scikit_learns(self._estimator):
            self._warm_up()

    def _warm_up(self) -> None:
        """Predict once: what is imported or made only then, such as pandas, must not slow the first request.

        Objects of other kinds may not expect a call that nobody made.
        """
        features = self.signature.features
        if features is None:
            return
        try:
            self.predict(np.zeros((1, features)))
        except PredictionError as error:
            log.info("the model does not predict a row of zeros", extra={"fields": {"why": str(error)}})

    @property
    def classes(self) -> list[str] | None:
        """Texts of the classes in the model's order, None when it is not a classifier."""
        return None if self._outcomes is None else [outcome.text for outcome in self._outcomes.values()]

    @property
    def predict_datatype(self) -> str:
        """The V2 datatype of `predict`: that of the classes, FP64 for a model that is not a classifier."""
        return self._datatype

    @property
    def description(self) -> str:
        """The class of the object that the file holds, for logs."""
        return self._description

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it answers, as far as it says."""
        width = getattr(self._estimator, "_n_features_out", None)
        classes = None if self._outcomes is None else len(self._outcomes)
        return output_specs(self.methods, self._datatype, classes, width if isinstance(width, int) else None)

    def predict(self, rows: Rows, extras: Sequence[str] = ()) -> Predictions:
        """Compute the main output and `extras`, other names of `methods`. Raises PredictionError.

        On an event loop it may also raise AwayError: it must be called elsewhere.
        """
        try:
            found = self._compute(rows if self._frames is None else self._frames.of(rows), extras)
        except AwayError:
            raise
        except BaseException as error:
            # Also SystemExit: whatever a model raises is one failed request, never the end of the server.
            raise PredictionError(f"{type(error).__name__}: {error}") from error
        count = len(rows)
        values = _checked(self.main, found.pop(self.main), count)
        others = {name: _checked(name, array, count) for name, array in found.items()} if found else found
        return Predictions(values, others, self._outcomes_of(values) if self.main == PREDICT else None)

    def predict_all(self, parts: Sequence[Rows], extras: Sequence[str] = ()) -> list[Predictions]:
        """Predictions for each part, computed in one call; the parts are of one kind (protocol.rows).

        Raises as `predict` does.
        """
        if len(parts) == 1:
            return [self.predict(parts[0], extras)]
        whole = self.predict(together(parts), extras)
        found = []
        end = 0
        for part in parts:
            start, end = end, end + len(part)
            found.append(
                Predictions(
                    whole.values[start:end],
                    {name: array[start:end] for name, array in whole.extras.items()},
                    None if whole.outcomes is None else whole.outcomes[start:end],
                )
            )
        return found

    def _compute(self, rows: Any, extras: Sequence[str]) -> dict[str, Array]:
        estimator, main = self._estimator, self.main
        if not extras:
            return {main: np.asarray(getattr(estimator, main)(rows))}
        found = {}
        both = getattr(estimator, "predict_with_probabilities", None)
        if both is not None and PROBABILITIES in extras:
            found[PREDICT], found[PROBABILITIES] = map(np.asarray, both(rows))
        return {
            name: found[name] if name in found else _dense(getattr(estimator, name)(rows)) for name in (main, *extras)
        }

    def _outcomes_of(self, values: Array) -> list[Outcome] | None:
        if values.ndim != 1:
            return None
        if self._outcomes is None:
            return [quantity_outcome(value) for value in values.tolist()]
        known = self._outcomes
        return [known.get(value) or class_outcome(value) for value in values.tolist()]


def _is_scikit_learns(estimator: Any) -> bool:
    base = sys.modules.get("sklearn.base")
    return base is not None and isinstance(estimator, base.BaseEstimator)


def _wide(array: Array) -> Array:
    """Floats as FP64, whatever precision the model computes in."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _dense(found: Any) -> Array:
    """An array of what a method returned, which may be a sparse matrix."""
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found)


def _checked(method: str, array: Array, rows: int) -> Array:
    """The method's answer, with a value or a row of values for each row. Raises PredictionError."""
    if array.ndim == 0 or array.shape[0] != rows:
        raise PredictionError(f"{method} returned shape {list(array.shape)} for {rows} rows")
    if method == PROBABILITIES and array.ndim != 2:
        raise PredictionError(f"{method} returned shape {list(array.shape)} for {rows} rows")
    if method == PREDICT and array.ndim == 2 and array.shape[1] == 1:
        array = array.reshape(-1)
    array = _wide(array)
    # A transformer may pass missing values on, a prediction may not be one.
    if method != TRANSFORM and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PredictionError(f"{method} returned values that are not finite")
    return array
