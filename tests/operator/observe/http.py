"""Small HTTP servers on loopback that play pods and Prometheus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from serin_operator.observe.pods import Pod


def pod(name: str, host: str, *, component: str = "server", revision: str = "", ready: bool = True) -> Pod:
    """A pod with this address."""
    return Pod(name, component, revision, host, ready, False, None, None, None)


@asynccontextmanager
async def answering(host: str, port: int, answer: Any, *, status: int = 200) -> AsyncIterator[list[str]]:
    """Serves one answer on every path until the block ends: a value as JSON, a text as it is, None never.

    Gives the list of requests that came, as "GET /path?query" and, for a POST, its form.
    """
    asked: list[str] = []
    held = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        form = "&".join(f"{key}={value!s}" for key, value in (await request.post()).items())
        asked.append(f"{request.method} {request.path_qs} {form}".strip())
        if answer is None:
            await held.wait()
        chosen = answer(request.path) if callable(answer) else answer
        if isinstance(chosen, str):
            return web.Response(text=chosen, status=status)
        return web.json_response(chosen, status=status)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    try:
        yield asked
    finally:
        held.set()
        await runner.cleanup()
