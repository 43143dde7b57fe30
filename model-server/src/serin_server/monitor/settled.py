"""The metrics that count predictions and labels at an age: in Prometheus' text format, with a `window` label.

What a window is and when an event counts in it: see `cohorts`. The text is written here, since there are ten series
where other counters have one, and the library would take ten times as long, on the event loop.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from prometheus_client.utils import floatToGoString

from serin_server.monitor.cohorts import WINDOWS, Cohorts
from serin_server.monitor.exposition import head, labels

# Absolute errors of a regression, in the unit of its prediction: 1, 2 and 5 times the powers of ten.
ERROR_BUCKETS = (*(float(f"{digit}e{power}") for power in range(-6, 6) for digit in (1, 2, 5)), 1e6)
AT_ARRIVAL = "0"  # the window of labels that are counted at once, however old their prediction is

_WINDOW_TEXTS = tuple(str(window) for window in WINDOWS)
_SUM = len(ERROR_BUCKETS) + 1  # the sum of the errors is kept like one more bucket, after that of +Inf

# revision, actual class, predicted class, attempt
Cell = tuple[str, str, str, str]
Arm = tuple[str, str]  # revision, attempt


class SettledMetrics:
    """The counters of one server. All times are in seconds since 1970."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._labels: Cohorts[Cell] = Cohorts()
        self._predictions: Cohorts[Arm] = Cohorts()
        self._errors: Cohorts[tuple[Arm, int]] = Cohorts()
        self._arrived: dict[Arm, list[float]] = {}  # per error bucket, and _SUM
        self._label_series: dict[Cell, list[str]] = {}

    def expect(self, revision: str, classes: Iterable[str] | None) -> None:
        """Series that a reader waits for exist at 0: of right answers per class, or of errors without classes."""
        self._predictions.expect((revision, "first"))
        if classes is None:
            self._expect_errors((revision, "first"))
            return
        for name in classes:
            self._labels.expect((revision, name, name, "first"))

    def predicted(self, revision: str, attempt: str, rows: int, now: float) -> None:
        """Count rows that got a prediction id."""
        self._predictions.add((revision, attempt), int(now), now, rows)

    def labelled(self, cell: Cell, made: int, now: float) -> None:
        """Count a label for a class that was predicted at `made`."""
        self._labels.add(cell, made, now)

    def labelled_in(self, window: int, cell: Cell) -> None:
        """Count a label whose prediction is as old as the window now, there alone."""
        self._labels.settle(cell, window)

    def erred(self, revision: str, attempt: str, error: float, made: int, now: float) -> None:
        """Count a label for a number that was predicted at `made` and is off by `error`, finite and not negative."""
        for index, amount in self._parts(revision, attempt, error):
            self._errors.add(((revision, attempt), index), made, now, amount)

    def erred_in(self, window: int, revision: str, attempt: str, error: float) -> None:
        """As `labelled_in`."""
        for index, amount in self._parts(revision, attempt, error):
            self._errors.settle(((revision, attempt), index), window, amount)

    def erred_at_arrival(self, revision: str, attempt: str, error: float) -> None:
        """Count such a label in the window 0."""
        for index, amount in self._parts(revision, attempt, error):
            self._arrived[revision, attempt][index] += amount

    def _parts(self, revision: str, attempt: str, error: float) -> tuple[tuple[int, float], tuple[int, float]]:
        """What an error adds to which number of its arm, whose series exist from now on."""
        self._expect_errors((revision, attempt))
        return (bisect_left(ERROR_BUCKETS, error), 1.0), (_SUM, error)

    def render(self, now: float) -> bytes:
        """All series as they stand at `now`."""
        return "".join(
            [
                head("serin_predictions_settled_total", "counter", "Predicted rows with an id, so old as window says."),
                *self._rendered_predictions(now),
                head(
                    "serin_feedback_settled_total",
                    "counter",
                    "Labels that came until their prediction was so old as window says, counted at that age.",
                ),
                *self._rendered_labels(now),
                head(
                    "serin_feedback_error",
                    "histogram",
                    "Absolute difference of label and predicted number; window 0 counts labels as they arrive.",
                ),
                *self._rendered_errors(now),
            ]
        ).encode()

    def _expect_errors(self, arm: Arm) -> None:
        if arm in self._arrived:
            return
        self._arrived[arm] = [0.0] * (_SUM + 1)
        for index in range(_SUM + 1):
            self._errors.expect((arm, index))

    def _rendered_predictions(self, now: float) -> Iterator[str]:
        for (revision, attempt), rows in self._predictions.settled(now):
            own = labels(attempt=attempt, model=self._model, revision=revision)
            yield from _samples(_per_window("serin_predictions_settled_total", own, _WINDOW_TEXTS), rows)

    def _rendered_labels(self, now: float) -> Iterator[str]:
        for cell, counts in self._labels.settled(now):
            series = self._label_series.get(cell)
            if series is None:
                revision, actual, predicted, attempt = cell
                own = labels(actual=actual, attempt=attempt, model=self._model, predicted=predicted, revision=revision)
                series = _per_window("serin_feedback_settled_total", own, _WINDOW_TEXTS)
                self._label_series[cell] = series
            yield from _samples(series, counts)

    def _rendered_errors(self, now: float) -> Iterator[str]:
        settled = dict(self._errors.settled(now))
        texts = (AT_ARRIVAL, *_WINDOW_TEXTS)
        bounds = [*map(floatToGoString, ERROR_BUCKETS), "+Inf"]
        for arm, arrived in self._arrived.items():
            revision, attempt = arm
            own = labels(attempt=attempt, model=self._model, revision=revision)
            amounts = np.array([[at, *settled[arm, index]] for index, at in enumerate(arrived)])
            cumulative = amounts[:_SUM].cumsum(axis=0).tolist()
            for bound, counts in zip(bounds, cumulative, strict=True):
                series = _per_window("serin_feedback_error_bucket", f'{own},le="{bound}"', texts)
                yield from _samples(series, counts)
            yield from _samples(_per_window("serin_feedback_error_count", own, texts), cumulative[-1])
            yield from _samples(_per_window("serin_feedback_error_sum", own, texts), amounts[_SUM].tolist())


def _per_window(name: str, labels: str, texts: Iterable[str]) -> list[str]:
    return [f'{name}{{{labels},window="{text}"}} ' for text in texts]


def _samples(series: Sequence[str], values: Sequence[float]) -> Iterator[str]:
    return (f"{one}{value}\n" for one, value in zip(series, values, strict=True))
