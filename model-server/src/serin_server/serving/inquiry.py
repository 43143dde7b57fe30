"""The life of one inference request, from its decoding to its one end."""

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from serin_server.monitor.activity import Refused
from serin_server.monitor.attempts import Attempt
from serin_server.protocol.datatypes import Array
from serin_server.protocol.errors import ClientGoneError, RequestError
from serin_server.protocol.requests import to_rows
from serin_server.protocol.rows import Columns, Rows
from serin_server.protocol.tensors import InferRequest, InferResponse
from serin_server.runtime.batcher import OverloadedError
from serin_server.runtime.model import PredictionError, Predictions
from serin_server.serving.served import ServedModel

log = logging.getLogger(__name__)

CLIENT_GONE = 499
_REASONS = {408: Refused.SLOW_CLIENT, 413: Refused.TOO_LARGE}


class Caller(Protocol):
    """Who waits for an inference: one request of some transport. Exactly one of its last two methods is called, once.

    All are called on the event loop. A caller whose client goes away calls the inquiry's `gone`, and hears no more.
    """

    def read(self) -> InferRequest:
        """Decode the request. Raises RequestError, or ClientGoneError when the client went before its end."""

    def answered(self, response: InferResponse) -> None:
        """Encode and send the answer. Raises RequestError when it cannot be encoded as the client asked."""

    def refused(self, status: int, message: str) -> None:
        """Send an error; `status` is HTTP's, other transports have their own for each."""


class Inquiry:
    """One inference request on its way. Exactly one of its ends is reached, and counted.

    Times are of time.perf_counter, in seconds. `started` is when the request was there in full: until then time passes
    on the client's account. `attempt` is what a router says of it. `request_id` and `trace_id`
    are for the log.
    """

    __slots__ = (
        "_caller",
        "_is_over",
        "_served",
        "attempt",
        "deadline",
        "extras",
        "predictions",
        "request",
        "request_id",
        "rows",
        "shared_by",
        "started",
        "trace_id",
        "waited",
        "wanted",
    )

    request: InferRequest
    rows: Rows
    predictions: Predictions
    wanted: Sequence[str]
    extras: Sequence[str]
    lane = None  # each takes its predictions itself

    def __init__(
        self,
        served: ServedModel,
        caller: Caller,
        *,
        started: float,
        deadline: float | None,
        attempt: Attempt,
        request_id: str | None,
        trace_id: str | None = None,
    ) -> None:
        self._served = served
        self._caller = caller
        self._is_over = False
        self.started = started
        self.deadline = deadline
        self.attempt = attempt
        self.request_id = request_id
        self.trace_id = trace_id
        self.shared_by: str | None = None  # what it has in common with its copy, which another revision answers
        self.waited = 0.0  # for the model, in seconds

    @property
    def names(self) -> dict[str, str | None]:
        """What a log tells a request from others by."""
        return {"request_id": self.request_id, "trace_id": self.trace_id}

    @property
    def row_count(self) -> int | None:
        """Rows of the request, None when it was not understood."""
        rows = getattr(self, "rows", None)
        return None if rows is None else len(rows)

    @property
    def matrix(self) -> Array:
        """What the model computes on as one array, rows first."""
        return self.rows.matrix() if isinstance(self.rows, Columns) else self.rows

    def begin(self) -> None:
        """Answer the request in every case, now or when its predictions are there."""
        served = self._served
        try:
            self.request = self._caller.read()
            self.wanted, self.extras = served.wanted(self.request.outputs)
            self.rows = to_rows(self.request.inputs, served.model.signature)
            served.batcher.submit(self)
        except Exception as error:  # noqa: BLE001 - told apart in one place; a bug fails one request only
            self._end(error)

    def gone(self) -> None:
        """The client does not wait any more."""
        self._served.batcher.drop(self)
        if not self._is_over:
            self._count(CLIENT_GONE)

    # --- the batcher's side --------------------------------------------------------------------------------

    def done(self, predictions: Predictions) -> None:
        if self._is_over:
            return
        self.predictions = predictions
        try:
            response = self._served.respond(self)
            self._caller.answered(response)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(error)
        else:
            self._count(200)
            for watcher in self._served.watchers:
                watcher.answered(self, response)
            if self.shared_by is not None and self._served.shadow is not None:
                self._served.shadow.answered(self, response)

    def failed(self, error: Exception) -> None:
        """End with the answer that tells of the error."""
        if not self._is_over:
            self._end(error)

    def expired(self) -> None:
        self._turned_away(Refused.DEADLINE)
        self._refuse(504, "the request's deadline passed before the model was free")

    # --- ends ----------------------------------------------------------------------------------------------

    def _end(self, error: Exception) -> None:
        if isinstance(error, RequestError):
            if error.status in _REASONS:
                self._turned_away(_REASONS[error.status])
            self._refuse(error.status, error.message)
        elif isinstance(error, OverloadedError):
            self._turned_away(Refused.OVERLOAD)
            self._refuse(503, "the server has as many requests as it takes at once; try again")
        elif isinstance(error, ClientGoneError):
            self._count(CLIENT_GONE)
        elif isinstance(error, PredictionError):
            self._log("the model failed", error)
            self._refuse(500, f"the model failed: {error}")
        else:
            self._log("internal error", error)
            self._refuse(500, "internal error")

    def _refuse(self, status: int, message: str) -> None:
        self._count(status)
        self._caller.refused(status, message)

    def _turned_away(self, reason: Refused) -> None:
        self._served.metrics.activity.refused(reason)

    def _count(self, code: int) -> None:
        self._is_over = True
        self._served.metrics.request_done(code, self.attempt, time.perf_counter() - self.started)

    def _log(self, message: str, error: Exception) -> None:
        log.error(message, exc_info=error, extra={"fields": self.names})
