"""The life of the server: listens, drains on SIGTERM, and ends with every request answered."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Protocol

import uvloop

from serin_server import logs
from serin_server.monitor.activity import Activity
from serin_server.web.access_log import AccessLog
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


class Source(Protocol):
    """Where connections come from that somebody else accepted."""

    def start(self, on_connection: Callable[[socket.socket], None], on_end: Callable[[], None]) -> None:
        """Give connections from now on; `on_end` is called once, when no more will come."""

    def closed(self) -> None:
        """Called for each connection that is gone."""


class Companion(Protocol):
    """Another server on the same event loop, which begins, drains and ends with the web server."""

    async def start(self) -> None:
        """Listen."""

    def begin_drain(self) -> None:
        """The drain begins; calls are answered as ever."""

    async def finish(self) -> None:
        """Take no more calls; returns when those that are there have been answered."""


class Server:
    """Serves an application until it is told to stop.

    On SIGTERM the server says that it is not ready and goes on answering for `drain_seconds`, then stops. It never
    stops earlier, even when idle: routers keep sending until the news of the pod's end reaches them. Answers of that
    time close their connections. SIGINT stops at once, after the requests in flight.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        drain_seconds: float,
        activity: Activity | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self.limits = limits
        self.activity = activity or Activity("", "")
        self.access_log = access_log or AccessLog(0, "")
        self.held = 0
        self._app = app
        self._drain_seconds = drain_seconds
        self._connections: set[Connection] = set()
        self._companions: list[Companion] = []
        self._opening: set[asyncio.Task[object]] = set()  # connections that were given, until they are there
        self._source: Source | None = None
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()

    @property
    def connections(self) -> int:
        """Those that are open."""
        return len(self._connections)

    def accompany(self, companion: Companion) -> None:
        """Let another server live as long as this one."""
        self._companions.append(companion)

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
        if self._source is not None:
            self._source.closed()
        if not self._connections:
            self._empty.set()

    def run(self, listener: socket.socket) -> None:
        """Serve on a listening socket until a signal ends it."""
        with logs.in_background(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.drain)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        await self.serve(listener)

    async def serve(self, listener: socket.socket) -> None:
        """Serve on a listening socket until `stop`; returns when every request is answered."""
        loop = asyncio.get_running_loop()
        await self._start_companions()
        server = await loop.create_server(self._connect, sock=listener, backlog=_BACKLOG)
        host, port = listener.getsockname()[:2]
        log.info("listening", extra={"fields": {"host": host, "port": port}})
        self._look()
        await self._stop.wait()
        await _turns()  # takes what waits in the kernel's queue
        server.close()
        await self._finish()

    async def serve_given(self, source: Source) -> None:
        """Serve connections that a source gives, until it ends; returns when every request is answered."""
        await self._start_companions()
        self._source = source
        source.start(self._take, self.stop)
        self._look()
        await self._stop.wait()
        while self._opening:
            await asyncio.wait(self._opening)
        await self._finish()

    async def _start_companions(self) -> None:
        for companion in self._companions:
            await companion.start()

    async def _finish(self) -> None:
        await asyncio.gather(self._finish_own(), *(companion.finish() for companion in self._companions))

    async def _finish_own(self) -> None:
        await _turns()  # reads requests that were sent before
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            await self._empty.wait()

    def _take(self, given: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(self._connect, given))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[object]") -> None:
        self._opening.discard(task)
        if task.exception() is not None and self._source is not None:
            log.warning("a connection failed", extra={"fields": {"why": str(task.exception())}})
            self._source.closed()

    def drain(self) -> None:
        """Say that the server is not ready, go on for a while, then stop. A second call changes nothing."""
        if self.draining:
            return
        log.info("draining", extra={"fields": {"seconds": self._drain_seconds}})
        self.begin_drain()
        asyncio.get_running_loop().call_later(self._drain_seconds, self.stop)

    def begin_drain(self) -> None:
        """Say that the server is not ready, and close connections with their answers."""
        self._app.lifecycle.draining = True
        for companion in self._companions:
            companion.begin_drain()

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


async def _turns() -> None:
    """Let the event loop look at all sockets once."""
    for _ in range(2):
        await asyncio.sleep(0)


def listen(host: str | None, port: int) -> socket.socket:
    """Bind a listening socket to `host`, or to all addresses of the IP versions that the kernel has."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
