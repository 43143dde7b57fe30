"""One HTTP/1.1 connection: parses, bounds, and answers in order."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import NoReturn, Protocol, cast

import httptools

from serin_server.monitor.activity import Activity, Refused
from serin_server.protocol.errors import RequestError
from serin_server.protocol.responses import error_body
from serin_server.web.access_log import AccessLog
from serin_server.web.limits import Limits
from serin_server.web.messages import HEADERS, RETRY_LATER, Answer, Request, rendered

log = logging.getLogger(__name__)

# What answers a request. It is called once, when the body was read, cannot be had, or its client has gone; it returns
# the answer, or None when `Request.reply` gets it later.
Handler = Callable[[Request], Answer | None]
Route = Callable[[bytes, bytes], Handler]

CLIENT_GONE = 499  # for the log: nobody gets it
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Owner(Protocol):
    """What a connection asks of its server."""

    limits: Limits
    activity: Activity
    access_log: AccessLog
    held: int
    """Bytes of bodies that are being read or wait for an answer, on all connections."""

    @property
    def draining(self) -> bool:
        """Whether answers close their connections."""

    def admit(self, connection: "Connection") -> bool:
        """Whether there is room for one more connection; if so the server knows it until `forget`."""

    def forget(self, connection: "Connection") -> None:
        """Called once for each admitted connection, when it is gone."""


class Connection(asyncio.Protocol):
    """Reads requests, hands them to their handlers, and writes the answers in the order of the requests."""

    def __init__(self, route: Route, owner: Owner) -> None:
        self._route = route
        self._owner = owner
        self._limits = owner.limits
        self._access_log = owner.access_log
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._queue: deque[Request] = deque()  # those without an answer yet; the last one may still be read
        self._request: Request | None = None  # the one that is being read
        self._handler: Handler
        self._target = b""
        self._chunks: list[bytes] = []
        self._in_head = False
        self._size = 0  # bytes of the head, then of the body, of the request that is being read
        self._silent = 0  # bytes since the parser last made something of them
        self._feeding = False
        self._ended = False  # no more requests are read
        self._write_blocked = False
        self._read_paused = False
        self._deadline = self._loop.time() + self._limits.keep_alive_seconds

    # --- the transport's side ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._owner.admit(self):
            self._owner.activity.refused(Refused.CONNECTIONS)
            message = error_body("the server has as many connections as it takes; try again")
            self._transport.write(rendered(Request(), Answer(503, message, headers=RETRY_LATER), close=True))
            self._end()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        size_before = self._size
        self._feeding = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request was answered as one without that header, and its connection ends
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, RequestError):
                raise
            self._refuse(error.__context__)
        except httptools.HttpParserError as error:
            self._refuse(RequestError(400, f"the request is not HTTP: {error}"))
        self._feeding = False
        if self._request is not None and self._size == size_before:
            self._count_silent(len(data))
        if self._queue:
            if self._queue[0].answer is not None:
                self._flush()
            if len(self._queue) > self._limits.pipelined:
                self._regulate()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._owner.forget(self)
        if self._request is not None:
            self._release(self._request)
        for request in self._queue:
            self._release(request)
            request.lose()
            if self._access_log.sampling:
                self._access_log.answered(request, CLIENT_GONE, 0)
            request.inquiry = None
        if self._request is not None and not self._in_head:
            self._hand_over(self._request)
        self._queue.clear()

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._rearm()
        self._regulate()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._rearm()
        self._regulate()

    # --- the parser's side ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = Request(self._answered)
        self._target = b""
        self._size = self._silent = 0
        self._in_head = True
        self._deadline = self._loop.time() + self._limits.head_seconds

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._size += len(url)
        if self._size > self._limits.head_bytes:
            self._head_is_too_long()

    def on_header(self, name: bytes, value: bytes | None) -> None:
        value = value or b""
        self._size += len(name) + len(value)
        if not self._in_head:
            return  # a trailer says nothing, but takes part in the body's limit
        if self._size > self._limits.head_bytes:
            self._head_is_too_long()
        take = HEADERS.get(name.lower())
        if take is not None and self._request is not None:
            take(self._request, value)

    def on_headers_complete(self) -> None:
        request, parser = self._request, self._parser
        assert request is not None
        method = parser.get_method()
        if method == b"HEAD":
            request.is_head, method = True, b"GET"
        self._handler = self._route(method, self._target)
        request.method, request.target = method, self._target
        # HTTP/1.0 clients that keep a connection would need a header that says so.
        if not parser.should_keep_alive() or parser.should_upgrade() or parser.get_http_version() != "1.1":
            request.keep_alive = False
        self._queue.append(request)
        self._in_head = False
        self._size = self._silent = 0
        self._deadline = self._loop.time() + self._limits.body_seconds
        if request.expects:
            self._encourage()

    def on_body(self, chunk: bytes) -> None:
        request, owner, limits, size = self._request, self._owner, self._limits, len(chunk)
        assert request is not None
        self._size += size
        if self._size <= limits.body_bytes and request.problem is None:
            if owner.held + size <= limits.upload_bytes:
                owner.held += size
                request.held += size
                self._chunks.append(chunk)
                return
            owner.activity.refused(Refused.UPLOADS)
            request.problem = RequestError(503, "the server holds as many bytes of requests as it may; try again")
        # A body that is too long is read to its end and thrown away: closing earlier would make the kernel reset the
        # connection, and the client would see that instead of the answer.
        self._chunks.clear()
        self._release(request)

    def on_message_complete(self) -> None:
        request, chunks, limit = self._request, self._chunks, self._limits.body_bytes
        assert request is not None
        if self._size > limit:
            request.problem = RequestError(413, f"the body has {self._size} bytes, the limit is {limit}")
        request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        request.size = self._size
        request.complete = True
        self._deadline = math.inf
        self._hand_over(request)

    # --- answers -------------------------------------------------------------------------------------------

    def _hand_over(self, request: Request) -> None:
        self._request = None
        self._chunks = []
        if not request.keep_alive:
            self._ended = True
        try:
            answer = self._handler(request)
        except Exception:
            log.exception("internal error", extra={"fields": {"request_id": request.request_id}})
            answer = Answer(500, error_body("internal error"))
        if answer is not None:
            request.reply(answer)

    def _answered(self, request: Request) -> None:
        # While the parser is at work, more requests may follow in the same bytes: they are answered together.
        if not self._feeding and request is self._queue[0]:
            self._flush()

    def _flush(self) -> None:
        """Write the answers that are ready, in one piece."""
        queue = self._queue
        pieces = []
        close = False
        while queue and not close:
            request = queue[0]
            answer = request.answer
            if answer is None:
                break
            queue.popleft()
            # On the way out the last answer closes, so that no request that was already sent is lost.
            close = not request.keep_alive or (self._owner.draining and not queue and self._request is None)
            piece = rendered(request, answer, close)
            pieces.append(piece)
            if request.held:
                self._release(request)
            if self._access_log.sampling or answer.status >= 500:
                self._access_log.answered(request, answer.status, len(piece))
            request.inquiry = None  # no circle is left for the garbage collector
        if pieces:
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if close:
            self._end()
            return
        if not queue and self._request is None and not self._write_blocked:
            self._deadline = self._loop.time() + self._limits.keep_alive_seconds
        if self._read_paused:
            self._regulate()
        self._encourage()

    def _release(self, request: Request) -> None:
        self._owner.held -= request.held
        request.held = 0

    def _encourage(self) -> None:
        """Let the client send its body when all answers before this request's are written."""
        if self._queue and self._queue[0].expects and self._queue[0] is self._request:
            self._request.expects = False
            self._transport.write(_CONTINUE)

    def _refuse(self, error: RequestError) -> None:
        """Answer the request that is being read, if only in part, and read no more."""
        if self._ended:
            return  # bytes after the last request
        self._ended = True
        self._deadline = math.inf
        if self._request is not None and not self._in_head:
            self._request.problem = error
            self._request.keep_alive = False
            self._hand_over(self._request)
            return
        self._request = None
        request = Request(self._answered)
        request.keep_alive = False
        self._queue.append(request)
        request.reply(Answer(error.status, error_body(error.message)))

    # --- bounds --------------------------------------------------------------------------------------------

    def _head_is_too_long(self) -> NoReturn:
        raise RequestError(431, f"the request's head has more than {self._limits.head_bytes} bytes")

    def _count_silent(self, size: int) -> None:
        """Bound what the parser keeps to itself: a header, or a trailer, without an end."""
        self._silent += size
        if self._silent > self._limits.head_bytes:
            self._refuse(RequestError(431, f"a header has more than {self._limits.head_bytes} bytes"))

    def _regulate(self) -> None:
        """Read only as long as the client reads too, and not too far ahead of the answers."""
        pause = self._write_blocked or len(self._queue) > self._limits.pipelined
        if pause == self._read_paused or self._transport.is_closing():
            return
        self._read_paused = pause
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _rearm(self) -> None:
        """Set the time by which the client must have done what it is about to do."""
        limits = self._limits
        if self._write_blocked or self._transport.is_closing():
            seconds = limits.write_seconds
        elif self._request is not None:
            seconds = limits.head_seconds if self._in_head else limits.body_seconds
        else:
            seconds = math.inf if self._queue else limits.keep_alive_seconds
        self._deadline = self._loop.time() + seconds

    def check(self, now: float) -> None:
        """End what takes the client longer than the limits allow; `now` is the event loop's time."""
        if now < self._deadline:
            return
        if self._write_blocked or self._transport.is_closing():
            self._owner.activity.refused(Refused.SLOW_CLIENT)
            self._transport.abort()
        elif self._request is None:
            self._end()
        else:
            part = "head" if self._in_head else "body"
            if self._in_head:  # whatever answers a body that does not come counts that
                self._owner.activity.refused(Refused.SLOW_CLIENT)
            self._refuse(RequestError(408, f"the request's {part} did not come in time"))

    def finish(self) -> None:
        """End the connection, once what is being read or computed has been answered."""
        if self._request is None and not self._queue:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._transport.close()
        self._rearm()
