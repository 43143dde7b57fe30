"""Connections of the load generator that do as little as possible, so that one core of theirs outruns one of a server.

Both send the same bytes again and again and only find the end of each answer. The gRPC client speaks the part of HTTP/2
(RFC 9113) that this needs: a constant head without compression state, one stream at a time, the peer's flow control.
"""

import asyncio
import struct
from typing import Protocol, cast

from bench.server.wire import GRPC_METHOD


class Load(Protocol):
    """Whom a connection serves."""

    def free(self, client: "Client") -> None:
        """The connection takes a request."""

    def answered(self, client: "Client", due: float, good: bool) -> None:
        """The request that was due then has its answer."""

    def lost(self) -> None:
        """The connection ended."""


class Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.free(self)

    def send(self, due: float) -> None:
        """Send the request, which is due since then."""
        self._due = due

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost()

    def close(self) -> None:
        """End the connection, when all is over."""
        self._transport.abort()


class HttpClient(Client):
    """HTTP/1.1 with answers that tell their length, before or in chunks."""

    def __init__(self, load: Load, request: bytes) -> None:
        super().__init__(load)
        self._request = request
        self._data = b""  # of the head, and of what came with it
        self._missing = 0
        self._chunk: int | None = None  # where the next chunk begins in the data, of an answer that comes in chunks

    def send(self, due: float) -> None:
        self._due = due
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
            whole = self._missing == 0
        else:
            self._data += data
            whole = self._is_whole()
        if whole:
            good = self._data.startswith(b"HTTP/1.1 200")
            self._data, self._chunk = b"", None
            self._load.answered(self, self._due, good)

    def _is_whole(self) -> bool:
        """Whether the data are an answer to its end; once the head is there it is known what is missing."""
        if self._chunk is None:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return False
            length = head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0]
            if length:
                self._missing = int(length) - len(rest)
                return self._missing == 0
            self._chunk = len(head) + 4
        return self._has_last_chunk()

    def _has_last_chunk(self) -> bool:
        while self._chunk is not None:
            end = self._data.find(b"\r\n", self._chunk)
            if end < 0:
                return False
            size = int(self._data[self._chunk : end], 16)
            after = end + 2 + size + 2
            if after > len(self._data):
                return False
            if size == 0:
                return True
            self._chunk = after
        return False


_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_LARGEST = 2**31 - 1
_FIRST_WINDOW = 65535  # of a connection, before the peer says more
_FRAME_BYTES = 16384  # what every peer takes in one frame


class GrpcClient(Client):
    """Unary gRPC calls, one at a time. An answer is good when a message came before the trailers."""

    def __init__(self, load: Load, request: bytes) -> None:
        """`request` is a message with its prefix of five bytes."""
        super().__init__(load)
        head = _head()
        # What a request consists of, each to be followed by the stream's number and then the payload.
        frames = [(_prefix(len(head), _HEADERS, _END_HEADERS), head)]
        for start in range(0, len(request), _FRAME_BYTES):
            piece = request[start : start + _FRAME_BYTES]
            frames.append((_prefix(len(piece), _DATA, _END_STREAM * (start + len(piece) == len(request))), piece))
        self._frames = frames
        self._size = len(request)
        self._buffer = b""
        self._stream = -1
        self._window = _FIRST_WINDOW
        self._taken = 0
        self._waits = False  # for the peer's flow control
        self._has_message = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, _LARGEST)  # no table, no push, wide windows
        cast(asyncio.Transport, transport).write(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(_SETTINGS, 0, settings)
            + _frame(_WINDOW, 0, struct.pack(">I", _LARGEST - _FIRST_WINDOW))
        )
        super().connection_made(transport)

    def send(self, due: float) -> None:
        self._due = due
        self._stream += 2
        self._has_message = False
        self._waits = True
        self._write()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        at, size = 0, len(buffer)
        while size - at >= 9:
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if end > size:
                break
            self._take(buffer[at + 3], buffer[at + 4], buffer[at + 5 : at + 9], buffer[at + 9 : end])
            at = end
        self._buffer = buffer[at:]

    def _write(self) -> None:
        """Send the request as soon as the peer's window for the connection has room for it."""
        if not self._waits or self._window < self._size:
            return
        self._waits = False
        self._window -= self._size
        stream = self._stream.to_bytes(4, "big")
        self._transport.write(b"".join([part for prefix, piece in self._frames for part in (prefix, stream, piece)]))

    def _take(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        if kind == _DATA:
            self._has_message = True
            self._taken += len(payload)
            if self._taken > _LARGEST // 2:
                self._transport.write(_frame(_WINDOW, 0, struct.pack(">I", self._taken)))
                self._taken = 0
        elif kind == _HEADERS:
            if flags & _END_STREAM:
                self._load.answered(self, self._due, self._has_message)
        elif kind == _RESET:
            self._load.answered(self, self._due, False)
        elif kind == _WINDOW:
            if stream == b"\0\0\0\0":
                self._window += int.from_bytes(payload, "big")
                self._write()
        elif kind in (_SETTINGS, _PING):
            if not flags & _ACK:
                self._transport.write(_frame(kind, _ACK, payload if kind == _PING else b""))
        elif kind == _GOAWAY:
            raise ConnectionError(f"the server ends the connection: {payload[8:]!r}")


def _prefix(size: int, kind: int, flags: int) -> bytes:
    return size.to_bytes(3, "big") + bytes([kind, flags])


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    """A frame of the connection itself."""
    return _prefix(len(payload), kind, flags) + b"\0\0\0\0" + payload


def _head() -> bytes:
    """A request's head in HPACK (RFC 7541), literal, so that it is the same for all requests."""
    method, scheme = b"\x83", b"\x86"  # POST and http in the static table
    path = b"\x04" + _text(GRPC_METHOD)
    authority = b"\x01" + _text("bench")
    own = b"".join(b"\0" + _text(name) + _text(value) for name, value in _FIELDS)
    return method + scheme + path + authority + own


_FIELDS = (("te", "trailers"), ("content-type", "application/grpc"))


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
