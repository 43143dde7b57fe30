"""Counts live rows on the bins of a reference profile.

A row waits in a buffer until its answer is sent and is counted with all others of the next 20 ms in one go, so that
no request waits for it. What more there is in that time than `VALUES_AT_ONCE` is left out, and that is counted: under
pressure the counts are a sample, of whole requests, or of evenly spaced rows of a large one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from serin_server.drift.bins import CategoryBins, Floats, NumericBins, as_numbers
from serin_server.drift.profile import Feature, Profile
from serin_server.monitor.attempts import Attempt
from serin_server.monitor.exposition import head, labels
from serin_server.protocol.datatypes import Array
from serin_server.protocol.rows import Columns, Rows, kind, some, together
from serin_server.protocol.tensors import InferResponse
from serin_server.runtime.model import Predictions
from serin_server.serving.inquiry import Inquiry

# Each has up to some tens of series, here and in the Prometheus that reads them.
MOST_FEATURES = 200
WAIT_SECONDS = 0.02
# Values, of all features, that are counted in one go: about 0.15 ms of the event loop's time.
VALUES_AT_ONCE = 16_384

Integers = NDArray[np.int64]


class DriftCounter:
    """The counts of one process. It belongs to the event loop's thread."""

    def __init__(self, profile: Profile, model: str, revision: str) -> None:
        """`profile` fits the model: its features are in the model's order."""
        self._features = profile.features[:MOST_FEATURES]
        self._width = len(profile.features)
        self._predictions = profile.predictions
        self._counted = counted_features(profile)
        self._waiting: list[tuple[Rows, Predictions]] = []
        self._room = VALUES_AT_ONCE
        self._numeric = _Numeric(self._features)
        self._counts: list[Integers] = [np.zeros(len(each.counts), np.int64) for each in self._counted]
        self._outside: list[int] = [0] * len(self._counted)
        self._skipped = 0
        self._bin_series = [_bin_series("serin_feature_bin_total", each, model, revision) for each in self._counted]
        self._outside_series = [
            f"serin_feature_out_of_range_total{{{labels(feature=each.name, model=model, revision=revision)}}} "
            if isinstance(each.bins, NumericBins)
            else ""
            for each in self._counted
        ]
        self._skipped_series = f"serin_feature_rows_skipped_total{{{labels(model=model, revision=revision)}}} "

    def answered(self, inquiry: Inquiry, response: InferResponse) -> None:
        """Take in the rows of a request; of first attempts only, as all evidence is."""
        if inquiry.attempt is Attempt.FIRST:
            self.add(inquiry.rows, inquiry.predictions)

    def add(self, rows: Rows, predictions: Predictions) -> None:
        """Take in what the model got, and its predictions."""
        room = self._room // max(1, len(self._counted))
        if room == 0:
            self._skipped += len(rows)
            return
        stride = -(-len(rows) // room)
        if stride > 1:
            self._skipped += len(rows)
            rows, predictions = some(rows, slice(None, None, stride)), _every(stride, predictions)
            self._skipped -= len(rows)
        if not self._waiting:
            asyncio.get_running_loop().call_later(WAIT_SECONDS, self.count)
        self._waiting.append((rows, predictions))
        self._room -= len(rows) * len(self._counted)

    def count(self) -> None:
        """Count all that waits."""
        waiting, self._waiting, self._room = self._waiting, [], VALUES_AT_ONCE
        alike: dict[Hashable, list[tuple[Rows, Predictions]]] = defaultdict(list)
        for rows, predictions in waiting:
            alike[kind(rows)].append((rows, predictions))
        for parts in alike.values():
            rows = together([rows for rows, _ in parts])
            matrix = rows.matrix() if isinstance(rows, Columns) else rows.reshape(len(rows), -1)
            if matrix.shape[1] != self._width:  # of a model that does not say how many features it takes
                self._skipped += len(matrix)
                continue
            self._count_features(matrix)
            if self._predictions is not None:
                self._count_predictions([predictions for _, predictions in parts])

    def _count_features(self, matrix: Array) -> None:
        numeric = matrix.dtype.kind in "fiub"
        if numeric:
            self._numeric.count(matrix.astype(np.float64), self._counts, self._outside)
        for place in self._numeric.others if numeric else range(len(self._features)):
            self._count_column(place, matrix[:, place])

    def _count_column(self, place: int, values: Array) -> None:
        bins = self._features[place].bins
        self._counts[place] += np.bincount(bins.indices(values), minlength=len(self._counts[place]))
        if isinstance(bins, NumericBins):
            self._outside[place] += _outside(bins, as_numbers(values))

    def _count_predictions(self, parts: Sequence[Predictions]) -> None:
        counts, bins = self._counts[-1], self._counted[-1].bins
        if isinstance(bins, CategoryBins):
            texts = [outcome.text for part in parts for outcome in part.outcomes or ()]
            counts += np.bincount(bins.indices_of_texts(texts), minlength=len(counts))
            return
        values = as_numbers(np.concatenate([part.values for part in parts if part.values.ndim == 1]))
        counts += np.bincount(bins.indices(values), minlength=len(counts))
        self._outside[-1] += _outside(bins, values)

    def render(self) -> str:
        """The counts in Prometheus' text format, of what waits too."""
        self.count()
        return "".join(self._rendered())

    def _rendered(self) -> Iterator[str]:
        yield head("serin_feature_bin_total", "counter", "Predicted rows by the bin that a feature's value is in.")
        for names, counts in zip(self._bin_series, self._counts, strict=True):
            yield from (f"{name}{count}\n" for name, count in zip(names, counts.tolist(), strict=True))
        yield head(
            "serin_feature_out_of_range_total",
            "counter",
            "Predicted rows whose value was beyond the reference's range.",
        )
        for name, outside in zip(self._outside_series, self._outside, strict=True):
            yield f"{name}{outside}\n" if name else ""
        yield head("serin_feature_rows_skipped_total", "counter", "Predicted rows that were not counted in bins.")
        yield f"{self._skipped_series}{self._skipped}\n"


def render_reference(profile: Profile, model: str, revision: str) -> str:
    """The profile in Prometheus' text format. It never changes, and one process of a server gives it."""
    features = counted_features(profile)
    ratios = (
        f"{series}{count / max(1, sum(feature.counts))!r}\n"
        for feature in features
        for series, count in zip(
            _bin_series("serin_feature_reference_ratio", feature, model, revision), feature.counts, strict=True
        )
    )
    rows = (
        f"serin_feature_reference_rows{{{own}}} {sum(each.counts)}\n"
        for each in features
        if (own := labels(feature=each.name, model=model, revision=revision))
    )
    return "".join(
        [
            head("serin_feature_reference_ratio", "gauge", "Share of the reference's rows in the bin."),
            *ratios,
            head("serin_feature_reference_rows", "gauge", "Rows that the reference was made of."),
            *rows,
        ]
    )


def counted_features(profile: Profile) -> tuple[Feature, ...]:
    """The features that are counted, and the predictions after them."""
    predictions = () if profile.predictions is None else (profile.predictions,)
    return (*profile.features[:MOST_FEATURES], *predictions)


def _bin_series(metric: str, feature: Feature, model: str, revision: str) -> list[str]:
    """The beginnings of the lines of a feature's bins."""
    return [
        f"{metric}{{{labels(bin=name, feature=feature.name, model=model, revision=revision)}}} "
        for name in feature.bin_names
    ]


class _Numeric:
    """Counts all features of numbers in one go."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.others = [place for place, each in enumerate(features) if not isinstance(each.bins, NumericBins)]
        bins = [(place, each.bins) for place, each in enumerate(features) if isinstance(each.bins, NumericBins)]
        self._places = np.array([place for place, _ in bins], np.intp)
        self._bins = [each for _, each in bins]
        most = max((len(each.edges) for each in self._bins), default=0)
        # Row k has the k-th edge of each feature, infinity where a feature has fewer.
        self._edges = np.full((most, len(bins)), np.inf)
        for column, each in enumerate(self._bins):
            self._edges[: len(each.edges), column] = each.edges
        self._last = np.array([len(each.edges) for each in self._bins], np.intp)
        self._low = np.array([np.inf if each.low is None else each.low for each in self._bins], np.float64)
        self._high = np.array([-np.inf if each.high is None else each.high for each in self._bins], np.float64)

    def count(self, block: Floats, counts: Sequence[Integers], outside: list[int]) -> None:
        """Add the rows of `block`, of shape [rows, features], to the counts by feature."""
        if not self._bins:
            return
        if len(self._places) < block.shape[1]:
            block = block[:, self._places]
        found = np.zeros(block.shape, np.intp)
        for edges in self._edges:
            found += block >= edges
        np.minimum(found, self._last, out=found)  # +Inf is in the last bin
        found[np.isnan(block)] = len(self._edges) + 1
        width = len(self._edges) + 2
        found += np.arange(len(self._bins)) * width
        totals = np.bincount(found.ravel(), minlength=len(self._bins) * width).reshape(-1, width)
        beyond = ((block < self._low) | (block > self._high)).sum(axis=0).tolist()
        for column, place in enumerate(self._places.tolist()):
            counts[place][:-1] += totals[column, : len(counts[place]) - 1]
            counts[place][-1] += totals[column, -1]
            outside[place] += beyond[column]


def _every(stride: int, predictions: Predictions) -> Predictions:
    outcomes = predictions.outcomes
    return Predictions(predictions.values[::stride], {}, None if outcomes is None else outcomes[::stride])


def _outside(bins: NumericBins, values: Floats) -> int:
    if bins.low is None or bins.high is None:
        return int((~np.isnan(values)).sum())
    return int(((values < bins.low) | (values > bins.high)).sum())
