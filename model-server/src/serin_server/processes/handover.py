"""The way of a connection from the parent, which accepts it, to the worker that serves it.

The parent sends accepted sockets through a pair of packet sockets and ends the stream when no more will come. A worker
tells through the same pair how many connections have closed, and at least once a second that it lives.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

_CLOSED = struct.Struct(">I")
_BEAT_SECONDS = 1.0


def give(channel: socket.socket, connection: socket.socket) -> bool:
    """Send a connection to a worker; False when it cannot take one now, or is gone. The caller closes its own copy."""
    try:
        socket.send_fds(channel, [b"c"], [connection.fileno()])
    except (BlockingIOError, ConnectionError):
        return False
    return True


def closings(channel: socket.socket) -> int | None:
    """How many connections a worker closed since it was last asked; None when it has told nothing at all."""
    total: int | None = None
    while True:
        try:
            packet = channel.recv(_CLOSED.size)
        except (BlockingIOError, ConnectionError):
            return total
        if len(packet) < _CLOSED.size:
            return total  # the worker is gone
        total = (total or 0) + int(_CLOSED.unpack(packet)[0])


class Receiver:
    """The worker's end."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._closed = 0
        self._on_connection: Callable[[socket.socket], None]
        self._on_end: Callable[[], None]

    def start(self, on_connection: Callable[[socket.socket], None], on_end: Callable[[], None]) -> None:
        """Take connections from now on; `on_end` is called once, when no more will come."""
        self._on_connection, self._on_end = on_connection, on_end
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._receive)
        self._beat()

    def closed(self) -> None:
        """Tell the parent that a connection has closed."""
        self._closed += 1
        self._tell()

    def _receive(self) -> None:
        while True:
            try:
                packet, files, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                return
            except ConnectionError:
                packet, files = b"", []
            for file in files:
                self._on_connection(socket.socket(fileno=file))
            if not packet:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                self._on_end()
                return

    def _beat(self) -> None:
        self._tell()
        asyncio.get_running_loop().call_later(_BEAT_SECONDS, self._beat)

    def _tell(self) -> None:
        try:
            self._channel.send(_CLOSED.pack(self._closed))
        except (BlockingIOError, ConnectionError):
            return  # told with the next; a parent that is gone is noticed on the link
        self._closed = 0
