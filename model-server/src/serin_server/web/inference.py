"""The way of one inference request: decode, predict, count, encode."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.protocol import responses
from serin_server.protocol.errors import RequestError, invalid
from serin_server.protocol.requests import parse_request, to_matrix
from serin_server.runtime.model import Model, PredictionError, Predictions
from serin_server.runtime.worker import OverloadedError, Worker
from serin_server.web.exchange import (
    Answer,
    ClientGoneError,
    Receive,
    RequestHeaders,
    read_body,
    until_gone,
)

log = logging.getLogger(__name__)

PREDICT = "predict"
PROBABILITIES = "predict_proba"
PREDICTION_ID = "prediction_id"

CLIENT_GONE = 499


@dataclass(frozen=True)
class Inference:
    """Answers inference requests for one model and counts them."""

    model: Model
    worker: Worker
    tokens: Tokens
    metrics: Metrics
    name: str
    version: str
    revision: str
    max_body_bytes: int

    async def answer(self, headers: RequestHeaders, receive: Receive) -> Answer | None:
        """Answer a request in every case; None when the client has gone."""
        attempt = "retry" if headers.retry else "first"
        # Until the body is there, time passes on the client's account.
        started = time.perf_counter()
        answer: Answer | None = None
        try:
            body = await read_body(headers, receive, self.max_body_bytes)
            started = time.perf_counter()
            answer = self._with_revision(200, await self._infer(body, headers, receive))
        except RequestError as error:
            answer = self._with_revision(error.status, responses.error_body(error.message))
        except OverloadedError:
            message = "the server has as many requests as it takes at once; try again"
            answer = self._with_revision(503, responses.error_body(message), (b"retry-after", b"1"))
        except PredictionError as error:
            self._log_failure("the model failed", headers, error)
            answer = self._with_revision(500, responses.error_body(f"the model failed: {error}"))
        except ClientGoneError:
            answer = None
        except Exception as error:  # noqa: BLE001 - a bug fails one request, and is logged and counted
            self._log_failure("internal error", headers, error)
            answer = self._with_revision(500, responses.error_body("internal error"))
        code = answer.status if answer else CLIENT_GONE
        self.metrics.request_done(code, attempt, time.perf_counter() - started)
        return answer

    async def _infer(self, body: bytes, headers: RequestHeaders, receive: Receive) -> bytes:
        request = parse_request(body)
        wanted = self._wanted(request.outputs)
        matrix = to_matrix(request.inputs, self.model.signature)
        with_probabilities = PROBABILITIES in wanted
        future = self.worker.submit(lambda: self.model.predict(matrix, with_probabilities))
        predictions = await _unless_gone(future, receive)
        if predictions.outcomes is None and request.outputs is not None and PREDICTION_ID in wanted:
            raise invalid(f"there is no {PREDICTION_ID}: the model predicts several values a row, which no label fits")
        now = time.time()
        outputs = [self._output(name, predictions, now, headers.retry) for name in wanted]
        self._count(predictions.outcomes, PREDICTION_ID in wanted, now, headers.retry)
        return responses.infer_response(
            {"model_name": self.name, "model_version": self.version},
            request.id,
            [output for output in outputs if output is not None],
        )

    def _wanted(self, outputs: Sequence[str] | None) -> Sequence[str]:
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
            rows = Counter(outcome.text for outcome in outcomes)
            self.metrics.predicted(rows.items(), attempt)

    def _with_revision(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
        return Answer(status, body, headers=((b"x-serin-revision", self.revision.encode()), *headers))

    def _log_failure(self, message: str, headers: RequestHeaders, error: Exception) -> None:
        log.error(message, exc_info=error, extra={"fields": {"request_id": headers.request_id}})


async def _unless_gone(future: "asyncio.Future[Predictions]", receive: Receive) -> Predictions:
    """Wait for the predictions. When the client closes the connection first, raises ClientGoneError.

    A call that still waits for the worker is dropped then, so that retries of impatient clients do not pile
    up.
    """
    watcher = asyncio.create_task(until_gone(receive))
    watcher.add_done_callback(lambda _watcher: future.cancel())
    try:
        return await future
    except asyncio.CancelledError:
        if watcher.done():
            raise ClientGoneError from None
        raise
    finally:
        watcher.cancel()
