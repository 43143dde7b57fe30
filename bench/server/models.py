"""The models and requests of the benchmark, made by the Python that will serve them.

    python models.py DIRECTORY

Runs alone, in MLServer's environment too: a model must be loaded by the scikit-learn that made it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

SEED = 1


def body(rows: Any) -> str:
    """A request of the Open Inference Protocol with these rows."""
    shape = [len(rows), len(rows[0])]
    return json.dumps({"inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": rows.tolist()}]})


def main(directory: Path) -> None:
    """Write `iris` and `forest` with requests of 1 and 100 rows beside them."""
    for name, load, model in (
        ("iris", load_iris, LogisticRegression(max_iter=1000)),
        ("forest", load_breast_cancer, RandomForestClassifier(100, random_state=SEED)),
    ):
        features, classes = load(return_X_y=True)
        joblib.dump(model.fit(features, classes), directory / f"{name}.joblib")
        for rows in (1, 100):
            (directory / f"{name}-{rows}.json").write_text(body(features[:rows]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
