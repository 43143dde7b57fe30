"""Prometheus metrics of one server, with label children looked up once."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from serin_server.monitor.activity import Activity
from serin_server.monitor.histogram import Histogram, Observed
from serin_server.monitor.settled import Cell, SettledMetrics

# The bounds that `slowerThan` of the resource may name.
DURATION_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30,
)  # fmt: skip
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
DELAY_BUCKETS = (
    1, 10, _MINUTE, 5 * _MINUTE, 30 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 *
    _DAY,
)  # fmt: skip
MAX_CLASSES = 50
OTHER = "other"
# A wrong prediction must never read as predicted == actual, also when neither class has a label of its own.
ANOTHER = "another"

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """The server's counters. Not safe to call from several threads: the event loop's thread owns it."""

    def __init__(self, model: str, revision: str, classes: Sequence[str] | None) -> None:
        """`classes` are the texts of the model's own classes, None for a model that is not a classifier."""
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._model = model
        self._revision = revision
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "serin_requests",
            "Inference requests by status code; 499 when the client went away.",
            ["model", "revision", "code", "attempt"],
            registry=self._registry,
        )
        self._durations = Histogram(
            "serin_request_duration_seconds",
            "Seconds from an inference request read in full to its answer.",
            DURATION_BUCKETS,
            ["model", "revision", "attempt"],
        )
        self._predictions = Counter(
            "serin_predictions",
            "Predicted rows by class.",
            ["model", "revision", "predicted", "attempt"],
            registry=self._registry,
        )
        self._feedback = Counter(
            "serin_feedback",
            "Labels that arrived, by true and predicted class, for the revision that predicted.",
            ["model", "revision", "actual", "predicted", "attempt"],
            registry=self._registry,
        )
        self._refused = Counter(
            "serin_feedback_refused",
            "Labels that were not counted, by reason.",
            ["model", "reason"],
            registry=self._registry,
        )
        self._delays = Histogram(
            "serin_feedback_delay_seconds",
            "Seconds from a prediction to its label.",
            DELAY_BUCKETS,
            ["model", "revision"],
        )
        self._load = Gauge(
            "serin_model_load_seconds",
            "Seconds that loading the model took.",
            ["model", "revision"],
            registry=self._registry,
        )
        # What each request counts is kept here until it is asked for: the library's counters take ten times as long.
        self._new_requests: defaultdict[tuple[int, str], int] = defaultdict(int)  # by code and attempt
        self._new_predictions: defaultdict[tuple[str, str], int] = defaultdict(int)  # by class and attempt
        self._by_attempt: dict[str, Observed] = {}
        self._own_classes = frozenset((classes or ())[:MAX_CLASSES])
        self._classes: dict[str, set[str]] = {}
        self._settled = SettledMetrics(model)
        self.activity = Activity(model, revision)
        self._others: list[Callable[[], str]] = []
        self._create_own_series(classes)

    def also(self, render: Callable[[], str]) -> None:
        """Add families that something else writes, in Prometheus' text format, each time."""
        self._others.append(render)

    def _create_own_series(self, classes: Sequence[str] | None) -> None:
        """Series that evidence is read from start at 0, else a reader would lose their first increase."""
        self._new_requests[200, "first"] = 0
        self._duration("first")
        own = sorted(self._own_classes)
        self._settled.expect(self._revision, None if classes is None else own)
        for name in own:
            self._predictions.labels(self._model, self._revision, name, "first")
            self._feedback.labels(self._model, self._revision, name, name, "first")

    def loaded(self, seconds: float) -> None:
        self._load.labels(self._model, self._revision).set(seconds)

    def request_done(self, code: int, attempt: str, seconds: float) -> None:
        """Count an inference request that was answered, or whose client went away (499)."""
        self.requests_done(code, attempt, (seconds,))

    def requests_done(self, code: int, attempt: str, seconds: Sequence[float]) -> None:
        """Count several of them, with the seconds of each."""
        self._new_requests[code, attempt] += len(seconds)
        observe = self._duration(attempt).observe
        for each in seconds:
            observe(each)

    def predicted(self, classes: Iterable[tuple[str, int]], attempt: str) -> None:
        """Count predicted rows: (class, rows) pairs."""
        for name, rows in classes:
            self._new_predictions[name, attempt] += rows

    def issued(self, rows: int, attempt: str, now: float) -> None:
        """Count rows that got a prediction id, at `now` (seconds since 1970)."""
        self._settled.predicted(self._revision, attempt, rows, now)

    def feedback_counted(self, revision: str, actual: str, predicted: str, attempt: str, made: int, now: float) -> None:
        """Count the true class for the revision that predicted one; prediction and label in seconds since 1970."""
        cell = self._cell(revision, actual, predicted, attempt)
        self._arrived(cell, now - made)
        self._settled.labelled(cell, made, now)

    def feedback_arrived(self, revision: str, actual: str, predicted: str, attempt: str, made: int, now: float) -> None:
        """The same, of a label that counts in no window."""
        self._arrived(self._cell(revision, actual, predicted, attempt), now - made)

    def feedback_settled(self, revision: str, actual: str, predicted: str, attempt: str, window: int) -> None:
        """The same, of a label that counts in this window alone, now."""
        self._settled.labelled_in(window, self._cell(revision, actual, predicted, attempt))

    def error_counted(self, revision: str, error: float, attempt: str, made: int, now: float) -> None:
        """Count how far the prediction of a number was off, for the revision that predicted it."""
        self.error_arrived(revision, error, attempt, made, now)
        self._settled.erred(revision, attempt, error, made, now)

    def error_arrived(self, revision: str, error: float, attempt: str, made: int, now: float) -> None:
        """The same, of a label that counts in no window."""
        self._settled.erred_at_arrival(revision, attempt, error)
        self._delays.labels(self._model, revision).observe(max(0.0, now - made))

    def error_settled(self, revision: str, error: float, attempt: str, window: int) -> None:
        """The same, of a label that counts in this window alone, now."""
        self._settled.erred_in(window, revision, attempt, error)

    def feedback_refused(self, reason: str) -> None:
        self._refused.labels(self._model, reason).inc()

    def render(self, now: float) -> bytes:
        """The metrics in Prometheus' text format, as they stand at `now` (seconds since 1970)."""
        self._count_new()
        own = (self._durations.render, self._delays.render, self.activity.render)
        others = "".join(render() for render in (*own, *self._others)).encode()
        return prometheus_client.generate_latest(self._registry) + self._settled.render(now) + others

    def _count_new(self) -> None:
        for (code, attempt), count in self._new_requests.items():
            self._requests.labels(self._model, self._revision, str(code), attempt).inc(count)
        for (name, attempt), rows in self._new_predictions.items():
            label = self._class_label(self._revision, name)
            self._predictions.labels(self._model, self._revision, label, attempt).inc(rows)
        self._new_requests.clear()
        self._new_predictions.clear()

    def _duration(self, attempt: str) -> Observed:
        child = self._by_attempt.get(attempt)
        if child is None:
            child = self._durations.labels(self._model, self._revision, attempt)
            self._by_attempt[attempt] = child
        return child

    def _arrived(self, cell: Cell, delay: float) -> None:
        self._feedback.labels(self._model, *cell).inc()
        self._delays.labels(self._model, cell[0]).observe(max(0.0, delay))

    def _cell(self, revision: str, actual: str, predicted: str, attempt: str) -> Cell:
        """Where a label is counted, with the classes that have a label of their own."""
        predicted_label = self._class_label(revision, predicted)
        actual_label = self._class_label(revision, actual)
        if actual != predicted and actual_label == predicted_label:
            actual_label = ANOTHER
        return revision, actual_label, predicted_label, attempt

    def _class_label(self, revision: str, name: str) -> str:
        """The class itself while its revision has fewer than MAX_CLASSES known ones, else OTHER.

        Every revision is taken to know this model's classes, so that pods agree on which have a label of their own.
        """
        known = self._classes.setdefault(revision, set(self._own_classes))
        if name in known:
            return name
        if len(known) >= MAX_CLASSES:
            return OTHER
        known.add(name)
        return name
