"""How busy one process is: its model's calls, its queue, its connections, and what it turned away."""

from collections.abc import Callable
from enum import StrEnum

from serin_server.monitor.exposition import head, labels, number
from serin_server.monitor.histogram import Histogram

ROW_BUCKETS = tuple(float(2**power) for power in range(13))
# From ten microseconds, which a small model takes, to what no client waits for.
SECONDS_BUCKETS = (
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1, 2.5, 5, 10, 30,
)  # fmt: skip


class Refused(StrEnum):
    """Why a request was turned away: the metric's `reason`."""

    OVERLOAD = "overload"
    DEADLINE = "deadline"
    TOO_LARGE = "too_large"
    SLOW_CLIENT = "slow_client"
    UPLOADS = "uploads"
    CONNECTIONS = "connections"


class Activity:
    """Belongs to the event loop's thread. The parent of several processes has one too, in which nothing happens."""

    def __init__(self, model: str, revision: str) -> None:
        names = ("model", "revision")
        self._own = labels(model=model, revision=revision)
        self._rows = Histogram("serin_model_call_rows", "Rows that the model computed in one call.", ROW_BUCKETS, names)
        self._seconds = Histogram(
            "serin_model_call_seconds", "Seconds that a call of the model took.", SECONDS_BUCKETS, names
        )
        self._queue = Histogram(
            "serin_queue_seconds", "Seconds that a request waited for the model.", SECONDS_BUCKETS, names
        )
        self._call_rows = self._rows.labels(model, revision)
        self._call_seconds = self._seconds.labels(model, revision)
        self.waited = self._queue.labels(model, revision).observe  # called for each request, with seconds
        self._refused = dict.fromkeys(Refused, 0)
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def called(self, rows: int, seconds: float) -> None:
        """Count a call of the model."""
        self._call_rows.observe(rows)
        self._call_seconds.observe(seconds)

    def refused(self, reason: Refused) -> None:
        """Count a request, or a connection, that was turned away."""
        self._refused[reason] += 1

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Tell from now on what `read` returns, with each scrape; over several processes it must add up."""
        self._gauges[name] = (text, read)

    def render(self) -> str:
        """All of it in Prometheus' text format."""
        pieces = [self._rows.render(), self._seconds.render(), self._queue.render()]
        pieces.append(head("serin_refused_total", "counter", "Requests and connections turned away, by reason."))
        pieces += (f'serin_refused_total{{{self._own},reason="{key}"}} {n}.0\n' for key, n in self._refused.items())
        for name, (text, read) in self._gauges.items():
            pieces.append(f"{head(name, 'gauge', text)}{name}{{{self._own}}} {number(read())}\n")
        return "".join(pieces)
