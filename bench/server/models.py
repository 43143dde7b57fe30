"""The models and the rows that are sent to them.

All servers load the same files: the peers' environments have the scikit-learn that makes them here.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

SEED = 1
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A model of the benchmark and what its data is."""

    key: str
    title: str
    estimator: Any
    load: Any

    @functools.cached_property
    def data(self) -> tuple[Rows, Any]:
        features, classes = self.load(return_X_y=True)
        return np.asarray(features, dtype=np.float64), classes

    def rows(self, count: int) -> Rows:
        """The first rows of the data, [count, features]."""
        return self.data[0][:count]

    def write(self, directory: Path) -> Path:
        """Fit it, and return the path of its joblib file."""
        path = directory / f"{self.key}.joblib"
        joblib.dump(self.estimator.fit(*self.data), path)
        return path


MODELS = (
    Model("iris", "logistic regression, 4 features", LogisticRegression(max_iter=1000), load_iris),
    Model(
        "forest", "forest of 100 trees, 30 features", RandomForestClassifier(100, random_state=SEED), load_breast_cancer
    ),
    Model(
        "boosting",
        "histogram boosting, 30 features",
        HistGradientBoostingClassifier(random_state=SEED),
        load_breast_cancer,
    ),
)
