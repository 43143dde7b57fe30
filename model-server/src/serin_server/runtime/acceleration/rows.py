"""Rows on which a conversion is compared with its original. The same model gets the same rows."""

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from serin_server.protocol.datatypes import Array
from serin_server.runtime.acceleration.trees import TREE_ENSEMBLES, thresholds

_SEED = 20240501
_RANDOM_ROWS = 512
_THRESHOLDS = 400
# Magnitudes of features that nothing is known about.
_SCALES = (0.1, 1.0, 10.0, 100.0)


def reference_rows(estimator: Any) -> Array:
    """Rows [n, features] in doubles, around what the estimator itself says of its features.

    For trees also rows that sit on thresholds, and next to them in single and in double precision: there a comparison
    in another precision goes the other way.
    """
    random = np.random.default_rng(_SEED)
    if type(estimator) in TREE_ENSEMBLES:
        return _tree_rows(estimator, random)
    features = int(estimator.n_features_in_)
    centre, scale = _spread(estimator, features)
    rows = random.standard_normal((_RANDOM_ROWS, features))
    if scale is None:
        scale = np.repeat(_SCALES, _RANDOM_ROWS // len(_SCALES)).reshape(-1, 1)
    return np.asarray(centre + rows * scale)


def _spread(estimator: Any, features: int) -> tuple[Array, Array | None]:
    """Centre and scale of each feature, from a scaler that comes first; scale None when nothing tells."""
    first = estimator.steps[0][1] if type(estimator) is Pipeline else estimator
    for centre, scale in (("mean_", "scale_"), ("center_", "scale_"), ("data_min_", "data_range_")):
        found = getattr(first, centre, None), getattr(first, scale, None)
        if found[0] is not None and found[1] is not None:
            return np.asarray(found[0]), np.asarray(found[1])
    return np.zeros(features), None


def _tree_rows(estimator: Any, random: np.random.Generator) -> Array:
    features = int(estimator.n_features_in_)
    pairs = thresholds(estimator)
    feature = np.concatenate([pair[0] for pair in pairs])
    threshold = np.concatenate([pair[1] for pair in pairs])
    rows = random.standard_normal((_RANDOM_ROWS, features))
    for column in range(features):
        own = threshold[feature == column]
        if own.size:
            # Midway between two of the model's own thresholds, or a little outside.
            rows[:, column] = (random.choice(own, _RANDOM_ROWS) + random.choice(own, _RANDOM_ROWS)) / 2
            rows[: _RANDOM_ROWS // 8, column] += own.std() * 3
    if not feature.size:
        return rows
    chosen = random.choice(feature.size, min(_THRESHOLDS, feature.size), replace=False)
    return np.concatenate([rows, *(_placed(rows, feature[one], threshold[one], random) for one in chosen)])


def _placed(rows: Array, column: int, threshold: float, random: np.random.Generator) -> Array:
    single = np.float32(threshold)
    places = np.array(
        [
            threshold,
            np.nextafter(threshold, -np.inf),
            np.nextafter(threshold, np.inf),
            single,
            np.nextafter(single, np.float32(-np.inf)),
            np.nextafter(single, np.float32(np.inf)),
        ]
    )
    made: Array = np.repeat(rows[[random.integers(rows.shape[0])]], places.size, axis=0)
    made[:, column] = places
    return made
