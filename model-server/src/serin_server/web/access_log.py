"""One line of the log for an answer: a sample of all, and errors of the server's."""

import logging
import random
import time
import zlib
from typing import Protocol

from serin_server.monitor.attempts import Attempt
from serin_server.tracing import Trace
from serin_server.web.messages import Inquired

log = logging.getLogger(__name__)

# Asked for all the time by machines that take any answer.
_QUIET = (
    b"/v2/health/",
    b"/metrics",
    b"/grpc.health.v1.Health/",
    b"/inference.GRPCInferenceService/ServerLive",
    b"/inference.GRPCInferenceService/ServerReady",
)


class Answered(Protocol):
    """What a line tells of a request, of whatever transport; `begun` is of time.perf_counter, `size` its body's."""

    @property
    def method(self) -> bytes: ...
    @property
    def target(self) -> bytes: ...
    @property
    def begun(self) -> float: ...
    @property
    def size(self) -> int: ...
    @property
    def attempt(self) -> Attempt: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def trace(self) -> Trace | None: ...
    @property
    def inquiry(self) -> Inquired | None: ...


class AccessLog:
    """`sample` is the share of requests that are logged, from 0 to 1.

    The same requests are chosen by every server: a trace's, or else a request's, id decides. Answers from 500 on are
    always logged; the log bounds how many warnings it takes. Bodies never are.
    """

    def __init__(self, sample: float, revision: str) -> None:
        self.sampling = sample > 0
        self._below = sample * 2**32
        self._revision = revision

    def answered(self, request: Answered, status: int, bytes_out: int) -> None:
        """Tell of an answer, or of a client that went away (499)."""
        if request.target.startswith(_QUIET) or (status < 500 and not self._chosen(request)):
            return
        inquiry, trace = request.inquiry, request.trace
        fields = {
            "method": request.method.decode("latin-1"),
            "path": request.target.decode("latin-1"),
            "status": status,
            "seconds": round(time.perf_counter() - request.begun, 6),
            "bytes_in": request.size,
            "bytes_out": bytes_out,
            "rows": None if inquiry is None else inquiry.row_count,
            "queue_seconds": None if inquiry is None else round(inquiry.waited, 6),
            "attempt": request.attempt,
            "revision": self._revision,
            "request_id": request.request_id,
            "trace_id": None if trace is None else trace.trace_id,
            "parent_id": None if trace is None else trace.parent_id,
            "span_id": None if trace is None else trace.span_id,
        }
        told = {key: value for key, value in fields.items() if value is not None}
        log.log(logging.INFO if status < 500 else logging.WARNING, "request", extra={"fields": told})

    def _chosen(self, request: Answered) -> bool:
        if not self.sampling:
            return False
        name = request.request_id if request.trace is None else request.trace.trace_id
        return (random.getrandbits(32) if name is None else zlib.crc32(name.encode())) < self._below
