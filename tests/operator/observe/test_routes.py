"""Watching kinds that a cluster may not have: missing, installed later, taken away again, watches that break."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from serin_operator.act.client import ApiError
from serin_operator.api.spec import RouterType
from serin_operator.observe import routes as module
from serin_operator.observe.routes import Routes, State

ISTIO_KINDS = ("VirtualService", "DestinationRule")


def route(name: str, generation: int = 1, namespace: str = "shop") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "generation": generation,
            "resourceVersion": str(100 + generation),
            "labels": {"serin.dev/model-deployment": "iris"},
            "managedFields": [{"manager": "serin"}],
        },
        "spec": {},
    }


@dataclass
class Source:
    """An API server whose every answer a test decides: a list, or an error; then changes until told to end.

    in_namespaces: what it answers there instead.
    """

    lists: dict[str, list[dict[str, Any]] | Exception] = field(default_factory=dict)
    in_namespaces: dict[str, list[dict[str, Any]] | Exception] = field(default_factory=dict)
    feeds: dict[str, asyncio.Queue[tuple[str, dict[str, Any]] | Exception | None]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def listed(self, kind: str, namespace: str | None, selector: str) -> tuple[list[dict[str, Any]], str]:
        assert selector == "serin.dev/model-deployment"
        self.asked.append((kind, namespace))
        answer = self.in_namespaces.get(namespace or "", self.lists.get(kind, []))
        if isinstance(answer, Exception):
            raise answer
        return answer, "7"

    async def changes(
        self, kind: str, namespace: str | None, selector: str, version: str, seconds: int
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        assert version == "7"
        feed = self.feeds.setdefault(kind, asyncio.Queue())
        while (change := await feed.get()) is not None:
            if isinstance(change, Exception):
                raise change
            yield change


class Following:
    """Routes that follow a source for as long as the test runs."""

    def __init__(self, source: Source, *namespaces: str, router: RouterType = RouterType.ISTIO) -> None:
        self.source = source
        self.routes = Routes((router,), namespaces)
        self.woken: list[tuple[str, str] | None] = []

    async def __aenter__(self) -> "Following":
        self._task = asyncio.create_task(self.routes.follow(self.source, self.woken.append))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                assert not self._task.done(), self._task.exception()
                await asyncio.sleep(0.01)

    def state(self, namespace: str = "shop") -> set[State]:
        return {self.routes.state(kind, namespace) for kind in ISTIO_KINDS}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.02)


def test_a_kind_that_is_not_enabled_is_neither_asked_for_nor_written() -> None:
    routes = Routes((RouterType.ISTIO,), ())
    assert routes.state("HTTPRoute", "shop") is State.DISABLED
    assert not routes.writable("HTTPRoute", "shop")
    assert routes.writable("Deployment", "shop")
    assert routes.state("VirtualService", "shop") is State.UNKNOWN
    assert not routes.writable("VirtualService", "shop")


async def test_objects_are_kept_as_they_change_and_their_owner_is_woken() -> None:
    async with Following(Source({"VirtualService": [route("iris")]})) as following:
        await following.until(lambda: following.state() == {State.KNOWN})
        assert following.routes.writable("VirtualService", "shop")
        found = following.routes.get("VirtualService", ("shop", "iris"))
        assert found is not None
        assert "managedFields" not in found["metadata"]
        feed = following.source.feeds["VirtualService"]
        feed.put_nowait(("MODIFIED", route("iris", 2)))
        feed.put_nowait(("ADDED", route("other")))
        await following.until(lambda: following.woken.count(("shop", "iris")) == 2)
        versions = {item.name: item.version for item in following.routes.objects_of(("shop", "iris"))}
        assert versions == {"iris": 2, "other": 1}
        feed.put_nowait(("DELETED", route("other")))
        await following.until(lambda: len(following.routes.objects_of(("shop", "iris"))) == 1)
        assert following.routes.objects_of(("elsewhere", "iris")) == []


async def test_a_kind_that_is_missing_is_told_and_seen_once_it_is_installed() -> None:
    source = Source(dict.fromkeys(ISTIO_KINDS, ApiError(404, "the server could not find the requested resource")))
    async with Following(source) as following:
        await following.until(lambda: following.state() == {State.MISSING})
        assert not following.routes.writable("VirtualService", "shop")
        asked = len(source.asked)
        await following.until(lambda: len(source.asked) > asked + 6)
        assert following.woken == [None] * len(ISTIO_KINDS), "only news wakes"
        following.woken.clear()
        source.lists = {"VirtualService": [route("iris")]}
        await following.until(lambda: following.state() == {State.KNOWN})
        assert None in following.woken


async def test_a_kind_that_is_taken_away_is_missing_again() -> None:
    async with Following(Source({"VirtualService": [route("iris")]})) as following:
        await following.until(lambda: following.state() == {State.KNOWN})
        following.source.lists = dict.fromkeys(ISTIO_KINDS, ApiError(404, "not found"))
        for kind in ISTIO_KINDS:
            following.source.feeds[kind].put_nowait(None)
        await following.until(lambda: following.state() == {State.MISSING})
        assert following.routes.get("VirtualService", ("shop", "iris")) is None


async def test_a_missing_right_is_told() -> None:
    async with Following(Source({"DestinationRule": ApiError(403, "forbidden")})) as following:
        await following.until(lambda: following.routes.state("DestinationRule", "shop") is State.FORBIDDEN)


@pytest.mark.parametrize(
    "trouble",
    [
        None,
        aiohttp.ClientError("reset"),
        TimeoutError(),
        ConnectionResetError(),
        ValueError("half a line"),
        ApiError(410, "too old"),
        ("ERROR", {"code": 410}),
        ("ADDED", {"kind": "VirtualService"}),
    ],
    ids=lambda trouble: str(trouble) or type(trouble).__name__,
)
async def test_a_watch_that_ends_is_begun_again_with_a_list(trouble: Any) -> None:
    async with Following(Source({"VirtualService": [route("iris")]})) as following:
        await following.until(lambda: following.state() == {State.KNOWN})
        following.source.lists["VirtualService"] = [route("iris", 9)]
        following.source.feeds["VirtualService"].put_nowait(trouble)
        await following.until(lambda: following.source.asked.count(("VirtualService", None)) >= 2)
        await following.until(lambda: [i.version for i in following.routes.objects_of(("shop", "iris"))] == [9])
        assert following.state() == {State.KNOWN}


async def test_a_watch_that_is_begun_again_wakes_those_whose_routes_have_changed_alone() -> None:
    async with Following(Source({"VirtualService": [route("iris"), route("same")]})) as following:
        await following.until(lambda: following.state() == {State.KNOWN})
        following.source.lists["VirtualService"] = [route("iris"), route("same"), route("new", namespace="elsewhere")]
        woken = len(following.woken)
        following.source.feeds["VirtualService"].put_nowait(None)
        await following.until(lambda: len(following.woken) > woken)
        assert following.woken[woken:] == [("elsewhere", "iris")]


async def test_a_bug_ends_no_watch_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Following(Source({"VirtualService": LookupError("a bug")})) as following:
        await following.until(lambda: following.source.asked.count(("VirtualService", None)) >= 2)
        assert "LookupError: a bug" in caplog.text
        following.source.lists = {}
        await following.until(lambda: following.state() == {State.KNOWN})


async def test_every_namespace_is_followed_by_itself() -> None:
    async with Following(Source(), "team-a", "team-b") as following:
        await following.until(lambda: following.state("team-a") == following.state("team-b") == {State.KNOWN})
        assert {namespace for _, namespace in following.source.asked} == {"team-a", "team-b"}


async def test_a_namespace_that_can_not_be_read_takes_nothing_from_another() -> None:
    source = Source({"VirtualService": [route("iris", namespace="team-a")]}, {"team-b": ApiError(403, "forbidden")})
    async with Following(source, "team-a", "team-b") as following:
        await following.until(lambda: following.state("team-b") == {State.FORBIDDEN})
        await following.until(lambda: following.state("team-a") == {State.KNOWN})
        assert following.routes.writable("VirtualService", "team-a")
        assert not following.routes.writable("VirtualService", "team-b")


@pytest.mark.parametrize("code", [401, 403])
async def test_what_can_not_be_read_now_is_not_told_to_be_there_lest_it_is_deleted(code: int) -> None:
    async with Following(Source({"VirtualService": [route("iris")]})) as following:
        await following.until(lambda: following.state() == {State.KNOWN})
        following.source.lists["VirtualService"] = ApiError(code, "not now")
        following.source.feeds["VirtualService"].put_nowait(None)
        await following.until(lambda: following.routes.state("VirtualService", "shop") is State.FORBIDDEN)
        assert following.routes.objects_of(("shop", "iris")) == []
        following.source.lists["VirtualService"] = [route("iris")]
        await following.until(lambda: following.state() == {State.KNOWN})
        assert [item.name for item in following.routes.objects_of(("shop", "iris"))] == ["iris"]
