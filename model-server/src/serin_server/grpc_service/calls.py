"""What the calls of all services share: metadata, and how a call is refused."""

from collections.abc import Mapping
from typing import NoReturn, TypeAlias

import grpc

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


def metadata_of(context: Context) -> Mapping[str, str | bytes]:
    """What the client sent beside the message, by lower-case name; the last of several counts."""
    return dict(context.invocation_metadata() or ())


def request_id_of(metadata: Mapping[str, str | bytes]) -> str | None:
    """The call's id, for the log."""
    value = metadata.get("x-request-id")
    return value if isinstance(value, str) else None


def trace_of(metadata: Mapping[str, str | bytes]) -> Trace | None:
    """The trace that the call is part of."""
    value = metadata.get("traceparent")
    return parse_traceparent(value.encode()) if isinstance(value, str) else None


async def refuse(context: Context, status: int, message: str) -> NoReturn:
    """End a call with the status code that stands for HTTP's `status`."""
    code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
    more = _RETRY_LATER if status == _UNAVAILABLE else ()
    await context.abort(code, message, (*context.trailing_metadata(), *more))
    raise AssertionError("abort does not return")
