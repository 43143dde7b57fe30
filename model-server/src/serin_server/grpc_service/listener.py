"""The life of the gRPC server: listens, drains, and ends with every call answered.

Importing this imports gRPC.
"""

import asyncio
import logging
import os

from serin_server.grpc_service.port import Port, refuse_connections

# gRPC writes lines of its own format to stderr, among the server's JSON. What fails is raised as an exception too.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from serin_server.grpc_service.services import Services
from serin_server.web.limits import Limits

log = logging.getLogger(__name__)

# Fractions of the drain. Connections are refused early enough that those which came before have ended by then.
_ACCEPTING = 0.5
_CONNECTION_AGE = 0.4  # gRPC lets it vary by a tenth
_SHORTEST_AGE_SECONDS = 1.0
# Calls that are being computed at the end: as long as it takes, since Kubernetes ends the process when it is too long.
_PATIENCE_SECONDS = 24 * 3600.0


class GrpcListener:
    """Serves gRPC beside the web server, on the same event loop.

    Clients keep their connections for days, and send more calls on them whether or not the server is ready. So no
    connection gets old: a client is told to open another one, loses no call, and finds pods that are new and leaves
    those that end. During the drain that happens to all connections before the server stops.
    """

    def __init__(
        self, services: Services, port: Port, limits: Limits, max_in_flight: int, drain_seconds: float
    ) -> None:
        """A connection has at most `max_in_flight` calls at once: its client holds back what would be refused."""
        self._services = services
        self._port = port
        self._limits = limits
        self._max_in_flight = max_in_flight
        self._drain_seconds = drain_seconds
        self._server: grpc.aio.Server

    async def start(self) -> None:
        """Listen."""
        limits = self._limits
        age = max(self._drain_seconds * _CONNECTION_AGE, _SHORTEST_AGE_SECONDS)
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_metadata_size", limits.head_bytes),
                ("grpc.max_allowed_incoming_connections", limits.connections),
                ("grpc.max_concurrent_streams", self._max_in_flight),
                ("grpc.max_connection_age_ms", int(age * 1000)),
            ]
        )
        self._server.add_generic_rpc_handlers(tuple(self._services.handlers()))
        self._server.add_insecure_port(self._port.address)
        await self._server.start()
        log.info("listening for gRPC", extra={"fields": {"host": self._port.host, "port": self._port.number}})

    def begin_drain(self) -> None:
        """Take connections a while longer, until the routers know. Those who watch are told at once."""
        self._services.state.drained()
        loop = asyncio.get_running_loop()
        loop.call_later(self._drain_seconds * _ACCEPTING, refuse_connections, self._port.number)

    async def finish(self) -> None:
        """Take no more calls; returns when those that are there have been answered."""
        self._services.state.end()
        await self._server.stop(_PATIENCE_SECONDS)
