"""The operator's own /healthz and /metrics."""

import asyncio
import time
from contextlib import suppress

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serin_operator.act.lease import Election
from serin_operator.loop import Loop

_BEAT_SECONDS = 1.0
_BEAT_LIMIT_SECONDS = 15.0


class Health:
    """Healthy while the event loop turns and every ModelDeployment's pass comes to an end.

    An API server or a metrics source that is away is no reason to restart, so neither is asked. An operator that stands
    by is as healthy as the one that leads.
    """

    def __init__(self, loop: Loop, election: Election) -> None:
        self._loop = loop
        self._election = election
        self._beat = time.monotonic()

    async def run(self, port: int) -> None:
        """Serves until cancelled."""
        application = web.Application()
        application.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._metrics)])
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, port=port).start()
            while True:
                self._beat = time.monotonic()
                await asyncio.sleep(_BEAT_SECONDS)
        finally:
            with suppress(asyncio.CancelledError):
                await runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        silent = time.monotonic() - self._beat
        if silent > _BEAT_LIMIT_SECONDS:
            return web.Response(status=503, text=f"the event loop stood still for {silent:.0f} s\n")
        if stuck := self._loop.stuck():
            return web.Response(status=503, text=f"no progress on {', '.join(stuck)}\n")
        if self._election.seconds_left() > 0:
            return web.Response(text=f"ok: {self._election.identity} leads\n")
        leader = self._election.holder or "nobody"
        return web.Response(text=f"ok: {self._election.identity} stands by, {leader} leads\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
