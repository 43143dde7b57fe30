"""Loads and converts a model in a child process, so that the server itself never imports scikit-learn.

scikit-learn and what it imports take more memory than all else that serves a small model. A converted model needs it
only for rows that the graph cannot be trusted with (see `accelerated`), so the original is loaded when the first such
row comes. Whatever else happens in the child, a failure included, tells nothing: the server then loads the file itself.
"""

import asyncio
import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from serin_server.protocol.datatypes import Array

_METHODS = ("predict", "predict_proba", "decision_function", "transform")
# Modules of scikit-learn that a convertible model's file names.
_MODULES = re.compile(rb"sklearn(?:\.[a-z_0-9]+)+")
_PLAIN = re.compile(
    rb"sklearn\.(linear_model|naive_bayes|neural_network|discriminant_analysis|tree|ensemble|preprocessing\._data|_loss"
    rb"|preprocessing\._label|pipeline|dummy|utils)(\.[a-z_0-9]+)*"
)
_TREES = re.compile(rb"sklearn\.(tree|ensemble)\.")
_HEAD_BYTES = 1024 * 1024
# A pickle of an object whose class is scikit-learn's, with or without a frame; what is compressed begins otherwise.
_ROOT = re.compile(rb"\x80.(\x95.{8})?(c|\x8c.)sklearn\.", re.DOTALL)


class AwayError(Exception):
    """The original estimator must be loaded first, which takes longer than the event loop may wait."""


class Facts(NamedTuple):
    """What serving must know of an estimator that it does not have."""

    kind: str
    features: int
    names: Array | None
    classes: Array | None
    methods: tuple[str, ...]
    allows_missing: bool


class Distant:
    """An estimator that is loaded when one of its methods is first called, in whichever thread may wait for that."""

    def __init__(self, facts: Facts, load: Callable[[], Any]) -> None:
        self._load = load
        self._found: Any = None
        self._lock = threading.Lock()
        self.n_features_in_ = facts.features
        self.serin_allows_missing = facts.allows_missing
        if facts.names is not None:
            self.feature_names_in_ = facts.names
        if facts.classes is not None:
            self.classes_ = facts.classes
        for method in facts.methods:
            setattr(self, method, partial(self._call, method))

    def _call(self, method: str, matrix: Array) -> Any:
        if self._found is None:
            if _on_an_event_loop():
                raise AwayError
            with self._lock:
                if self._found is None:
                    self._found = self._load()
        from sklearn import config_context

        # As `batcher.prepare_thread` does where scikit-learn is there from the beginning.
        with config_context(assume_finite=True, skip_parameter_validation=True):
            return getattr(self._found, method)(matrix)


def _on_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def is_promising(data: bytes) -> bool:
    """Whether a joblib file looks like a model that will be converted as a whole.

    It need not be right: a model that is not converted is loaded twice then, and one that is keeps scikit-learn.
    """
    head = data[:_HEAD_BYTES]
    modules = set(_MODULES.findall(head))
    if not _ROOT.match(head) or not all(map(_PLAIN.fullmatch, modules)):
        return False
    # Steps before trees stay scikit-learn's.
    return not (b"sklearn.pipeline" in modules and any(map(_TREES.match, modules)))


def facts_of(estimator: Any) -> Facts:
    """Called in the child, which has the estimator."""
    from serin_server.runtime.inputs import allows_missing

    names, classes = getattr(estimator, "feature_names_in_", None), getattr(estimator, "classes_", None)
    return Facts(
        kind=type(estimator).__name__,
        features=int(estimator.n_features_in_),
        names=None if names is None else np.asarray(names),
        classes=None if classes is None else np.asarray(classes),
        methods=tuple(method for method in _METHODS if hasattr(estimator, method)),
        allows_missing=allows_missing(estimator),
    )
