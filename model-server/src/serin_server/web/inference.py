"""The way of one inference request: decode, predict, count, encode."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.protocol import responses
from serin_server.protocol.datatypes import Array
from serin_server.protocol.errors import RequestError, invalid
from serin_server.protocol.requests import parse_request, to_matrix
from serin_server.runtime.batcher import Batcher, OverloadedError
from serin_server.runtime.model import Model, PredictionError, Predictions
from serin_server.web.messages import RETRY_LATER, Answer, ClientGoneError, Request

log = logging.getLogger(__name__)

PREDICT = "predict"
PROBABILITIES = "predict_proba"
PREDICTION_ID = "prediction_id"

CLIENT_GONE = 499


@dataclass(frozen=True)
class Inference:
    """Answers inference requests for one model and counts them."""

    model: Model
    batcher: Batcher
    tokens: Tokens
    metrics: Metrics
    name: str
    version: str
    revision: str
    max_body_bytes: int

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What every answer carries, also the refusals."""
        return ((b"x-serin-revision", self.revision.encode()),)

    def answer(self, request: Request) -> None:
        """Answer a request in every case, now or when its predictions are there."""
        _Inquiry(self, request).begin()

    def encode(self, inquiry: "_Inquiry", predictions: Predictions) -> bytes:
        """The body of an answer; counts the rows in it. Raises RequestError."""
        wanted, asked, retry = inquiry.wanted, inquiry.asked, inquiry.request.retry
        outcomes = predictions.outcomes
        if outcomes is None and asked and PREDICTION_ID in wanted:
            raise invalid(f"there is no {PREDICTION_ID}: the model predicts several values a row, which no label fits")
        now = time.time()
        outputs = [self._output(name, predictions, now, retry) for name in wanted]
        self._count(outcomes, PREDICTION_ID in wanted, now, retry)
        return responses.infer_response(
            {"model_name": self.name, "model_version": self.version},
            inquiry.id,
            [output for output in outputs if output is not None],
        )

    def wanted(self, outputs: Sequence[str] | None) -> Sequence[str]:
        """The names of the outputs to answer. Raises RequestError."""
        if outputs is None:
            return (PREDICT, PREDICTION_ID)
        for name in outputs:
            if name not in (PREDICT, PROBABILITIES, PREDICTION_ID):
                raise invalid(f"there is no output {name!r}: use {PREDICT}, {PROBABILITIES} or {PREDICTION_ID}")
        if PROBABILITIES in outputs and not self.model.has_probabilities:
            raise invalid(f"the model has no {PROBABILITIES}")
        return tuple(dict.fromkeys(outputs))

    def _output(self, name: str, predictions: Predictions, now: float, retry: bool) -> dict[str, object] | None:
        if name == PREDICT:
            return responses.output(name, predictions.values)
        if name == PROBABILITIES and predictions.probabilities is not None:
            return responses.output(name, predictions.probabilities)
        if name == PREDICTION_ID and predictions.outcomes is not None:
            return responses.strings(name, self.tokens.issue(predictions.outcomes, now, retry))
        return None

    def _count(self, outcomes: Sequence[Outcome] | None, with_ids: bool, now: float, retry: bool) -> None:
        """Count rows with ids, and predicted classes; values of a regression have no bounded set of labels."""
        if outcomes is None:
            return
        attempt = "retry" if retry else "first"
        if with_ids:
            self.metrics.issued(len(outcomes), attempt, now)
        if outcomes[0].kind is not Kind.QUANTITY:
            one = len(outcomes) == 1
            rows = {outcomes[0].text: 1} if one else Counter(outcome.text for outcome in outcomes)
            self.metrics.predicted(rows.items(), attempt)


class _Inquiry:
    """One inference request on its way. Exactly one of its ends is reached, and counted."""

    __slots__ = (
        "_inference",
        "_is_over",
        "_started",
        "asked",
        "id",
        "matrix",
        "request",
        "wanted",
        "with_probabilities",
    )

    matrix: Array
    with_probabilities: bool

    def __init__(self, inference: Inference, request: Request) -> None:
        self._inference = inference
        self.request = request
        # Until the body is there, time passes on the client's account.
        self._started = time.perf_counter() if request.complete else request.begun
        self._is_over = False
        self.id: str | None = None
        self.wanted: Sequence[str] = ()
        self.asked = False

    @property
    def deadline(self) -> float | None:
        return self.request.deadline

    def begin(self) -> None:
        inference, request = self._inference, self.request
        try:
            message = parse_request(request.read(inference.max_body_bytes))
            self.id = message.id
            self.asked = message.outputs is not None
            self.wanted = inference.wanted(message.outputs)
            self.with_probabilities = PROBABILITIES in self.wanted
            self.matrix = to_matrix(message.inputs, inference.model.signature)
            request.when_gone = self._gone
            inference.batcher.submit(self)
        except Exception as error:  # noqa: BLE001 - told apart in one place; a bug fails one request only
            self._end(error)

    def done(self, predictions: Predictions) -> None:
        if self._is_over:
            return
        try:
            body = self._inference.encode(self, predictions)
        except Exception as error:  # noqa: BLE001 - as above
            self._end(error)
        else:
            self._answer(200, body)

    def failed(self, error: PredictionError) -> None:
        if not self._is_over:
            self._end(error)

    def expired(self) -> None:
        self._answer(504, responses.error_body("the request's deadline passed before the model was free"))

    def _gone(self) -> None:
        self._inference.batcher.drop(self)
        if not self._is_over:
            self._count(CLIENT_GONE)

    def _end(self, error: Exception) -> None:
        if isinstance(error, RequestError):
            self._answer(error.status, responses.error_body(error.message))
        elif isinstance(error, OverloadedError):
            message = "the server has as many requests as it takes at once; try again"
            self._answer(503, responses.error_body(message), *RETRY_LATER)
        elif isinstance(error, ClientGoneError):
            self._count(CLIENT_GONE)
        elif isinstance(error, PredictionError):
            self._log("the model failed", error)
            self._answer(500, responses.error_body(f"the model failed: {error}"))
        else:
            self._log("internal error", error)
            self._answer(500, responses.error_body("internal error"))

    def _answer(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self._count(status)
        self.request.reply(Answer(status, body, headers=(*self._inference.headers, *headers)))

    def _count(self, code: int) -> None:
        self._is_over = True
        self.request.when_gone = None  # no circle is left for the garbage collector
        attempt = "retry" if self.request.retry else "first"
        self._inference.metrics.request_done(code, attempt, time.perf_counter() - self._started)

    def _log(self, message: str, error: Exception) -> None:
        log.error(message, exc_info=error, extra={"fields": {"request_id": self.request.request_id}})
