"""What a router does that has no room for more requests, in the real Envoy."""

import asyncio
from pathlib import Path

import pytest
from tests.loopback import until
from tests.router.harness import LARGEST, STABLE, Router, eventually, running

from serin_operator.build import listeners
from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process

LIMIT_MIB = 104  # of which 70 % are about seven and a half of the largest requests, so that no small change matters
LONG = 300.0  # seconds: what is held is held until the end, however busy the machine is


async def test_a_router_that_is_full_refuses_new_requests_and_answers_those_that_it_has(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """One that went on would be killed for its memory, with all requests that it has."""
    resources = {"limits": {"memory": f"{LIMIT_MIB}Mi"}}
    async with running(
        envoy_binary, tmp_path, Route(STABLE), request_seconds=LONG, router_resources=resources
    ) as router:
        router.stable.delay = LONG
        held = await fill(router)
        assert 4 <= len(held) < LIMIT_MIB // 8
        assert await router.one(data=b"{}") == (503, "nobody")
        assert (await router.status("/clusters?format=json"))["cluster_statuses"]  # probes and scrapes go on
        for waiting in held:
            waiting.cancel()
        router.stable.delay = 0.0
        await eventually(lambda: answers(router))
        assert await router.many(64) == {(200, "stable"): 64}


async def answers(router: Router) -> bool:
    return await router.one(data=b"{}") == (200, "stable")


async def fill(router: Router) -> list[asyncio.Task[tuple[int, str]]]:
    """As many of the largest requests as it takes, one after the other; they wait for their answers."""
    held: list[asyncio.Task[tuple[int, str]]] = []
    while (one := await posted(router, len(held))) is not None:
        held.append(one)
        await eventually(lambda: sees(router, len(held)))
    return held


async def posted(router: Router, held: int) -> asyncio.Task[tuple[int, str]] | None:
    """One of the largest requests, once stable has it; None where it is refused."""
    one = asyncio.create_task(router.one(data=b"x" * LARGEST))
    await until(lambda: len(router.stable.attempts) > held or one.done())
    return None if one.done() and await one == (503, "nobody") else one


async def sees(router: Router, held: int) -> bool:
    """Whether Envoy has looked at its memory since it has so many of the largest requests."""
    url = f"http://127.0.0.1:{router.ports['0.0.0.0', listeners.STATUS_PORT]}/stats/prometheus"
    async with router.session.get(url) as answer:
        metrics = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#")
    per_cent = float(metrics["envoy_overload_envoy_resource_monitors_fixed_heap_pressure{}"])
    return per_cent >= 100 * held * LARGEST // (LIMIT_MIB << 20)
