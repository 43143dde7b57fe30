"""Three real models of handwritten digits, and the rows that they are judged by.

The data are scikit-learn's own (8x8 images, 1797 rows, 10 classes). One half trains, the other half is
traffic, so that no model is asked about a row that it has seen. Everything is deterministic.
"""

import io
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

SEED = 7
FIRST_LABELLED = 200
MIXED_UP = {1: 7, 7: 1, 3: 8, 8: 3, 4: 9, 9: 4}
# A ConfigMap holds 1 MiB in all, as base64.
MOST_BYTES = 700_000


@dataclass(frozen=True)
class Digits:
    """Rows of shape [n, 64] with their labels of shape [n]."""

    rows: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TrainedModel:
    """A model file and its accuracy on the held-out rows, as measured."""

    name: str
    data: bytes
    accuracy: float


def split() -> tuple[Digits, Digits]:
    """The rows to train with, and the held-out rows for traffic."""
    rows, labels = load_digits(return_X_y=True)
    train, held_out, train_labels, held_out_labels = train_test_split(
        rows, labels, test_size=0.5, random_state=SEED, stratify=labels
    )
    return Digits(train, train_labels), Digits(held_out, held_out_labels)


def packed(model: object) -> bytes:
    """The compressed joblib file of a model. Raises ValueError when it does not fit into a ConfigMap."""
    file = io.BytesIO()
    joblib.dump(model, file, compress=("xz", 3))
    data = file.getvalue()
    if len(data) > MOST_BYTES:
        raise ValueError(f"the model file has {len(data)} bytes, a ConfigMap takes {MOST_BYTES}")
    return data


def first() -> TrainedModel:
    """A linear model from the first labelled rows: what a team puts into production to begin with."""
    train, _ = split()
    model = make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=2000))
    return _trained("first", model, Digits(train.rows[:FIRST_LABELLED], train.labels[:FIRST_LABELLED]))


def better() -> TrainedModel:
    """A support vector machine from all rows."""
    train, _ = split()
    return _trained("better", SVC(gamma=0.001, C=10), train)


def harmful() -> TrainedModel:
    """The better one trained again after an annotation batch mixed up look-alikes (1/7, 3/8, 4/9).

    It loads, answers well-formed and fast: only labels can tell that it is worse.
    """
    train, _ = split()
    labels = train.labels.copy()
    batch = slice(len(labels) * 3 // 4, None)
    labels[batch] = [MIXED_UP.get(label, label) for label in labels[batch].tolist()]
    return _trained("harmful", SVC(gamma=0.001, C=10), Digits(train.rows, labels))


def story() -> tuple[TrainedModel, TrainedModel, TrainedModel]:
    """The demo's models in their order: first, better, harmful."""
    return first(), better(), harmful()


def _trained(name: str, model: Any, train: Digits) -> TrainedModel:
    _, held_out = split()
    model.fit(train.rows, train.labels)
    return TrainedModel(name, packed(model), float(model.score(held_out.rows, held_out.labels)))


def main() -> None:
    """Print what `story` makes."""
    for model in story():
        print(f"{model.name:8} accuracy {model.accuracy:.3f}  {len(model.data):7,} bytes")


if __name__ == "__main__":
    main()
