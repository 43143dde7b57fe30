"""Copies of live requests in the real Envoy: what the canary gets to see, and that no client notices any of it."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yarl
from tests.loopback import until
from tests.router.harness import CANARY, INFER, LARGEST, STABLE, Router, running

from serin_operator.build import envoy as config
from serin_operator.build.mirroring import MIRRORED_AT_ONCE
from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process

MARK, ID = config.SHADOW_MARK, "x-request-id"
ALL = Route(STABLE, CANARY, mirror=100)


@pytest.fixture
async def mirrored(envoy_binary: Path, tmp_path: Path) -> AsyncIterator[Router]:
    """A router that shows the canary all that stable answers."""
    async with running(envoy_binary, tmp_path, ALL) as router:
        yield router


@pytest.mark.parametrize("percent", [1, 20, 100])
async def test_the_canary_sees_its_share_and_only_stable_is_heard(
    envoy_binary: Path, tmp_path: Path, percent: int
) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, mirror=percent)) as router:
        assert await router.many(2000) == {(200, "stable"): 2000}
        marked = [headers[ID] for headers in router.stable.headers if headers.get(MARK) == "1"]
        await until(lambda: len(router.canary.headers) == len(marked))
    share = percent / 100
    assert abs(len(marked) - 2000 * share) <= 5 * math.sqrt(2000 * share * (1 - share))
    assert len(router.stable.headers) == 2000


async def test_both_copies_have_the_mark_and_one_id(mirrored: Router) -> None:
    await mirrored.many(80)
    await until(lambda: len(mirrored.canary.headers) == 80)
    ids = [[headers[ID] for headers in upstream.headers] for upstream in (mirrored.stable, mirrored.canary)]
    assert set(ids[0]) == set(ids[1])
    assert len(set(ids[0])) == 80
    for upstream in (mirrored.stable, mirrored.canary):
        assert {headers[MARK] for headers in upstream.headers} == {"1"}
        assert upstream.paths == [INFER] * 80
        assert set(upstream.attempts) == {"1"}
    hosts = {headers["host"] for headers in mirrored.stable.headers}
    assert {headers["host"] for headers in mirrored.canary.headers} == hosts


async def test_no_client_names_its_request_or_marks_it(envoy_binary: Path, tmp_path: Path) -> None:
    forged = {ID: "11111111-1111-4111-8111-111111111111", MARK: "1"}
    for route in (ALL, Route(STABLE), Route(STABLE, CANARY, weight=50)):
        (tmp_path / str(route.mirror) / str(route.weight)).mkdir(parents=True)
        directory = tmp_path / str(route.mirror) / str(route.weight)
        async with running(envoy_binary, directory, route) as router:
            for _ in range(10):
                await router.one(headers=forged)
            await until(lambda: len(router.stable.headers) + len(router.canary.headers) >= 10)
            for headers in (*router.stable.headers, *router.canary.headers):
                assert headers.getall(ID) != [forged[ID]]  # type: ignore[attr-defined]
                assert headers.getall(MARK, []) == (["1"] if route.mirror else [])  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_what_the_canary_fails_is_not_asked_again(mirrored: Router, status: int) -> None:
    mirrored.canary.status = status
    assert await mirrored.many(80) == {(200, "stable"): 80}
    await until(lambda: len(mirrored.canary.headers) == 80)
    assert mirrored.stable.attempts == ["1"] * 80


async def test_a_hung_canary_costs_nobody_time_and_few_copies_wait_for_it(mirrored: Router) -> None:
    mirrored.canary.delay = 60.0
    started = time.monotonic()
    assert await mirrored.many(800, clients=16) == {(200, "stable"): 800}
    assert time.monotonic() - started < 10
    assert len(mirrored.canary.headers) <= MIRRORED_AT_ONCE


async def test_a_canary_that_reads_nothing_holds_no_large_request_up(envoy_binary: Path, tmp_path: Path) -> None:
    """It takes connections and leaves what comes in the sockets' buffers: the copies back up, not the requests."""
    taken: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        taken.append(writer)

    async with running(envoy_binary, tmp_path, ALL) as router:
        await router.canary.die()
        deaf = await asyncio.start_server(take, "127.0.0.1", router.canary.port, limit=1024)
        try:
            started = time.monotonic()
            answers = await asyncio.gather(*(router.one(data=b"x" * LARGEST) for _ in range(8)))
            assert answers == [(200, "stable")] * 8
            assert time.monotonic() - started < 10
            assert taken
        finally:
            for writer in taken:
                writer.transport.abort()
            deaf.close()


async def test_a_canary_that_is_down_or_dies_is_not_noticed(mirrored: Router) -> None:
    mirrored.canary.delay = mirrored.stable.delay = 0.02
    traffic = asyncio.create_task(mirrored.many(1600, clients=16))
    await until(lambda: len(mirrored.canary.headers) > 100)
    await mirrored.canary.die()
    assert await traffic == {(200, "stable"): 1600}


async def test_what_is_too_large_to_hold_is_not_copied(mirrored: Router) -> None:
    assert await mirrored.one(data=b"x" * (LARGEST + 1)) == (200, "stable")
    assert await mirrored.one(data=b"x" * LARGEST) == (200, "stable")
    await until(lambda: len(mirrored.canary.headers) == 1)
    assert [MARK in headers for headers in mirrored.stable.headers] == [False, True]
    assert [int(headers["content-length"]) for headers in mirrored.canary.headers] == [LARGEST]


@pytest.mark.parametrize("path", ["/v2/models/digits/feedback", "/v2/models/digits", "/v2/health/live"])
async def test_only_inferences_are_copied(mirrored: Router, path: str) -> None:
    assert await mirrored.one(path, data=b"{}") == (200, "stable")
    assert await mirrored.one("/v2/models/digits/versions/1/infer", data=b"{}") == (200, "stable")
    await until(lambda: len(mirrored.canary.headers) == 1)
    assert mirrored.canary.paths == ["/v2/models/digits/versions/1/infer"]
    assert [MARK in headers for headers in mirrored.stable.headers] == [False, True]


async def test_a_retry_of_stables_is_one_copy(mirrored: Router) -> None:
    """Stable has one pod here, so a 503 is asked of the same again; the canary must not count that request twice."""
    mirrored.stable.status = 503
    assert await mirrored.many(16) == {(503, "stable"): 16}
    await until(lambda: len(mirrored.canary.headers) == 16)
    by_attempt = Counter(mirrored.stable.attempts)
    assert by_attempt["1"] == 16 and by_attempt["2"] == 16
    assert {headers[ID] for headers in mirrored.stable.headers} == {headers[ID] for headers in mirrored.canary.headers}
    assert set(mirrored.canary.attempts) == {"1"}


async def test_mirroring_begins_and_ends_under_load_without_a_loss(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE)) as router:
        traffic = asyncio.create_task(router.many(4000))
        for route in (ALL, Route(STABLE), Route(STABLE, CANARY, mirror=10), Route(STABLE, CANARY, weight=10)):
            await router.set_route(route)
        counts = await traffic
    assert sum(counts.values()) == counts[200, "stable"] + counts[200, "canary"] == 4000


@pytest.mark.parametrize("path", ["/answers", "/answers/new", "/./answers", "//answers", "/x/../answers?n=1"])
async def test_what_servers_tell_each_other_is_closed_to_clients(mirrored: Router, path: str) -> None:
    url = yarl.URL(f"http://127.0.0.1:{mirrored.ports['0.0.0.0', 8080]}/v2/models/digits{path}", encoded=True)
    async with mirrored.session.post(url, data=b"{}") as answer:
        assert answer.status == 404
    assert mirrored.stable.paths == mirrored.canary.paths == []
