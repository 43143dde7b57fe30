"""gRPC through the router's one port, in the real Envoy: the same shares, failover and marks as HTTP's."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.router.grpc_upstream import FEEDBACK, GrpcUpstream, call
from tests.router.harness import CANARY, OWNER, STABLE, Router, running

from serin_operator.api import callers
from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process
OK = grpc.StatusCode.OK


@dataclass
class Calls:
    """The router, the two gRPC servers behind it, and a client's connection."""

    router: Router
    stable: GrpcUpstream
    canary: GrpcUpstream
    channel: grpc.aio.Channel

    async def many(self, number: int, clients: int = 8) -> Counter[tuple[grpc.StatusCode, str]]:
        counts: Counter[tuple[grpc.StatusCode, str]] = Counter()

        async def client() -> None:
            for _ in range(number // clients):
                counts[await call(self.channel)] += 1

        await asyncio.gather(*(client() for _ in range(clients)))
        return counts


@asynccontextmanager
async def calls(
    binary: Path, directory: Path, route: Route, *, largest: int = -1, **options: Any
) -> AsyncIterator[Calls]:
    """largest: bytes of a message that the servers take; -1 for any."""
    async with running(binary, directory, route, **options) as router:
        servers = [
            GrpcUpstream(name, router.ports[OWNER.server(revision), 8081], largest=largest)
            for name, revision in (("stable", STABLE), ("canary", CANARY))
        ]
        address = f"127.0.0.1:{router.ports['0.0.0.0', 8080]}"
        async with (
            servers[0].running() as stable,
            servers[1].running() as canary,
            grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel,
        ):
            yield Calls(router, stable, canary, channel)


@pytest.fixture
async def half(envoy_binary: Path, tmp_path: Path) -> AsyncIterator[Calls]:
    """Half of the calls go to the canary."""
    async with calls(envoy_binary, tmp_path, Route(STABLE, CANARY, 50)) as found:
        yield found


async def test_the_canary_gets_its_share_of_calls(half: Calls) -> None:
    counts = await half.many(400)
    assert counts[OK, "canary"] + counts[OK, "stable"] == 400
    assert 150 < counts[OK, "canary"] < 250
    assert {*half.stable.attempts, *half.canary.attempts} == {"1"}
    assert half.router.stable.attempts == half.router.canary.attempts == []  # nothing of it went to their HTTP ports


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    ],
)
async def test_what_the_canary_fails_is_answered_by_stable_and_marked(half: Calls, status: grpc.StatusCode) -> None:
    half.canary.status = status
    assert await half.many(80) == {(OK, "stable"): 80}
    failed = len(half.canary.attempts)
    assert failed > 20
    assert Counter(half.stable.attempts) == {"2": failed, "1": 80 - failed}


async def test_what_both_refuse_is_the_clients_to_see(half: Calls) -> None:
    half.canary.status = half.stable.status = grpc.StatusCode.INVALID_ARGUMENT
    assert await half.many(40) == {(grpc.StatusCode.INVALID_ARGUMENT, "stable"): 40}


async def test_a_hung_canary_costs_half_the_timeout_at_most(envoy_binary: Path, tmp_path: Path) -> None:
    async with calls(envoy_binary, tmp_path, Route(STABLE, CANARY, 99), request_seconds=6.0) as found:
        found.canary.delay = 60.0
        started = time.monotonic()
        assert await found.many(16, clients=16) == {(OK, "stable"): 16}
        assert time.monotonic() - started > 2.9  # after six seconds it would be a timeout


async def test_labels_go_to_stable(envoy_binary: Path, tmp_path: Path) -> None:
    async with calls(envoy_binary, tmp_path, Route(STABLE, CANARY, 99)) as found:
        assert {await call(found.channel, FEEDBACK) for _ in range(20)} == {(OK, "stable")}
    assert set(found.stable.methods) == {FEEDBACK}
    assert found.canary.methods == []


async def test_testers_calls_reach_the_candidate_and_are_marked(envoy_binary: Path, tmp_path: Path) -> None:
    testers = callers.Testers(header=("x-tester", "yes"))
    async with calls(envoy_binary, tmp_path, Route(STABLE), testers=testers) as found:
        assert {await call(found.channel, x_tester="yes") for _ in range(10)} == {(OK, "canary")}
        assert {await call(found.channel, x_serin_tester="1") for _ in range(10)} == {(OK, "stable")}
        found.canary.status = grpc.StatusCode.INTERNAL
        assert await call(found.channel, x_tester="yes") == (grpc.StatusCode.INTERNAL, "canary")
    assert set(found.canary.marks) == {"1"}
    assert set(found.stable.marks) == {None}


async def test_a_callers_calls_stay_in_one_arm(envoy_binary: Path, tmp_path: Path) -> None:
    sticky = callers.Sticky(header="x-user")
    async with calls(envoy_binary, tmp_path, Route(STABLE, CANARY, 50), sticky=sticky) as found:
        arms = [{await call(found.channel, x_user=str(user)) for _ in range(5)} for user in range(20)]
    assert {len(arm) for arm in arms} == {1}
    assert len(set.union(*arms)) == 2


async def test_a_large_tensor_comes_through(half: Calls) -> None:
    body = b"x" * (3 << 20)
    assert {status for status, _ in [await call(half.channel, body=body) for _ in range(6)]} == {OK}


async def test_changes_of_the_weight_lose_no_call(half: Calls) -> None:
    traffic = asyncio.create_task(half.many(2000))
    while not traffic.done():
        for weight in (5, 50, 25):
            await half.router.set_route(Route(STABLE, CANARY, weight))
    counts = await traffic
    assert counts[OK, "stable"] + counts[OK, "canary"] == 2000
