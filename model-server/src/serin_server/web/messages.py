"""A request as a handler sees it, and the answer as it goes over the wire."""

import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple, Protocol

from serin_server.monitor.attempts import COUNT_HEADER, TESTER_HEADER, Attempt, attempt_of
from serin_server.protocol.errors import ClientGoneError, RequestError
from serin_server.serving.copies import MARK_HEADER, shared_by_http
from serin_server.tracing import Trace, parse_traceparent

JSON = b"application/json"
RETRY_LATER = ((b"retry-after", b"1"),)

# Shorter bodies fit into one packet anyway.
_WORTH_COMPRESSING = 1024
_GZIP = 16 + zlib.MAX_WBITS
_FASTEST = 1

# Of a timeout. Longer numbers, which no float holds, are no timeouts.
_MOST_DIGITS = 15
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class Answer(NamedTuple):
    """A response ready to be sent."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Inquired(Protocol):
    """What is told of an inference afterwards."""

    @property
    def row_count(self) -> int | None:
        """Rows of the request, None when it was not understood."""

    @property
    def waited(self) -> float:
        """Seconds for the model."""


def _nowhere(_request: "Request") -> None:
    """Where a request goes before its connection says so."""


class Request:
    """One request of a connection.

    `when_gone` is called once when the client goes away before the answer; an answer after that is thrown away.
    All times are of time.perf_counter, in seconds.
    """

    # What most requests have is the class's: to set all of it would take longer than to read the headers.
    body = b""
    complete = False  # read in full
    gone = False
    answer: Answer | None = None
    when_gone: Callable[[], None] | None = None
    problem: RequestError | None = None  # why the body cannot be had
    keep_alive = True
    is_head = False
    method = target = b""
    size = 0  # bytes of the body as it came
    held = 0  # of them those that count against what the server may hold
    inquiry: Inquired | None = None  # what the log tells of an inference
    expects = False  # the client waits for 100 Continue before it sends the body
    # From the headers.
    attempt_count = b"1"
    tester = False
    request_id: str | None = None
    shadowed = False  # two revisions answer it, and their answers are compared
    trace: Trace | None = None
    timeout: float | None = None
    zipped = False
    unsupported: str | None = None
    inference_header: bytes | None = None  # the length of the JSON before binary data
    accepts_gzip = False

    def __init__(self, on_answer: Callable[["Request"], None] = _nowhere) -> None:
        self._on_answer = on_answer
        self.begun = time.perf_counter()

    @property
    def is_bare(self) -> bool:
        """Whether its body is there, in full and as it is, and nothing else says how to answer it."""
        return (
            self.complete
            and self.problem is None
            and self.inference_header is None
            and not self.zipped
            and self.unsupported is None
            and not self.shadowed
            and not self.gone
        )

    @property
    def shared_by(self) -> str | None:
        """What it has in common with its copy; None where it is not marked."""
        return shared_by_http(self.request_id, self.body) if self.shadowed else None

    @property
    def attempt(self) -> Attempt:
        """What the router says of it."""
        return attempt_of(self.attempt_count, self.tester)

    @property
    def deadline(self) -> float | None:
        """When nobody waits for the answer any more."""
        return None if self.timeout is None else self.begun + self.timeout

    def reply(self, answer: Answer) -> None:
        """Answer the request, now or after those that came before it on its connection."""
        if not self.gone:
            self.answer = answer
            self._on_answer(self)

    def lose(self) -> None:
        """Note that the client went away."""
        self.gone = True
        when_gone, self.when_gone = self.when_gone, None  # no circle is left for the garbage collector
        if when_gone is not None:
            when_gone()

    def read(self, limit: int) -> bytes:
        """The body, at most `limit` bytes; to be called once. Raises RequestError or ClientGoneError."""
        if self.problem is not None:
            raise self.problem
        if not self.complete:
            raise ClientGoneError
        if self.unsupported is not None:
            raise RequestError(415, f"{self.unsupported} is not supported: send plain JSON")
        body, self.body = self.body, b""  # not kept while the model computes
        return _unzipped(body, limit) if self.zipped else body

    # --- headers -------------------------------------------------------------------------------------------

    def take_attempt_count(self, value: bytes) -> None:
        self.attempt_count = value

    def take_tester(self, _value: bytes) -> None:
        self.tester = True

    def take_request_id(self, value: bytes) -> None:
        self.request_id = value.decode("latin-1")

    def take_shadow_mark(self, _value: bytes) -> None:
        self.shadowed = True

    def take_traceparent(self, value: bytes) -> None:
        self.trace = parse_traceparent(value)

    def take_timeout(self, value: bytes) -> None:
        """Milliseconds, as Envoy sends them. What is no number is as good as absent."""
        if value.isdigit() and len(value) <= _MOST_DIGITS:
            self.timeout = int(value) / 1000

    def take_grpc_timeout(self, value: bytes) -> None:
        """A number with a unit, as gRPC clients send it."""
        if value[:-1].isdigit() and value[-1:] in _GRPC_UNITS and len(value) <= _MOST_DIGITS:
            self.timeout = int(value[:-1]) * _GRPC_UNITS[value[-1:]]

    def take_encoding(self, value: bytes) -> None:
        encoding = value.strip().lower()
        if encoding in (b"gzip", b"x-gzip"):
            self.zipped = True
        elif encoding != b"identity":
            self.unsupported = f"content-encoding: {value.decode('latin-1')}"

    def take_header_length(self, value: bytes) -> None:
        self.inference_header = value

    def take_accepted(self, value: bytes) -> None:
        for offer in value.lower().split(b","):
            coding, _, weight = offer.partition(b";")
            if coding.strip() in (b"gzip", b"*"):
                self.accepts_gzip = weight.replace(b" ", b"").rstrip(b"0") not in (b"q=", b"q=0.")
                return

    def take_expectation(self, value: bytes) -> None:
        self.expects = value.lower() == b"100-continue"


# The headers that mean something to the server, by their lower-case names.
HEADERS: dict[bytes, Callable[[Request, bytes], None]] = {
    COUNT_HEADER.encode(): Request.take_attempt_count,
    TESTER_HEADER.encode(): Request.take_tester,
    b"x-envoy-expected-rq-timeout-ms": Request.take_timeout,
    b"grpc-timeout": Request.take_grpc_timeout,
    b"x-request-id": Request.take_request_id,
    MARK_HEADER.encode(): Request.take_shadow_mark,
    b"traceparent": Request.take_traceparent,
    b"content-encoding": Request.take_encoding,
    b"inference-header-content-length": Request.take_header_length,
    b"accept-encoding": Request.take_accepted,
    b"expect": Request.take_expectation,
}


def _unzipped(body: bytes, limit: int) -> bytes:
    decoder = zlib.decompressobj(_GZIP)
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not gzip: {error}") from None
    if len(plain) > limit:
        raise RequestError(413, f"the body has more than {limit} bytes when decompressed, the limit is {limit}")
    if not decoder.eof or decoder.unused_data:
        raise RequestError(400, "the body is not one whole gzip stream")
    return plain


def rendered(request: Request, answer: Answer, close: bool) -> bytes:
    """The answer as bytes; `close` tells the client that the connection ends with it."""
    body, headers = answer.body, answer.headers
    if request.accepts_gzip and len(body) > _WORTH_COMPRESSING:
        encoder = zlib.compressobj(_FASTEST, wbits=_GZIP)
        body = encoder.compress(body) + encoder.flush()
        headers = (*headers, (b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
    return b"%s%d%s\r\n\r\n%s" % (
        _head(answer.status, answer.content_type, headers, close),
        len(body),
        # Not among the headers that `_head` remembers: it differs in every answer.
        b"" if request.trace is None else b"\r\ntraceresponse: " + request.trace.response,
        b"" if request.is_head else body,
    )


@lru_cache(256)
def _head(status: int, content_type: bytes, headers: tuple[tuple[bytes, bytes], ...], close: bool) -> bytes:
    """Everything up to the number of the body's bytes: the same for nearly all answers."""
    fields = [(b"content-type", content_type), *headers]
    if close:
        fields.append((b"connection", b"close"))
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode(),
        *(b"%s: %s" % field for field in fields),
        b"content-length: ",
    ]
    return b"\r\n".join(lines)
