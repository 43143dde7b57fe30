"""Reading requests and sending answers, the little that a web framework would do."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from serin_server.protocol.errors import RequestError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"


class ClientGoneError(Exception):
    """The client closed the connection before its answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response ready to be sent."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """What the server reads of a request's headers.

    `retry`: Envoy sends the request not for the first time. `unsupported`: a header that changes the body's
    meaning in a way the server does not know.
    """

    retry: bool
    request_id: str | None
    unsupported: str | None


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> RequestHeaders:
    """Pick what matters from ASGI headers (lower-case names)."""
    retry, request_id, unsupported = False, None, None
    for name, value in headers:
        if name == b"x-envoy-attempt-count":
            retry = value not in (b"0", b"1")
        elif name == b"x-request-id":
            request_id = value.decode("latin-1")
        elif name == b"inference-header-content-length" or (
            name == b"content-encoding" and value.lower() != b"identity"
        ):
            unsupported = f"{name.decode('latin-1')}: {value.decode('latin-1')}"
    return RequestHeaders(retry, request_id, unsupported)


async def read_body(headers: RequestHeaders, receive: Receive, limit: int) -> bytes:
    """Read the whole body. Raises RequestError (413 when longer than `limit` bytes, 415) or ClientGoneError.

    A body that is too long is read to its end and thrown away: closing earlier would make the kernel reset
    the connection, and the client would see that instead of the answer.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        more = message.get("more_body", False)
    if headers.unsupported:
        raise RequestError(415, f"{headers.unsupported} is not supported: send plain JSON")
    if size > limit:
        raise RequestError(413, f"the body has {size} bytes, the limit is {limit}")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection; to be called after the body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_answer(send: Send, answer: Answer, close: bool) -> None:
    """Send an answer; `close` ends the connection after it."""
    headers: Headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(len(answer.body)).encode()),
        *answer.headers,
    ]
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
