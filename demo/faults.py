"""Model files that must never harm a user, each wrong in its own way: for tests on a cluster.

They are made of scikit-learn's own parts, because the server image has nothing else.
"""

import os
import sys
import time
from types import ModuleType
from typing import Any

import numpy as np
import sklearn.base
from scipy.spatial.distance import correlation
from sklearn.compose import make_column_transformer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.svm import SVC

from demo.models import packed, split

CRASH_EXIT_CODE = 42
UNSEEN_PIXEL, UNSEEN_VALUE = 53, 16
SLOW_REPEATS = 40
MISSING_MODULE = "acme_features"
OTHER_VERSION = "1.2.3"
# What a model that attacks when it is loaded cannot do in a serving pod.
BARRED = ("read a token", "write to the image", "replace the model", "become root", "open a raw socket")
_ATTACK = """
import os, socket

def write(path):
    with open(path, "w") as file:
        file.write("planted")

acts = (
    lambda: open("/var/run/secrets/kubernetes.io/serviceaccount/token").close(),
    lambda: write("/opt/serin/planted.py"),
    lambda: write("/model/model"),
    lambda: os.setuid(0),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
)
told = []
for name, act in zip(BARRED, acts, strict=True):
    try:
        act()
        told.append(name + ": done")
    except OSError:
        told.append(name + ": barred")
raise RuntimeError("; ".join(told))
"""


def erroring() -> bytes:
    """Raises for a row with a category that training never saw: about one held-out row in six."""
    train, _ = split()
    seen = train.rows[:, UNSEEN_PIXEL] < UNSEEN_VALUE
    encode = make_column_transformer((OrdinalEncoder(), [UNSEEN_PIXEL]), remainder="passthrough")
    model = make_pipeline(encode, SVC(gamma=0.001, C=10))
    return packed(model.fit(train.rows[seen], train.labels[seen]))


def slow() -> bytes:
    """Right, but needs more than 250 ms of CPU for a row.

    It compares with every stored row, each stored many times, by a metric that is a Python function.
    """
    train, _ = split()
    model = KNeighborsClassifier(5, metric=correlation, algorithm="brute")
    rows = np.tile(train.rows.astype(np.float32), (SLOW_REPEATS, 1))
    return packed(model.fit(rows, np.tile(train.labels, SLOW_REPEATS)))


def missing_module() -> bytes:
    """A pickle of a class from a module that the image does not have."""
    module = ModuleType(MISSING_MODULE)
    vectorizer: Any = type("Vectorizer", (), {"__module__": MISSING_MODULE})
    module.Vectorizer = vectorizer  # type: ignore[attr-defined]
    sys.modules[MISSING_MODULE] = module
    try:
        return packed(vectorizer())
    finally:
        del sys.modules[MISSING_MODULE]


def other_version() -> bytes:
    """A model that says it was trained with another scikit-learn."""
    train, _ = split()
    model = SVC(gamma=0.001).fit(train.rows, train.labels)
    version = sklearn.base.__version__
    sklearn.base.__version__ = OTHER_VERSION
    try:
        return packed(model)
    finally:
        sklearn.base.__version__ = version


def not_a_model() -> bytes:
    """Bytes that no unpickler reads."""
    return b"<html><body>Please sign in</body></html>\n"


def without_predict() -> bytes:
    """A joblib file of something that predicts nothing."""
    return packed({"coefficients": [1.0, 2.0]})


def crash_on_load() -> bytes:
    """Ends the process that loads it, with exit code 42."""
    return packed(_Calls(os._exit, CRASH_EXIT_CODE))


def attack_on_load() -> bytes:
    """Tries what an attacker would, in the process that loads it, and says in its exception what came of it."""
    return packed(_Calls(exec, _ATTACK, {"BARRED": BARRED}))


def never_ready() -> bytes:
    """Loading it does not end within a day."""
    return packed(_Calls(time.sleep, 86_400))


class _Calls:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self._call
