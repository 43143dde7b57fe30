"""A client and a port for tests that speak over loopback."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.loopback import free_port

from serin_operator.build import listeners
from serin_operator.observe import prometheus, routers, scrape


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of all pods, with clients that wait two seconds: a busy machine takes a while."""
    found = free_port()
    monkeypatch.setattr(listeners, "STATUS_PORT", found)
    monkeypatch.setattr(scrape, "_PORT", found)
    for module in (scrape, routers, prometheus):
        monkeypatch.setattr(module, "_TIMEOUT", aiohttp.ClientTimeout(total=2.0))
    return found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session
