"""Health by gRPC's own protocol: asked once, or watched."""

import asyncio
from collections.abc import AsyncGenerator, Collection

from serin_server.grpc_service.messages import health_pb2 as health
from serin_server.protocol.errors import RequestError
from serin_server.web.app import Lifecycle

Status = health.HealthCheckResponse.ServingStatus

# An open watch takes some kilobytes for as long as its client likes.
MOST_WATCHES = 100


class Health:
    """The health of the server, which is that of each of its services. Belongs to the event loop's thread."""

    def __init__(self, lifecycle: Lifecycle, services: Collection[str]) -> None:
        self._lifecycle = lifecycle
        self._services = services
        self._watches = 0
        self._changed = asyncio.Event()  # set for good: the drain has begun
        self._over = asyncio.Event()

    def drained(self) -> None:
        """Tell those who watch that the server drains."""
        self._changed.set()

    def end(self) -> None:
        """End every watch: a server stops only when no call is left."""
        self._over.set()

    def check(self, service: str) -> health.HealthCheckResponse:
        """The state of a service, or of the server for an empty name. Raises RequestError (404)."""
        if not self._knows(service):
            raise RequestError(404, f"there is no service {service!r} here")
        return health.HealthCheckResponse(status=self._status(service))

    async def watch(self, service: str) -> AsyncGenerator[health.HealthCheckResponse, None]:
        """The state, and each other that it changes to, until the server ends. Raises RequestError (503)."""
        if self._watches >= MOST_WATCHES:
            raise RequestError(503, f"the server has {MOST_WATCHES} watches already")
        self._watches += 1
        try:
            status = self._status(service)
            yield health.HealthCheckResponse(status=status)
            if status == Status.SERVING:
                await self._changed.wait()
                yield health.HealthCheckResponse(status=self._status(service))
            await self._over.wait()
        finally:
            self._watches -= 1

    def _knows(self, service: str) -> bool:
        return service == "" or service in self._services

    def _status(self, service: str) -> "health.HealthCheckResponse.ServingStatus":
        if not self._knows(service):
            return Status.SERVICE_UNKNOWN
        return Status.NOT_SERVING if self._lifecycle.draining else Status.SERVING
