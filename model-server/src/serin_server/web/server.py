"""uvicorn, with a way out that loses no request."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn

from serin_server.web.app import App, Lifecycle

log = logging.getLogger(__name__)

# Longer than the hour after which Envoy closes an idle connection by default. The side that sends requests
# must be the one that closes: a request that crosses the server's close is lost.
KEEP_ALIVE_SECONDS = 65 * 60


class DrainingServer(uvicorn.Server):
    """On SIGTERM the server says that it is not ready and goes on answering for `drain_seconds`, then stops.

    It never stops earlier, even when idle: routers keep sending until the news of the pod's end reaches them.
    Responses of that time close their connections. SIGINT stops at once, after the requests in flight.
    """

    def __init__(self, app: App, lifecycle: Lifecycle, drain_seconds: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            log.info("listening", extra={"fields": {"host": host, "port": port}})

    def _drain(self) -> None:
        if self._lifecycle.draining:
            return
        log.info("draining", extra={"fields": {"seconds": self._drain_seconds}})
        self._lifecycle.draining = True
        asyncio.get_running_loop().call_later(self._drain_seconds, self._stop)

    def _stop(self) -> None:
        self._lifecycle.draining = True
        self.should_exit = True


def listen(host: str | None, port: int) -> socket.socket:
    """Bind a listening socket to `host`, or to all addresses of the IP versions that the kernel has."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
