"""Starts the operator: `python -m serin_operator`."""

import asyncio
import json
import logging

import aiohttp
import kopf

from serin_operator.act.client import Client
from serin_operator.handlers import register
from serin_operator.health import Health
from serin_operator.loop import Loop
from serin_operator.observe.cache import Cache
from serin_operator.settings import Settings

_PORT = 8080


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
        cache = Cache()
        loop = Loop(settings, client, session, cache)
        registry = kopf.OperatorRegistry()
        register(registry, loop, cache)
        helpers = [asyncio.create_task(Health(loop).run(_PORT)), asyncio.create_task(loop.exorcise())]
        try:
            await kopf.operator(
                registry=registry,
                standalone=True,
                clusterwide=not settings.namespaces,
                namespaces=settings.namespaces,
            )
        finally:
            for helper in helpers:
                helper.cancel()
            await client.close()


def main() -> None:
    """Runs until SIGTERM."""
    settings = Settings.from_environment()
    _configure_logging(settings.log_level)
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
