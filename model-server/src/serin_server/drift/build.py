"""From training data to a reference profile."""

from collections.abc import Mapping, Sequence

import numpy as np

from serin_server.drift.bins import Bins, CategoryBins, as_numbers, category_bins, numeric_bins
from serin_server.drift.profile import PREDICTION, Feature, Profile
from serin_server.failures import FatalError, Reason
from serin_server.protocol.datatypes import Array, datatype_name

# As many classes have a label value of their own in the metrics. Whole numbers that nobody declared to be classes are
# taken for such up to this many.
_MOST_CLASSES = 50


def build(
    features: Mapping[str, Array], predictions: Array | None, classes: Sequence[str] | None, bins: int
) -> Profile:
    """The profile of columns of equal length, each of shape [rows]. Raises FatalError.

    predictions: what the model predicts for the rows, shape [rows]. classes: the model's own, None when it is not known
    to be a classifier.
    """
    rows = len(next(iter(features.values())))
    return Profile(
        rows,
        tuple(feature(name, values, bins) for name, values in features.items()),
        None if predictions is None else _predictions(predictions, classes, bins),
    )


def feature(name: str, values: Array, bins: int) -> Feature:
    """One feature: intervals for numbers and truth values, categories for texts. Raises FatalError."""
    if values.dtype.kind in "mMcV":
        raise FatalError(
            Reason.INVALID_CONFIGURATION,
            f"the column {name} holds {values.dtype}, neither numbers nor texts: leave it out with --ignore",
        )
    numeric = values.dtype.kind in "fiub"
    found = numeric_bins(as_numbers(values), bins) if numeric else category_bins(values, bins)
    return _counted(name, datatype_name(values), found, values)


def _predictions(values: Array, classes: Sequence[str] | None, bins: int) -> Feature:
    kind = values.dtype.kind
    if classes is not None:
        found: Bins = CategoryBins(tuple(classes[:_MOST_CLASSES]))
    elif kind in "iub" and len(np.unique(values)) <= _MOST_CLASSES:
        found = category_bins(values, _MOST_CLASSES)
    elif kind in "fiub":
        found = numeric_bins(as_numbers(values), bins)
    else:
        found = category_bins(values, _MOST_CLASSES)
    return _counted(PREDICTION, datatype_name(values), found, values)


def _counted(name: str, datatype: str, bins: Bins, values: Array) -> Feature:
    counts = np.bincount(bins.indices(values), minlength=len(bins.names) + 1)
    return Feature(name, datatype, bins, tuple(counts.tolist()))
