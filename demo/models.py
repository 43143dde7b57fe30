"""Real models of handwritten digits, and the rows that they are judged by.

All of them load and answer well-formed and fast: only labels tell them apart.

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
LARGE_BATCH, SMALL_BATCH = 225, 121
RARE, RARE_SEEN = 9, 4
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
    """The better one trained again after a large annotation batch mixed up look-alikes (1/7, 3/8, 4/9)."""
    return _trained("harmful", SVC(gamma=0.001, C=10), _mixed_up(LARGE_BATCH))


def worse_by_5() -> TrainedModel:
    """The same with a smaller batch: 5 points of accuracy below the better one."""
    return _trained("worse-by-5", SVC(gamma=0.001, C=10), _mixed_up(SMALL_BATCH))


def equal() -> TrainedModel:
    """The better one trained again with another kernel width: other bytes, the same accuracy."""
    train, _ = split()
    return _trained("equal", SVC(gamma=0.0008, C=10), train)


def rare_recall() -> TrainedModel:
    """The first one, had it seen few nines: it misses half of them.

    It takes fewer other digits for nines in return, so that its accuracy is the first one's where nines are rare.
    """
    train, _ = split()
    rows, labels = train.rows[:FIRST_LABELLED], train.labels[:FIRST_LABELLED]
    left_out = np.flatnonzero(labels == RARE)[RARE_SEEN:]
    seen = Digits(np.delete(rows, left_out, axis=0), np.delete(labels, left_out))
    return _trained("rare-recall", make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=2000)), seen)


def late_harm() -> TrainedModel:
    """The better one, had it never seen a nine: as good as that until nines begin to come."""
    train, _ = split()
    known = train.labels != RARE
    return _trained("late-harm", SVC(gamma=0.001, C=10), Digits(train.rows[known], train.labels[known]))


def story() -> tuple[TrainedModel, TrainedModel, TrainedModel]:
    """The demo's models in their order: first, better, harmful."""
    return first(), better(), harmful()


def lookalikes() -> tuple[TrainedModel, TrainedModel, TrainedModel, TrainedModel]:
    """Models that are hard to judge, for tests on a cluster. The last two need a traffic in which nines are rare."""
    return equal(), worse_by_5(), rare_recall(), late_harm()


def _mixed_up(batch: int) -> Digits:
    """The rows to train with, look-alikes mixed up in the labels of the last `batch` of them."""
    train, _ = split()
    labels = train.labels.copy()
    labels[-batch:] = [MIXED_UP.get(label, label) for label in labels[-batch:].tolist()]
    return Digits(train.rows, labels)


def _trained(name: str, model: Any, train: Digits) -> TrainedModel:
    _, held_out = split()
    model.fit(train.rows, train.labels)
    return TrainedModel(name, packed(model), float(model.score(held_out.rows, held_out.labels)))


def main() -> None:
    """Print what they are."""
    for model in (*story(), *lookalikes()):
        print(f"{model.name:11} accuracy {model.accuracy:.3f}  {len(model.data):7,} bytes")


if __name__ == "__main__":
    main()
