"""What the calls of all services share: what is known of one, its wire format, and how it is refused."""

import time
from collections.abc import Mapping
from typing import NoReturn, TypeAlias

import grpc

from serin_server.monitor.attempts import COUNT_HEADER, TESTER_HEADER, attempt_of
from serin_server.serving.copies import MARK_HEADER, shared_by_grpc
from serin_server.serving.inquiry import CLIENT_GONE, Inquiry
from serin_server.tracing import Trace, parse_traceparent

Context: TypeAlias = grpc.aio.ServicerContext

# As HTTP's Retry-After says it: clients with a retry policy wait this long.
_RETRY_LATER = (("grpc-retry-pushback-ms", "1000"),)
_UNAVAILABLE = 503
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    _UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Call:
    """One call, as the access log looks at HTTP's requests. `begun` is when its message was there."""

    __slots__ = (
        "attempt",
        "begun",
        "inquiry",
        "metadata",
        "refused_upload",
        "request_id",
        "shared_by",
        "size",
        "status",
        "target",
        "trace",
    )

    method = b"POST"

    def __init__(self, target: bytes, message: bytes, context: Context) -> None:
        self.begun = time.perf_counter()
        self.target = target
        self.size = len(message)
        # What the client sent beside the message, by lower-case name; the last of several counts.
        metadata: Mapping[str, str | bytes] = dict(context.invocation_metadata() or ())
        self.metadata = metadata
        self.attempt = attempt_of(metadata.get(COUNT_HEADER, "1"), TESTER_HEADER in metadata)
        self.request_id = _text(metadata.get("x-request-id"))
        self.shared_by = shared_by_grpc(self.request_id, message) if MARK_HEADER in metadata else None
        traceparent = _text(metadata.get("traceparent"))
        self.trace: Trace | None = None if traceparent is None else parse_traceparent(traceparent.encode())
        self.inquiry: Inquiry | None = None
        self.refused_upload = False
        self.status = CLIENT_GONE  # until it has ended otherwise

    @property
    def wants_gzip(self) -> bool:
        """Whether the client asks for compression, as over HTTP: that they could read it, most say by default."""
        return "gzip" in (_text(self.metadata.get("accept-encoding")) or "")


def _text(value: str | bytes | None) -> str | None:
    return value if isinstance(value, str) else None


async def refuse(context: Context, status: int, message: str) -> NoReturn:
    """End a call with the status code that stands for HTTP's `status`."""
    code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
    more = _RETRY_LATER if status == _UNAVAILABLE else ()
    await context.abort(code, message, (*context.trailing_metadata(), *more))
    raise AssertionError("abort does not return")
