"""Models that misbehave in one way each. The server's process imports this module when it unpickles them."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

Matrix = NDArray[Any]


class Slow(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Takes as many seconds as the first value of the input says; creates the file `started` first, if any."""

    classes_ = np.array([0, 1])
    n_features_in_ = 1

    def __init__(self, started: Path) -> None:
        self.started = started

    def predict(self, matrix: Matrix) -> Matrix:
        if seconds := float(matrix[0, 0]):
            self.started.touch()
            time.sleep(seconds)
        return np.zeros(matrix.shape[0], dtype=int)


class Moody(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Raises, ends the process or answers nonsense, by the first value of the input."""

    classes_ = np.array(["fine", "bad"])
    n_features_in_ = 1

    def predict(self, matrix: Matrix) -> Matrix:
        mood = int(matrix[0, 0])
        if mood == 1:
            raise KeyError("the model's own bug")
        if mood == 2:
            raise SystemExit(0)
        if mood == 3:
            return np.array(["fine"] * (matrix.shape[0] + 1))
        return np.array(["fine"] * matrix.shape[0])


class NotANumber(BaseEstimator):  # type: ignore[misc]
    """A regression that predicts NaN."""

    def predict(self, matrix: Matrix) -> Matrix:
        return np.full(matrix.shape[0], np.nan)


class Words(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A text model: takes strings [rows] and predicts whether they are long."""

    classes_ = np.array([False, True])

    def predict(self, texts: Matrix) -> Matrix:
        assert texts.ndim == 1
        return np.array([len(text) > 3 for text in texts])


class OnLoad:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._call


def raise_on_load() -> NoReturn:
    raise RuntimeError("no licence found")


def value_error_on_load() -> NoReturn:
    raise ValueError("a bad setting in the model")


def leave_on_load() -> NoReturn:
    raise SystemExit(0)


def vanish_on_load() -> NoReturn:
    os._exit(77)


def killed_on_load() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def start_thread_on_load() -> NotANumber:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return NotANumber()
