"""A loaded model, seen through what serving needs of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serin_server.monitor.classes import Outcome, class_outcome, quantity_outcome
from serin_server.protocol.datatypes import Array, datatype_name
from serin_server.protocol.requests import Signature


class PredictionError(Exception):
    """The model failed, or answered with something that is not a prediction for each row."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """`values` has shape [rows] (or [rows, k] for k targets), `probabilities` [rows, classes] when asked for.

    `outcomes` has one element a row, None when rows have several targets.
    """

    values: Array
    probabilities: Array | None
    outcomes: Sequence[Outcome] | None


class Model:
    """Wraps an object with `predict`, in scikit-learn's conventions.

    An object that also has `predict_with_probabilities` gives both from one computation. `platform` is the protocol's
    name of what computes; `acceleration` says in a sentence whether the model was converted, and why not otherwise.
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
        features = getattr(estimator, "n_features_in_", None)
        names = getattr(estimator, "feature_names_in_", None)
        self.signature = Signature(
            features=None if features is None else int(features),
            names=None if names is None else tuple(map(str, names)),
        )
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

    @property
    def classes(self) -> list[str] | None:
        """Texts of the classes in the model's order, None when it is not a classifier."""
        return None if self._outcomes is None else [outcome.text for outcome in self._outcomes.values()]

    @property
    def has_probabilities(self) -> bool:
        return callable(getattr(self._estimator, "predict_proba", None))

    @property
    def predict_datatype(self) -> str:
        """The V2 datatype of `predict`: that of the classes, FP64 for a model that is not a classifier."""
        return self._datatype

    @property
    def description(self) -> str:
        """The class of the object that the file holds, for logs."""
        return self._description

    def predict(self, matrix: Array, with_probabilities: bool) -> Predictions:
        """Compute predictions for a matrix [rows, features]. Raises PredictionError and nothing else."""
        try:
            values, probabilities = self._compute(matrix, with_probabilities)
        except BaseException as error:
            # Also SystemExit: whatever a model raises is one failed request, never the end of the server.
            raise PredictionError(f"{type(error).__name__}: {error}") from error
        rows = matrix.shape[0]
        if values.ndim == 2 and values.shape[1] == 1:
            values = values.reshape(-1)
        if values.ndim not in (1, 2) or values.shape[0] != rows:
            raise PredictionError(f"predict returned shape {list(values.shape)} for {rows} rows")
        if probabilities is not None and (probabilities.ndim != 2 or probabilities.shape[0] != rows):
            raise PredictionError(f"predict_proba returned shape {list(probabilities.shape)} for {rows} rows")
        values = _wide(values)
        _check_finite("predict", values)
        if probabilities is not None:
            probabilities = _wide(probabilities)
            _check_finite("predict_proba", probabilities)
        return Predictions(values, probabilities, self._outcomes_of(values))

    def predict_all(self, matrices: Sequence[Array], with_probabilities: bool) -> list[Predictions]:
        """Predictions for each matrix, computed in one call; they have equal datatypes and columns.

        Raises PredictionError and nothing else.
        """
        if len(matrices) == 1:
            return [self.predict(matrices[0], with_probabilities)]
        together = self.predict(np.concatenate(matrices), with_probabilities)
        values, probabilities, outcomes = together.values, together.probabilities, together.outcomes
        parts = []
        end = 0
        for matrix in matrices:
            start, end = end, end + len(matrix)
            parts.append(
                Predictions(
                    values[start:end],
                    None if probabilities is None else probabilities[start:end],
                    None if outcomes is None else outcomes[start:end],
                )
            )
        return parts

    def _compute(self, matrix: Array, with_probabilities: bool) -> tuple[Array, Array | None]:
        if not with_probabilities:
            return np.asarray(self._estimator.predict(matrix)), None
        both = getattr(self._estimator, "predict_with_probabilities", None)
        if both is not None:
            values, probabilities = both(matrix)
            return np.asarray(values), np.asarray(probabilities)
        return np.asarray(self._estimator.predict(matrix)), np.asarray(self._estimator.predict_proba(matrix))

    def _outcomes_of(self, values: Array) -> list[Outcome] | None:
        if values.ndim != 1:
            return None
        if self._outcomes is None:
            return [quantity_outcome(value) for value in values.tolist()]
        known = self._outcomes
        return [known.get(value) or class_outcome(value) for value in values.tolist()]


def _wide(array: Array) -> Array:
    """Floats as FP64, whatever precision the model computes in."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _check_finite(method: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PredictionError(f"{method} returned values that are not finite")
