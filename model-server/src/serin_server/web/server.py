"""The life of the server: listens, drains on SIGTERM, and ends with every request answered."""

import asyncio
import logging
import signal
import socket
from typing import Protocol

import uvloop

from serin_server.web.app import Lifecycle
from serin_server.web.connection import Connection, Handler
from serin_server.web.limits import Limits

log = logging.getLogger(__name__)

# Connections that the kernel keeps until the event loop takes them.
_BACKLOG = 2048


class Application(Protocol):
    """What is served."""

    @property
    def lifecycle(self) -> Lifecycle: ...

    def route(self, method: bytes, target: bytes) -> Handler:
        """What answers a request."""


class Server:
    """Serves an application until it is told to stop.

    On SIGTERM the server says that it is not ready and goes on answering for `drain_seconds`, then stops. It never
    stops earlier, even when idle: routers keep sending until the news of the pod's end reaches them. Answers of that
    time close their connections. SIGINT stops at once, after the requests in flight.
    """

    def __init__(self, app: Application, limits: Limits, drain_seconds: float) -> None:
        self.limits = limits
        self._app = app
        self._drain_seconds = drain_seconds
        self._connections: set[Connection] = set()
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()

    @property
    def draining(self) -> bool:
        return self._app.lifecycle.draining

    def admit(self, connection: Connection) -> bool:
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        self._empty.clear()
        return True

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def run(self, listener: socket.socket) -> None:
        """Serve on a listening socket until a signal ends it."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.drain)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        await self.serve(listener)

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a listening socket until `stop`; returns when every request is answered."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._connect, sock=listener, backlog=_BACKLOG)
        host, port = listener.getsockname()[:2]
        log.info("listening", extra={"fields": {"host": host, "port": port}})
        self._look()
        await self._stop.wait()
        server.close()
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            await self._empty.wait()

    def drain(self) -> None:
        """Say that the server is not ready, go on for a while, then stop. A second call changes nothing."""
        if self.draining:
            return
        log.info("draining", extra={"fields": {"seconds": self._drain_seconds}})
        self._app.lifecycle.draining = True
        asyncio.get_running_loop().call_later(self._drain_seconds, self.stop)

    def stop(self) -> None:
        """Take no more connections, and end when those that are left have been answered."""
        self._app.lifecycle.draining = True
        self._stop.set()

    def _connect(self) -> Connection:
        return Connection(self._app.route, self)

    def _look(self) -> None:
        """One timer for all connections: a timer for each request would cost more than its answer."""
        loop = asyncio.get_running_loop()
        loop.call_later(self.limits.look_seconds, self._look)
        for connection in list(self._connections):
            connection.check(loop.time())


def listen(host: str | None, port: int) -> socket.socket:
    """Bind a listening socket to `host`, or to all addresses of the IP versions that the kernel has."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
