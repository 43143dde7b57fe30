"""Starts the operator: `python -m serin_operator`."""

import asyncio
import json
import logging
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import aiohttp
import kopf

from serin_operator.act.client import Client
from serin_operator.act.lease import Election
from serin_operator.handlers import register
from serin_operator.health import Health
from serin_operator.loop import Loop
from serin_operator.observe.cache import Cache
from serin_operator.observe.routes import Routes
from serin_operator.settings import Settings

_LOGGER = logging.getLogger("serin.main")
_PORT = 8080
_LAST_PASSES_SECONDS = 3.0


class _JsonLines(logging.Formatter):
    """One JSON object per line; a decision's record, JSON already, is put in whole."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        message = record.getMessage()
        if record.name == "serin.decision" and message.startswith("{"):
            line["decision"] = json.loads(message)
        else:
            line["message"] = message
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf").setLevel(logging.WARNING)


async def _run(settings: Settings) -> None:
    client = await Client.connect()
    async with aiohttp.ClientSession() as session:
        election = Election(client, settings.candidacy)
        cache = Cache(routes=Routes(settings.routers, settings.namespaces))
        loop = Loop(settings, client.within(election.seconds_left), session, cache, election.identity)
        registry = kopf.OperatorRegistry()
        register(registry, loop, cache)
        helpers = [_helper(Health(loop, election).run(_PORT)), _helper(loop.exorcise())]
        ready, stop = asyncio.Event(), asyncio.Event()
        competing = asyncio.create_task(_compete(election, loop, ready, stop))
        helpers.append(_helper(cache.routes.follow(client, loop.wake_one_or_all)))
        try:
            await kopf.operator(
                registry=registry,
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
                ready_flag=ready,
                stop_flag=stop,
            )
        finally:
            competing.cancel()
            with suppress(asyncio.CancelledError):
                await competing
            for helper in helpers:
                helper.cancel()
            await client.close()


def _helper(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Runs until it is cancelled. Nobody waits for it, so what else ends it is logged at once."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _LOGGER.critical("ended by itself: %r", task, exc_info=error)

    task = asyncio.create_task(work)
    task.add_done_callback(ended)
    return task


async def _compete(election: Election, loop: Loop, ready: asyncio.Event, stop: asyncio.Event) -> None:
    """Leads whenever this operator is elected, until a signal; then ends what is under way, hands over, and stops Kopf.

    Kopf takes seconds to stop. Its own handlers of the signals are replaced, because nobody leads until the hand-over.
    """
    await ready.wait()
    term = asyncio.create_task(election.run(loop.lead, loop.rest))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, term.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await term
    finally:
        await loop.rest(_LAST_PASSES_SECONDS)
        await election.resign()
        stop.set()


def main() -> None:
    """Runs until SIGTERM."""
    settings = Settings.from_environment()
    _configure_logging(settings.log_level)
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
