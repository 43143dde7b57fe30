"""An estimator whose arithmetic ONNX Runtime does."""

from typing import Any

import numpy as np

from serin_server.protocol.datatypes import Array
from serin_server.runtime.inputs import allows_missing
from serin_server.runtime.sessions import Session

# Between a row's two likeliest classes. Nearer ties are broken by the last bits, which only the original has right.
# It is above the difference in probability that is accepted (trial.TOLERANCE).
CLOSE = 1e-8


class Accelerated:
    """`predict` and `predict_proba` of an estimator, by the graph that it was converted to.

    The original computes what the graph cannot be trusted with: rows whose two likeliest classes are nearly tied, and
    input that is not numbers or has missing values, or that it keeps in single precision (`singles` says that it makes
    no difference). It also computes what is neither labels nor probabilities.
    An `exact` graph ties where the original does, so that its ties need no care.
    """

    def __init__(self, original: Any, graph: bytes, kept_steps: int, exact: bool, singles: bool) -> None:
        self._original = original
        self._exact = exact
        self._singles = singles
        self._session = Session(graph)
        self.open_session = self._session.open
        self._before = _steps(original, kept_steps) if kept_steps else None
        self.n_features_in_ = original.n_features_in_
        if hasattr(original, "feature_names_in_"):
            self.feature_names_in_ = original.feature_names_in_
        if hasattr(original, "classes_"):
            self.classes_ = original.classes_
            self.predict_proba = self._predict_proba
        for method in ("decision_function", "transform"):
            if hasattr(original, method):
                setattr(self, method, getattr(original, method))
        self.serin_takes_matrix = True
        self.serin_only_numbers = True
        self.serin_allows_missing = allows_missing(original)

    def predict(self, matrix: Array) -> Array:
        """Labels or values, as the original's."""
        if not self._takes(matrix):
            return np.asarray(self._original.predict(matrix))
        found = self._run(matrix)
        if not hasattr(self, "classes_"):
            return found.reshape(-1)
        labels = self.classes_.take(found.argmax(axis=1))
        close = None if self._exact else _close(found)
        if close is not None:
            labels[close] = self._original.predict(matrix[close])
        return np.asarray(labels)

    def predict_with_probabilities(self, matrix: Array) -> tuple[Array, Array]:
        """Labels [rows] and probabilities [rows, classes] of a classifier, from one computation."""
        if not self._takes(matrix):
            return self._original.predict(matrix), self._original.predict_proba(matrix)
        found = self._run(matrix)
        labels = self.classes_.take(found.argmax(axis=1))
        close = None if self._exact else _close(found)
        if close is not None:
            labels[close] = self._original.predict(matrix[close])
            found[close] = self._original.predict_proba(matrix[close])
        return labels, found

    def _predict_proba(self, matrix: Array) -> Array:
        return self.predict_with_probabilities(matrix)[1]

    def _takes(self, matrix: Array) -> bool:
        if self.serin_allows_missing and matrix.dtype.kind == "f" and np.isnan(matrix).any():
            return False
        if matrix.dtype == np.float32:
            return self._singles
        return matrix.dtype.kind in "iub" or matrix.dtype == np.float64

    def _run(self, matrix: Array) -> Array:
        rows = matrix if self._before is None else self._before.transform(matrix)
        rows = np.ascontiguousarray(rows, dtype=np.float64)
        session = self._session
        session.open()
        return np.asarray(session.run([session.output], {session.input: rows})[0])


def _steps(pipeline: Any, count: int) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline(pipeline.steps[:count])


def _close(probabilities: Array) -> Array | None:
    """The rows [rows, boolean] whose two likeliest classes are nearly tied, None when there is none."""
    classes = probabilities.shape[1]
    if classes < 2:
        return None
    best = probabilities if classes == 2 else np.partition(probabilities, -2, axis=1)
    apart = np.abs(best[:, -1] - best[:, -2])
    # As nearly always; written as a reduction, which takes half of the time of `min` or `any`.
    if np.minimum.reduce(apart, initial=1.0) >= CLOSE:
        return None
    close: Array = apart < CLOSE
    return close if close.any() else None
