"""Pods that pass their health checks and break connections or never answer, in the real Envoy."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import Upstream, until
from tests.router.harness import CANARY, STABLE, Router, eventually, running

from serin_operator.build.envoy import cluster_of
from serin_operator.decide.observed import Route
from serin_operator.observe.routers import healthy_hosts

pytestmark = pytest.mark.process


async def healthy(router: Router) -> int:
    """How many of stable's pods the router would choose."""
    clusters = (await router.status("/clusters?format=json"))["cluster_statuses"]
    own = [cluster for cluster in clusters if cluster["name"] == cluster_of(STABLE)]
    return healthy_hosts({"cluster_statuses": own})[STABLE]


@asynccontextmanager
async def two_pods(binary: Path, directory: Path, **settings: Any) -> AsyncIterator[tuple[Router, Upstream]]:
    """A router that sees two healthy pods of stable's, and the second of them."""
    async with Upstream("second").running() as second, running(binary, directory, Route(STABLE), **settings) as router:
        router.second = second
        router.write(Route(STABLE), with_canary=False)

        async def both() -> bool:
            return await healthy(router) == 2

        await eventually(both)
        yield router, second


async def test_a_pod_that_breaks_connections_is_spared_and_nobody_notices(envoy_binary: Path, tmp_path: Path) -> None:
    async with two_pods(envoy_binary, tmp_path) as (router, second):
        second.breaks = True

        async def one() -> bool:
            assert await router.many(16) == {(200, "stable"): 16}
            return await healthy(router) == 1

        await eventually(one)
        tried = len(second.attempts)
        assert await router.many(80) == {(200, "stable"): 80}
        assert len(second.attempts) - tried < 20  # it would be 40


async def test_a_request_that_a_pod_broke_goes_to_another_however_busy_that_is(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """The pod that breaks connections has nothing under way, so by load alone it would be chosen again and again."""
    async with two_pods(envoy_binary, tmp_path, request_seconds=120.0) as (router, second):
        router.stable.delay = 60.0
        waiting = [asyncio.create_task(router.one(data=b"{}")) for _ in range(60)]
        await until(lambda: len(router.stable.attempts) + len(second.attempts) == 60)
        router.stable.delay = 0.0
        assert len(router.stable.attempts) > 5
        for _ in range(50):
            second.breaks = True
            assert await router.one(data=b"{}") == (200, "stable")
            second.breaks = False
            while await router.one(data=b"{}") != (200, "second"):  # else it would be spared after five failures
                pass
        for task in waiting:
            task.cancel()


async def test_what_a_canary_and_one_of_stable_s_pods_break_is_answered_by_the_other(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """As when the node of both is lost."""
    async with two_pods(envoy_binary, tmp_path) as (router, second):
        await router.set_route(Route(STABLE, CANARY, 100))
        router.canary.breaks = second.breaks = True
        assert await router.many(64) == {(200, "stable"): 64}
        assert len(router.canary.attempts) >= 64
        assert second.attempts


async def test_an_arm_with_one_pod_keeps_it_and_stable_answers_what_it_breaks(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """A canary that were spared would get no requests, and so no evidence against it."""
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50)) as router:
        router.canary.breaks = True
        for _ in range(3):
            before = len(router.canary.attempts)
            assert await router.many(80) == {(200, "stable"): 80}
            assert len(router.canary.attempts) - before > 20


async def test_errors_that_a_model_answers_spare_no_pod(envoy_binary: Path, tmp_path: Path) -> None:
    async with two_pods(envoy_binary, tmp_path) as (router, second):
        second.status = 500
        counts = await router.many(160)
        assert counts[500, "second"] > 40
        assert await healthy(router) == 2


async def test_what_a_hung_pod_holds_is_answered_by_another_and_the_pod_is_spared(
    envoy_binary: Path, tmp_path: Path
) -> None:
    async with two_pods(envoy_binary, tmp_path, request_seconds=6.0) as (router, second):
        second.delay = 60.0
        started = time.monotonic()
        assert await router.many(32, clients=32) == {(200, "stable"): 32}
        assert time.monotonic() - started > 2.9  # after six seconds it would be a timeout
        assert len(second.attempts) >= 3  # it had its share
        assert await healthy(router) == 1
