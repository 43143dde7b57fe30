"""What the courier brings from the stable revision's servers to the canary's, and what it leaves for the next time."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from tests.operator.observe.http import pod

from serin_operator.observe import courier
from serin_operator.observe.courier import carry
from serin_operator.observe.pods import Pod

STABLE, CANARY = "a" * 10, "b" * 10
ARMS = CANARY, STABLE
NEW, TAKE = "/v2/models/iris/answers/new", "/v2/models/iris/answers"


@dataclass
class Server:
    """A model server that tells so many batches, one place after the other, and hears others'."""

    batches: int = 0
    status: int = 200
    asked: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        if request.path == TAKE:
            self.heard.append(text)
            return web.Response(status=self.status)
        assert request.path == NEW
        self.asked.append(text)
        place = int(text.partition(".")[2] or 0)
        following = min(place + 1, self.batches)
        body = f"e.{following} {int(following < self.batches)}\nsealed {place}"
        return web.Response(text=body, status=self.status)

    @asynccontextmanager
    async def at(self, host: str, port: int) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_post("/{path:.*}", self.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
def pods(port: int, monkeypatch: pytest.MonkeyPatch) -> list[Pod]:
    monkeypatch.setattr(courier, "_PORT", port)
    monkeypatch.setattr(courier, "_TIMEOUT", aiohttp.ClientTimeout(total=20))
    return [
        pod("s0", "127.0.0.2", revision=STABLE),
        pod("s1", "127.0.0.3", revision=STABLE),
        pod("c0", "127.0.0.4", revision=CANARY),
        pod("c1", "127.0.0.5", revision=CANARY),
        pod("c2", "127.0.0.6", revision=CANARY, ready=False),
        pod("r0", "127.0.0.7", component="router"),
    ]


@asynccontextmanager
async def running(port: int, **servers: Server) -> AsyncIterator[None]:
    places = {"s0": "127.0.0.2", "s1": "127.0.0.3", "c0": "127.0.0.4", "c1": "127.0.0.5"}
    async with AsyncExitStack() as stack:
        for name, server in servers.items():
            await stack.enter_async_context(server.at(places[name], port))
        yield


async def test_everything_goes_to_every_server_of_the_canary_once(
    port: int, pods: list[Pod], session: aiohttp.ClientSession
) -> None:
    s0, s1, c0, c1 = Server(batches=2), Server(batches=1), Server(), Server()
    async with running(port, s0=s0, s1=s1, c0=c0, c1=c1):
        places = await carry(session, "iris", pods, ARMS, 0, {})
        assert places == {"s0": "e.2", "s1": "e.1"}
        assert sorted(c0.heard) == sorted(c1.heard) == ["0\nsealed 0", "0\nsealed 0", "0\nsealed 1"]
    assert s0.asked == ["", "e.1"]


async def test_that_there_is_nothing_new_is_told_with_the_label_window(
    port: int, pods: list[Pod], session: aiohttp.ClientSession
) -> None:
    s0, c0 = Server(batches=1), Server()
    async with running(port, s0=s0, c0=c0):
        places = await carry(session, "iris", pods[:1] + pods[2:3], ARMS, 604800.0, {"s0": "e.1"})
    assert places == {"s0": "e.1"}
    assert c0.heard == ["604800\nsealed 1"]


async def test_a_server_is_asked_a_few_times_at_most_in_one_pass(
    port: int, pods: list[Pod], session: aiohttp.ClientSession
) -> None:
    s0, c0 = Server(batches=1000), Server()
    async with running(port, s0=s0, c0=c0):
        places = await carry(session, "iris", pods[:1] + pods[2:3], ARMS, 0, {})
    assert places == {"s0": "e.4"}
    assert len(s0.asked) == len(c0.heard) == 4


async def test_one_that_does_not_answer_is_asked_from_the_same_place_next_time(
    port: int, pods: list[Pod], session: aiohttp.ClientSession
) -> None:
    s1, c0 = Server(batches=1), Server()
    async with running(port, s0=Server(batches=5, status=503), s1=s1, c0=c0):
        places = await carry(session, "iris", pods, ARMS, 0, {"s0": "e.3"})
    assert places == {"s0": "e.3", "s1": "e.1"}
    assert len(c0.heard) == 1


async def test_one_that_does_not_hear_holds_nobody_up(
    port: int, pods: list[Pod], session: aiohttp.ClientSession
) -> None:
    s0, c0, c1 = Server(batches=1), Server(), Server(status=500)
    async with running(port, s0=s0, c0=c0, c1=c1):
        assert await carry(session, "iris", pods, ARMS, 0, {}) == {"s0": "e.1", "s1": ""}
    assert len(c0.heard) == 1


async def test_without_a_server_that_hears_nothing_is_asked(
    port: int, pods: list[Pod], session: aiohttp.ClientSession
) -> None:
    s0 = Server(batches=1)
    async with running(port, s0=s0):
        assert await carry(session, "iris", pods[:2], ARMS, 0, {"s0": "e.0"}) == {"s0": "e.0"}
    assert s0.asked == []


async def test_an_answer_that_is_none_is_left_for_the_next_time(
    port: int, pods: list[Pod], session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    s0, c0 = Server(batches=1), Server()

    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text="<html>")

    monkeypatch.setattr(s0, "handle", nonsense)
    async with running(port, s0=s0, c0=c0):
        assert await carry(session, "iris", pods, ARMS, 0, {}) == {"s0": "", "s1": ""}
    assert c0.heard == []
