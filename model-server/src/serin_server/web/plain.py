"""Inference for the commonest request, with as few steps as it can have: the model's own outputs as JSON.

All plain requests that share a call of the model are answered together: their ids are made, and their rows counted, at
once. The answers, and what is counted, are those of `inference`, which also takes over when anything is otherwise.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import orjson

from serin_server.monitor.attempts import Attempt
from serin_server.protocol.datatypes import datatype_name, to_data
from serin_server.protocol.metadata import PREDICT
from serin_server.protocol.plain import PlainRequest, plain_features, read_plain
from serin_server.protocol.responses import to_json
from serin_server.protocol.tensors import InferRequest
from serin_server.runtime.batcher import OverloadedError
from serin_server.runtime.model import PredictionError, Predictions
from serin_server.serving.inquiry import CLIENT_GONE
from serin_server.serving.served import ServedModel
from serin_server.web.messages import JSON, Answer, Request

if TYPE_CHECKING:
    from serin_server.serving.inquiry import Inquiry
    from serin_server.web.inference import HttpInference

_ATTEMPT = Attempt.FIRST  # a request that a router repeats, or marks, is none of these


class PlainInference:
    """Takes the requests that it can answer, and leaves the others as they are."""

    @classmethod
    def of(cls, served: ServedModel, http: "HttpInference") -> Self | None:
        """None for a model whose default outputs are others, and when somebody looks at each answer."""
        features = plain_features(served.model.signature)
        if features is None or served.watchers or served.model.main != PREDICT:
            return None
        return cls(served, http, features)

    def __init__(self, served: ServedModel, http: "HttpInference", features: int) -> None:
        self._served = served
        self._http = http
        self._features = features
        self._begin = to_json({"model_name": served.name, "model_version": served.version})[:-1]
        self._middles: dict[str, bytes] = {}  # of an answer, by the datatype of its values

    def takes(self, request: Request, started: float) -> bool:
        """Whether it answers the request, now or when its predictions are there."""
        if request.attempt is not _ATTEMPT or not request.is_bare:
            return False
        plain = read_plain(request.body, self._features)
        if plain is None:
            return False
        request.body = b""  # not kept while the model computes
        call = PlainCall(self, request, plain, started)
        request.inquiry = call
        request.when_gone = call.gone
        try:
            self._served.batcher.submit(call)
        except OverloadedError as error:
            call.failed(error)
        return True

    def done(self, calls: Sequence["PlainCall"], whole: Predictions) -> None:
        """Answer all that share a call of the model."""
        try:
            if whole.outcomes is None or any(call.is_over for call in calls):
                _answer_each(calls, whole)
            else:
                self._answer_all(calls, whole, whole.outcomes)
        except Exception as error:  # noqa: BLE001 - a bug fails these requests only
            for call in calls:
                call.failed(error)

    def _answer_all(self, calls: Sequence["PlainCall"], whole: Predictions, outcomes: Sequence[Any]) -> None:
        served, headers, begin, clock = self._served, self._http.headers, self._begin, time.perf_counter
        now = time.time()
        ids = served.tokens.issue(outcomes, now, _ATTEMPT)
        served.count(outcomes, True, now, _ATTEMPT)
        datatype = datatype_name(whole.values)
        middle = self._middle(datatype)
        values = to_data(whole.values, datatype) if datatype == "BYTES" else whole.values.tolist()
        took: list[float] = []
        end = 0
        try:
            for call in calls:
                start, end = end, end + len(call.rows)
                shape = b"[%d]" % (end - start)
                body = b"".join(
                    (
                        begin,
                        b',"outputs":[{"name":"predict","shape":'
                        if call.id is None
                        else b',"id":%b,"outputs":[{"name":"predict","shape":' % to_json(call.id),
                        shape,
                        middle,
                        orjson.dumps(values[start:end]),
                        b'},{"name":"prediction_id","shape":',
                        shape,
                        b',"datatype":"BYTES","data":["',
                        '","'.join(ids[start:end]).encode(),
                        b'"]}]}',
                    )
                )
                call.is_over = True
                request = call.request
                request.when_gone = None
                request.reply(Answer(200, body, JSON, headers))
                took.append(clock() - call.started)
        finally:
            served.metrics.requests_done(200, _ATTEMPT, took)

    def _middle(self, datatype: str) -> bytes:
        found = self._middles.get(datatype)
        if found is None:
            found = self._middles[datatype] = b',"datatype":%s,"data":' % to_json(datatype)
        return found

    def inquiry(self, call: "PlainCall") -> "Inquiry":
        """The same request as all others are."""
        message = InferRequest(call.id, {}, (), None)
        inquiry = self._http.inquiry(call.request, call.started, message)
        inquiry.request, inquiry.rows, inquiry.waited = message, call.rows, call.waited
        inquiry.wanted, inquiry.extras = self._served.wanted(None)
        return inquiry

    def gone(self, call: "PlainCall") -> None:
        """The client of the call does not wait any more."""
        self._served.batcher.drop(call)
        self._served.metrics.request_done(CLIENT_GONE, _ATTEMPT, time.perf_counter() - call.started)


def _answer_each(calls: Sequence["PlainCall"], whole: Predictions) -> None:
    end = 0
    for call in calls:
        start, end = end, end + len(call.rows)
        outcomes = None if whole.outcomes is None else whole.outcomes[start:end]
        call.done(Predictions(whole.values[start:end], {}, outcomes))


class PlainCall:
    """One request on its way, as its lane, the batcher and the log see it. It has exactly one end, which is counted."""

    __slots__ = ("deadline", "id", "is_over", "lane", "request", "rows", "started", "waited")

    extras = ()

    def __init__(self, lane: PlainInference, request: Request, plain: PlainRequest, started: float) -> None:
        self.lane = lane
        self.request = request
        self.id, self.rows = plain
        self.started = started
        self.deadline = request.deadline
        self.waited = 0.0
        self.is_over = False

    @property
    def row_count(self) -> int:
        return len(self.rows)

    def gone(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.lane.gone(self)

    def done(self, predictions: Predictions) -> None:
        if not self.is_over:
            self.is_over = True
            self.lane.inquiry(self).done(predictions)

    def failed(self, error: PredictionError | Exception) -> None:
        if not self.is_over:
            self.is_over = True
            self.lane.inquiry(self).failed(error)

    def expired(self) -> None:
        self.is_over = True
        self.lane.inquiry(self).expired()
