"""What an estimator takes: features, their names and datatypes, and whether values may be missing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from serin_server.protocol.categories import Categories
from serin_server.protocol.datatypes import Array
from serin_server.protocol.requests import Signature
from serin_server.protocol.rows import Columns, Rows
from serin_server.protocol.tensors import TensorSpec
from serin_server.runtime.categories import categories_of

# Made of other estimators, or with categories found out in training: their tags do not tell.
_TAKE_WHAT_THEY_WERE_TRAINED_ON = (
    "sklearn.compose",
    "sklearn.pipeline",
    "sklearn.ensemble._hist",
    "sklearn.ensemble._stack",
    "sklearn.ensemble._voting",
    "sklearn.model_selection",
    "sklearn.calibration",
    "sklearn.multi",
    "sklearn.impute",
)
_REPLACE_MISSING = ("OneHotEncoder", "TargetEncoder")


def signature_of(estimator: Any) -> Signature:
    """The estimator's own `signature`, or what scikit-learn's conventions tell."""
    own = getattr(estimator, "signature", None)
    if isinstance(own, Signature):
        return own
    features = getattr(estimator, "n_features_in_", None)
    names = _names(estimator)
    by_name = names is not None and not getattr(estimator, "serin_takes_matrix", False)
    categories = None if names is None else categories_of(estimator, names)
    return Signature(
        features=None if features is None else int(features),
        names=names,
        inputs=None if names is None else _columns(estimator, names, categories or {}),
        by_name=by_name,
        allows_missing=allows_missing(estimator),
        only_numbers=_takes_only_numbers(estimator),
        categories=categories,
    )


def _takes_only_numbers(estimator: Any) -> bool:
    """Whether it says so, as scikit-learn's own do: strings would be its failure then, and not the client's mistake."""
    own = getattr(estimator, "serin_only_numbers", None)
    if own is not None:
        return bool(own)
    steps = [step for _, step in getattr(estimator, "steps", ()) if step not in (None, "passthrough")]
    if steps:
        return _takes_only_numbers(steps[0])
    kind = type(estimator)
    if not kind.__module__.startswith("sklearn.") or kind.__module__.startswith(_TAKE_WHAT_THEY_WERE_TRAINED_ON):
        return False
    tags = _tags(estimator)
    return not (tags.no_validation or tags.input_tags.string or tags.input_tags.categorical)


def _tags(estimator: Any) -> Any:
    from sklearn.utils import get_tags  # not before there is an estimator of its: see `acceleration.scout`

    return get_tags(estimator)


def _names(estimator: Any) -> tuple[str, ...] | None:
    found = getattr(estimator, "feature_names_in_", None)
    if found is None:
        return None
    names = tuple(map(str, found))
    # LightGBM makes names up for a matrix without.
    return None if names == tuple(f"Column_{number}" for number in range(len(names))) else names


# --- missing values ------------------------------------------------------------------------------------------------


def allows_missing(estimator: Any) -> bool:
    """Whether NaN may be among the features: what `serin_allows_missing` or scikit-learn's tags say."""
    own = getattr(estimator, "serin_allows_missing", None)
    if own is not None:
        return bool(own)
    steps = getattr(estimator, "steps", None)
    if steps is not None:  # a pipeline's own tag does not know
        for _, step in steps:
            if step in (None, "passthrough"):
                continue
            if not allows_missing(step):
                return False
            if _replaces_missing(step):
                return True
        return True
    parts = getattr(estimator, "transformers_", None)
    if parts is not None:
        return all(allows_missing(part) for _, part, _ in parts if not isinstance(part, str))
    return hasattr(estimator, "__sklearn_tags__") and bool(_tags(estimator).input_tags.allow_nan)


def _replaces_missing(step: Any) -> bool:
    """Whether what follows the step sees no missing values any more."""
    inner = getattr(step, "steps", None)
    if inner is not None:
        return any(_replaces_missing(one) for _, one in inner)
    parts = getattr(step, "transformers_", None)
    if parts is not None:
        return all(part == "drop" or _replaces_missing(part) for _, part, _ in parts)
    kind = type(step)
    return kind.__module__.startswith("sklearn.impute") or kind.__name__ in _REPLACE_MISSING


# --- columns -------------------------------------------------------------------------------------------------------


def _columns(estimator: Any, names: tuple[str, ...], categories: Mapping[str, Categories]) -> tuple[TensorSpec, ...]:
    """One tensor a feature. Datatypes are those of its or an encoder's categories, FP64 where nothing tells."""
    found = dict(_encoded(estimator, names))
    found |= {name: _category_datatype(np.array(known.values)) for name, known in categories.items()}
    return tuple(TensorSpec(name, found.get(name, "FP64"), (-1,)) for name in names)


def _encoded(estimator: Any, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    steps = getattr(estimator, "steps", None)
    if steps:
        for _, step in steps:  # steps that keep the columns as they are may come before an encoder
            yield from _encoded(step, names)
            if len(names) != getattr(step, "n_features_in_", len(names)):
                return
        return
    for _, part, columns in getattr(estimator, "transformers_", ()):
        if not isinstance(part, str):
            yield from _encoded(part, _chosen(names, columns))
    categories = getattr(estimator, "categories_", None)
    if categories is not None and len(categories) == len(names):
        yield from zip(names, map(_category_datatype, categories), strict=True)
    elif hasattr(estimator, "vocabulary_") and len(names) == 1:
        yield names[0], "BYTES"


def _chosen(names: Sequence[str], columns: Any) -> list[str]:
    """The names of a column transformer's choice: names, positions, a slice of positions or a mask."""
    if isinstance(columns, str):
        return [columns]
    if isinstance(columns, slice) or np.asarray(columns).dtype.kind in "iub":
        return [str(name) for name in np.atleast_1d(np.asarray(names, dtype=object)[columns])]
    return [str(name) for name in columns]


def _category_datatype(categories: Array) -> str:
    if any(isinstance(value, str) for value in categories.tolist()):
        return "BYTES"
    return {"i": "INT64", "b": "BOOL"}.get(categories.dtype.kind, "FP64")


# --- data frames ---------------------------------------------------------------------------------------------------


class Frames:
    """Makes data frames of rows, for an estimator that was trained on named columns."""

    def __init__(self, names: tuple[str, ...], categories: Mapping[str, Categories] | None) -> None:
        """`categories` are those of a boosted model, which takes strings as nothing else."""
        import pandas  # only for models that want it: it takes half a second and 40 MB

        self._make = pandas.DataFrame
        self._of_codes = pandas.Categorical.from_codes
        self._names = list(names)
        self._known = {
            name: pandas.Index(known.values, dtype=known.dtype) for name, known in (categories or {}).items()
        }

    def of(self, rows: Rows) -> Any:
        """The data frame of columns, or of a matrix whose columns are in the names' order."""
        if isinstance(rows, Columns):
            columns = dict(rows.arrays)
        elif not self._known:
            return self._make(rows, columns=self._names)
        else:  # a row of zeros at the start: requests for such a model are columns
            columns = dict(zip(self._names, rows.T, strict=True))
        for name, known in self._known.items():
            columns[name] = self._of_codes(known.get_indexer(columns[name]), known)  # -1, for missing, where unknown
        return self._make(columns)
