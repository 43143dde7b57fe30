"""Inference over HTTP: a request's body becomes tensors, and tensors become an answer's body."""

import time
from dataclasses import dataclass
from functools import cached_property

from serin_server.protocol import responses
from serin_server.protocol.errors import invalid
from serin_server.protocol.requests import binary_outputs, parse_request
from serin_server.protocol.tensors import InferRequest, InferResponse
from serin_server.serving.inquiry import Inquiry
from serin_server.serving.served import ServedModel
from serin_server.web.messages import RETRY_LATER, Answer, Request
from serin_server.web.plain import PlainInference


@dataclass(frozen=True)
class HttpInference:
    """Answers inference requests for one model."""

    served: ServedModel
    max_body_bytes: int

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What every answer carries, also the refusals."""
        return ((b"x-serin-revision", self.served.revision.encode()),)

    def answer(self, request: Request) -> None:
        """Answer a request in every case, now or when its predictions are there."""
        started = time.perf_counter() if request.complete else request.begun
        if self._plain is not None and self._plain.takes(request, started):
            return
        inquiry = self.inquiry(request, started)
        if not request.gone:
            request.when_gone = inquiry.gone
        inquiry.begin()

    @cached_property
    def _plain(self) -> PlainInference | None:
        return PlainInference.of(self.served, self)

    def inquiry(self, request: Request, started: float, message: InferRequest | None = None) -> Inquiry:
        """The way of the request to its one end. `message` is what it says, if that was read already."""
        inquiry = Inquiry(
            self.served,
            _HttpCaller(self, request, message),
            started=started,
            deadline=request.deadline,
            attempt=request.attempt,
            request_id=request.request_id,
            trace_id=None if request.trace is None else request.trace.trace_id,
        )
        inquiry.shared_by = request.shared_by
        request.inquiry = inquiry
        return inquiry


class _HttpCaller:
    """One request, as its inquiry sees it."""

    __slots__ = ("_http", "_message", "_request")

    _message: InferRequest

    def __init__(self, http: HttpInference, request: Request, message: InferRequest | None) -> None:
        self._http = http
        self._request = request
        if message is not None:
            self._message = message

    def read(self) -> InferRequest:
        request = self._request
        body = request.read(self._http.max_body_bytes)
        header = request.inference_header
        self._message = parse_request(body) if header is None else parse_request(body, _length(header))
        return self._message

    def answered(self, response: InferResponse) -> None:
        headers = self._http.headers
        binary = binary_outputs(self._message, [output.name for output in response.outputs])
        body, length = responses.infer_response(response, binary)
        if length is None:
            self._reply(Answer(200, body, headers=headers))
        else:
            headers = (*headers, (b"inference-header-content-length", str(length).encode()))
            self._reply(Answer(200, body, b"application/octet-stream", headers))

    def refused(self, status: int, message: str) -> None:
        headers = (*self._http.headers, *RETRY_LATER) if status == 503 else self._http.headers
        self._reply(Answer(status, responses.error_body(message), headers=headers))

    def _reply(self, answer: Answer) -> None:
        self._request.when_gone = None  # no circle is left for the garbage collector
        self._request.reply(answer)


def _length(header: bytes) -> int:
    if not header.isdigit():
        raise invalid(f"Inference-Header-Content-Length is {header.decode('latin-1')!r}, not a number of bytes")
    return int(header)
