"""Copies of gRPC calls in the real Envoy: as those of HTTP's requests, but that no call tells its size before."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from tests.loopback import until
from tests.router.grpc_upstream import FEEDBACK, INFER, call
from tests.router.harness import CANARY, LARGEST, OWNER, STABLE, eventually
from tests.router.test_grpc import OK, Calls, calls

from serin_operator.api import callers
from serin_operator.build.envoy import SHADOW_MARK as MARK
from serin_operator.build.mirroring import MIRRORED_AT_ONCE
from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process

ID = "x-request-id"
ALL = Route(STABLE, CANARY, mirror=100)


@pytest.fixture
async def mirrored(envoy_binary: Path, tmp_path: Path) -> AsyncIterator[Calls]:
    """A router that shows the canary all that stable answers."""
    async with calls(envoy_binary, tmp_path, ALL) as found:
        yield found


# What a server says first of what it would take at once: by HTTP/2's frames, as much as it can say, or nothing more
# than what it takes anyway, 64 KiB.
MUCH = struct.pack(">HBBBLHL", 0, 6, 4, 0, 0, 4, 2**31 - 1) + struct.pack(">HBBBLL", 0, 4, 8, 0, 0, 2**31 - 2**16)
LITTLE = struct.pack(">HBBBL", 0, 0, 4, 0, 0)


@asynccontextmanager
async def deaf(found: Calls, promised: bytes) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """In the canary's place something that promises to read, and leaves what comes in the sockets' buffers."""
    taken: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(promised)
        taken.append(writer)

    port = found.router.ports[OWNER.server(CANARY), 8081]
    await found.canary.stop()
    server = await asyncio.start_server(take, "127.0.0.1", port, limit=1024)
    try:
        yield taken
    finally:
        for writer in taken:
            writer.transport.abort()
        server.close()


async def nothing_is_copied(found: Calls) -> bool:
    """Whether no copy is under way."""
    told = await found.router.status("/clusters?format=json")
    (mirror,) = [one for one in told["cluster_statuses"] if one["name"].startswith("grpc-mirror-")]
    (active,) = [one for one in mirror["host_statuses"][0]["stats"] if one["name"] == "rq_active"]
    return bool(active.get("value", "0") == "0")


@pytest.mark.parametrize("percent", [20, 100])
async def test_the_canary_sees_its_share_and_only_stable_is_heard(
    envoy_binary: Path, tmp_path: Path, percent: int
) -> None:
    async with calls(envoy_binary, tmp_path, Route(STABLE, CANARY, mirror=percent)) as found:
        assert await found.many(800) == {(OK, "stable"): 800}
        marked = [metadata for metadata in found.stable.metadata if metadata.get(MARK) == "1"]
        await until(lambda: len(found.canary.metadata) == len(marked))
    share = percent / 100
    assert abs(len(marked) - 800 * share) <= 5 * math.sqrt(800 * share * (1 - share))
    assert len(found.stable.metadata) == 800
    assert found.router.stable.attempts == found.router.canary.attempts == []  # nothing of it went to their HTTP ports


async def test_both_copies_have_the_mark_one_id_and_the_same_message(mirrored: Calls) -> None:
    bodies = [b"%d" % number for number in range(40)]
    await asyncio.gather(*(call(mirrored.channel, body=body) for body in bodies))
    await until(lambda: len(mirrored.canary.metadata) == 40)
    both = [
        {(metadata[ID], message) for metadata, message in zip(upstream.metadata, upstream.messages, strict=True)}
        for upstream in (mirrored.stable, mirrored.canary)
    ]
    assert both[0] == both[1]
    assert len({request_id for request_id, _ in both[0]}) == 40
    for upstream in (mirrored.stable, mirrored.canary):
        assert {metadata[MARK] for metadata in upstream.metadata} == {"1"}
        assert upstream.methods == [INFER] * 40
        assert set(upstream.attempts) == {"1"}


@pytest.mark.parametrize("route", [ALL, Route(STABLE), Route(STABLE, CANARY, weight=50)], ids=str)
async def test_no_client_names_its_call_or_marks_it(envoy_binary: Path, tmp_path: Path, route: Route) -> None:
    forged = "11111111-1111-4111-8111-111111111111"
    async with calls(envoy_binary, tmp_path, route) as found:
        for _ in range(10):
            await call(found.channel, x_request_id=forged, x_serin_shadow="1")
        for metadata in (*found.stable.metadata, *found.canary.metadata):
            assert metadata[ID] != forged
            assert metadata.get(MARK) == ("1" if route.mirror else None)


@pytest.mark.parametrize("status", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE])
async def test_what_the_canary_fails_is_not_asked_again(mirrored: Calls, status: grpc.StatusCode) -> None:
    mirrored.canary.status = status
    assert await mirrored.many(80) == {(OK, "stable"): 80}
    await until(lambda: len(mirrored.canary.metadata) == 80)
    assert mirrored.stable.attempts == ["1"] * 80


async def test_a_retry_of_stables_is_one_copy(mirrored: Calls) -> None:
    """Stable has one pod here, so UNAVAILABLE is asked of the same again; the canary must not count that call twice."""
    mirrored.stable.status = grpc.StatusCode.UNAVAILABLE
    assert await mirrored.many(16) == {(grpc.StatusCode.UNAVAILABLE, "stable"): 16}
    await until(lambda: len(mirrored.canary.metadata) == 16)
    assert set(mirrored.canary.attempts) == {"1"}
    assert mirrored.stable.attempts.count("1") == 16


async def test_a_hung_canary_costs_nobody_time_and_few_copies_wait_for_it(mirrored: Calls) -> None:
    mirrored.canary.delay = 60.0  # a call that waited for it would miss its own deadline
    assert await mirrored.many(800, clients=16) == {(OK, "stable"): 800}
    assert 0 < len(mirrored.canary.metadata) <= MIRRORED_AT_ONCE


@pytest.mark.parametrize("promised", [LITTLE, MUCH], ids=["little", "much"])
async def test_a_canary_that_reads_nothing_holds_no_large_call_up(mirrored: Calls, promised: bytes) -> None:
    async with deaf(mirrored, promised) as taken:  # for longer than the calls' deadlines
        answers = await asyncio.gather(*(call(mirrored.channel, body=b"x" * LARGEST) for _ in range(8)))
        assert answers == [(OK, "stable")] * 8
        assert taken


async def test_what_servers_refuse_for_its_size_is_refused_whatever_the_canary_does(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """Nothing bounds such a message on its way; it begins with its length, and that is what stable hears first."""
    async with calls(envoy_binary, tmp_path, ALL, largest=LARGEST) as found, deaf(found, LITTLE) as taken:
        assert (await call(found.channel, body=b"x" * 5 * LARGEST))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert taken
        await eventually(lambda: nothing_is_copied(found))
        assert (await call(found.channel, body=b"x" * (LARGEST + 1)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(found.channel, body=b"x" * LARGEST) == (OK, "stable")


async def test_a_large_call_is_copied_in_full(mirrored: Calls) -> None:
    body = b"x" * LARGEST
    assert await call(mirrored.channel, body=body) == (OK, "stable")
    await until(lambda: len(mirrored.canary.messages) == 1)
    assert mirrored.canary.messages == mirrored.stable.messages == [body]


async def test_a_canary_that_is_down_is_not_noticed(mirrored: Calls) -> None:
    traffic = asyncio.create_task(mirrored.many(800, clients=16))
    await until(lambda: len(mirrored.canary.metadata) > 100)
    await mirrored.canary.stop()
    assert await traffic == {(OK, "stable"): 800}


async def test_only_inferences_are_copied(mirrored: Calls) -> None:
    other = "/inference.GRPCInferenceService/ModelMetadata"
    for method in (other, FEEDBACK, INFER):
        assert await call(mirrored.channel, method) == (OK, "stable")
    await until(lambda: len(mirrored.canary.methods) == 1)
    assert mirrored.canary.methods == [INFER]
    assert [MARK in metadata for metadata in mirrored.stable.metadata] == [False, False, True]


async def test_testers_get_the_canarys_own_answer_and_no_copy(envoy_binary: Path, tmp_path: Path) -> None:
    testers = callers.Testers(header=("x-tester", "yes"))
    async with calls(envoy_binary, tmp_path, ALL, testers=testers) as found:
        assert await call(found.channel, x_tester="yes") == (OK, "canary")
        assert [MARK in metadata for metadata in found.canary.metadata] == [False]
        assert found.stable.metadata == []


async def test_requests_and_calls_are_copied_side_by_side(mirrored: Calls) -> None:
    router = mirrored.router
    await asyncio.gather(router.many(80), mirrored.many(80))
    await until(lambda: len(router.canary.headers) == len(mirrored.canary.metadata) == 80)
    ids = {headers[ID] for headers in (*router.canary.headers, *mirrored.canary.metadata)}
    assert len(ids) == 160
