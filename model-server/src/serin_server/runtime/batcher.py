"""Predictions for many requests at once: what arrived while the model was busy goes into its next call.

Nothing waits for others to come: a request that finds the model free is computed at once. Calls of a model that is
quick run on the event loop, since handing them to a thread would take as long as they do. All others run in one
thread (models need not be safe to call from several), so that health checks are answered meanwhile.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from serin_server.monitor.activity import Activity
from serin_server.protocol.rows import Rows, kind, together
from serin_server.runtime.acceleration.scout import AwayError
from serin_server.runtime.model import Model, PredictionError, Predictions

# A model is quick while a call takes less than this on average; it must be clearly quicker to become so.
_QUICK_SECONDS = 0.0005
_NOT_QUICK_SECONDS = 0.001
# The average before the first call, and the weight of a new call in it: about 50 calls show that a model is quick, and
# one of 20 ms that it is not.
_ASSUMED_SECONDS = 0.01
_WEIGHT = 1 / 16
# Calls are judged by the CPU time they take, since their thread waits for others on a busy machine. A wait longer than
# this is the model's own: it sleeps, or asks somebody.
_OWN_WAIT_SECONDS = 0.02
# Rows of one call, as long as they come from several requests. A request with more is computed alone, in the thread.
BATCH_ROWS = 256


class OverloadedError(Exception):
    """As many calls as allowed already run or wait."""


class Call(Protocol):
    """A prediction that somebody waits for. Calls are hashed by identity."""

    @property
    def rows(self) -> Rows: ...

    @property
    def extras(self) -> Sequence[str]:
        """The outputs beside the model's main one, in an order that is the same for the same outputs."""

    @property
    def deadline(self) -> float | None:
        """When nobody waits any more, in seconds of time.perf_counter."""

    @property
    def lane(self) -> "Lane | None":
        """Who takes its predictions together with those of the other calls of that lane, None for itself."""

    waited: float
    """Seconds from `submit` to the model's call; set by the batcher before one of the next three is called."""

    def done(self, predictions: Predictions) -> None:
        """Called on the event loop, as are the next two; exactly one of the three is called, once."""

    def failed(self, error: PredictionError) -> None: ...

    def expired(self) -> None:
        """The deadline passed before the model was free."""


class Lane(Protocol):
    """Calls whose rows are of one kind, a matrix, and that want the main output alone."""

    def done(self, calls: Sequence[Any], whole: Predictions) -> None:
        """Called instead of the calls' own `done`, with the predictions of all of them in their order."""


class Batcher:
    """Calls one model for all requests. It belongs to the event loop's thread."""

    def __init__(self, model: Model, max_in_flight: int, activity: Activity | None = None) -> None:
        """At most `max_in_flight` calls run or wait; `activity` counts the model's."""
        self._model = model
        self._activity = activity or Activity("", "")
        self._max_in_flight = max_in_flight
        self._waiting: dict[Call, float] = {}  # since when, in order; a dict, since calls leave from the middle
        self._computing = 0
        self._turn_is_due = False
        self._average = _ASSUMED_SECONDS
        self._quick = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="predict", initializer=prepare_thread)

    def submit(self, call: Call) -> None:
        """Have it computed. Raises OverloadedError."""
        if len(self._waiting) + self._computing >= self._max_in_flight:
            raise OverloadedError
        self._waiting[call] = time.perf_counter()
        if not self._computing:
            self._request_turn()

    @property
    def waiting(self) -> int:
        """Calls that wait for the model."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Calls that wait or are being computed."""
        return len(self._waiting) + self._computing

    def drop(self, call: Call) -> None:
        """Forget a call whose client has gone. One that is being computed comes to its end all the same."""
        self._waiting.pop(call, None)

    def _request_turn(self) -> None:
        """Compute after what has arrived on all connections in this turn of the event loop was read."""
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        batch, rows = self._next_batch()
        if not batch:
            return
        self._computing = len(batch)
        if self._quick and rows <= BATCH_ROWS:
            try:
                computed = self._compute(batch)
            except AwayError:
                pass  # the thread can wait for what is missing
            else:
                self._finish(batch, rows, *computed)
                return
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._compute, batch)
        future.add_done_callback(lambda done: self._finish(batch, rows, *done.result()))

    def _next_batch(self) -> tuple[list[Call], int]:
        """The next calls that fit into one of the model's, in order, and the number of their rows."""
        now = time.perf_counter()
        batch: list[Call] = []
        rows = 0
        for call, since in list(self._waiting.items()):
            call.waited = now - since
            if call.deadline is not None and call.deadline <= now:
                del self._waiting[call]
                call.expired()
                continue
            more = len(call.rows)
            if batch and (rows + more > BATCH_ROWS or not self._model.batches or not _alike(call, batch[0])):
                break
            del self._waiting[call]
            self._activity.waited(call.waited)
            batch.append(call)
            rows += more
        return batch, rows

    def _compute(self, batch: Sequence[Call]) -> tuple[list[Predictions | PredictionError], float, float]:
        """One result a call, the seconds that they took, and of them the model's own. A lane's calls have one together.

        A call that fails does not fail those beside it.
        """
        started, cpu_started = time.perf_counter(), time.thread_time()
        results: list[Predictions | PredictionError]
        parts = [call.rows for call in batch]
        try:
            if batch[0].lane is None:
                results = list(self._model.predict_all(parts, batch[0].extras))
            else:
                results = [self._model.predict(parts[0] if len(parts) == 1 else together(parts))]
        except PredictionError as error:
            results = [error] if len(batch) == 1 else [result for call in batch for result in self._compute([call])[0]]
        seconds = time.perf_counter() - started
        return results, seconds, seconds if seconds > _OWN_WAIT_SECONDS else time.thread_time() - cpu_started

    def _finish(
        self,
        batch: Sequence[Call],
        rows: int,
        results: Sequence[Predictions | PredictionError],
        seconds: float,
        own: float,
    ) -> None:
        self._computing = 0
        self._activity.called(rows, seconds)
        self._learn(own)
        if self._waiting:
            self._request_turn()
        lane = batch[0].lane
        if lane is not None and len(results) == 1 and isinstance(results[0], Predictions):
            lane.done(batch, results[0])
            return
        for call, result in zip(batch, results, strict=True):
            if isinstance(result, Predictions):
                call.done(result)
            else:
                call.failed(result)

    def _learn(self, seconds: float) -> None:
        self._average += (seconds - self._average) * _WEIGHT
        self._quick = self._average < (_NOT_QUICK_SECONDS if self._quick else _QUICK_SECONDS)


def _alike(one: Call, other: Call) -> bool:
    """Whether the model computes the same for both in one call as in two."""
    if one.lane is not other.lane:
        return False
    return one.lane is not None or (one.extras == other.extras and kind(one.rows) == kind(other.rows))


def prepare_thread() -> None:
    """Spare scikit-learn checks in this thread: requests are checked for NaN and infinities once, when decoded."""
    sklearn = sys.modules.get("sklearn")
    if sklearn is not None:  # a model that needs it has imported it
        sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
