"""The operator's Envoy files in the real Envoy: what clients see while a canary misbehaves."""

import asyncio
import math
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.loopback import until
from tests.router.harness import CANARY, LARGEST, STABLE, Router, running

from serin_operator.build import listeners
from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process


@pytest.fixture
async def half(envoy_binary: Path, tmp_path: Path) -> AsyncIterator[Router]:
    """A router that gives the canary half of the traffic."""
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50)) as router:
        yield router


@pytest.mark.parametrize("weight", [1, 10, 50])
async def test_the_canary_gets_its_share(envoy_binary: Path, tmp_path: Path, weight: int) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, weight)) as router:
        counts = await router.many(2000)
    assert sum(counts.values()) == counts[200, "stable"] + counts[200, "canary"] == 2000
    share = weight / 100
    assert abs(counts[200, "canary"] - 2000 * share) < 5 * math.sqrt(2000 * share * (1 - share))


@pytest.mark.parametrize("status", [500, 503, 400, 404, 422, 429])
async def test_what_the_canary_fails_is_answered_by_stable_and_marked_as_a_retry(half: Router, status: int) -> None:
    half.canary.status = status
    assert await half.many(400) == {(200, "stable"): 400}
    failed = len(half.canary.attempts)
    assert 100 < failed < 300
    assert set(half.canary.attempts) == {"1"}
    assert Counter(half.stable.attempts) == {"2": failed, "1": 400 - failed}


async def test_what_both_refuse_is_the_clients_to_see(half: Router) -> None:
    half.canary.status = half.stable.status = 400
    assert await half.many(80) == {(400, "stable"): 80}


async def test_a_canary_that_is_not_ready_gets_nothing_and_stable_is_asked_first(half: Router) -> None:
    half.canary.ready = False
    await half.reaches(stable=1, canary=0)
    half.canary.attempts.clear()
    assert await half.many(400) == {(200, "stable"): 400}
    assert half.canary.attempts == []
    assert set(half.stable.attempts) == {"1"}


async def test_no_health_check_passes_and_still_requests_are_served(half: Router) -> None:
    half.canary.ready = half.stable.ready = False
    await half.reaches(stable=0, canary=0)
    counts = await half.many(200)
    assert {status for status, _ in counts} == {200}


async def test_a_hung_canary_costs_half_the_timeout_at_most(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 99), request_seconds=6.0) as router:
        router.canary.delay = 60.0
        started = time.monotonic()
        assert await router.many(16, clients=16) == {(200, "stable"): 16}
        assert time.monotonic() - started > 2.9  # after six seconds it would be a timeout


async def test_a_slow_canary_that_answers_first_is_heard(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 99), request_seconds=8.0) as router:
        router.canary.delay, router.stable.delay = 5.0, 3.5
        counts = await router.many(16, clients=16)
    assert counts[200, "canary"] >= 12
    assert sum(counts.values()) == counts[200, "canary"] + counts[200, "stable"]


async def test_a_body_too_large_to_send_twice_goes_to_stable_at_once(half: Router) -> None:
    half.canary.status = 500
    body = b"x" * (LARGEST + 1)
    answers = [await half.one(data=body) for _ in range(6)]
    assert answers == [(200, "stable")] * 6
    assert half.canary.attempts == []


async def test_a_body_of_unknown_size_goes_to_the_canary_too(half: Router) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        yield b"}"

    half.canary.status = 500
    assert [await half.one(data=chunks()) for _ in range(40)] == [(200, "stable")] * 40
    assert 5 < len(half.canary.attempts) < 35


async def test_a_body_that_can_be_sent_twice_is(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 99)) as router:
        router.canary.status = 500
        answers = [await router.one(data=b"x" * LARGEST) for _ in range(6)]
    assert answers == [(200, "stable")] * 6
    assert router.canary.attempts


async def test_feedback_goes_to_stable(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 99)) as router:
        answers = [await router.one("/v2/models/digits/feedback") for _ in range(30)]
    assert answers == [(200, "stable")] * 30
    assert router.canary.paths == []


async def test_no_client_may_steer_the_router_by_headers(half: Router) -> None:
    forged = {
        "x-envoy-attempt-count": "2",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "retriable-4xx",
        "x-envoy-max-retries": "9",
    }
    half.canary.delay = half.stable.delay = 0.05
    half.stable.status = half.canary.status = 409
    answers = [await half.one(headers=forged) for _ in range(20)]
    assert answers == [(409, "stable")] * 20
    drawn = half.canary.attempts.count("1")
    assert Counter(half.canary.attempts) == Counter({"1": drawn, "3": drawn})
    assert Counter(half.stable.attempts) == Counter({"1": 20 - drawn, "2": drawn, "4": drawn})


async def test_changes_of_the_weight_lose_no_request_and_are_quick(half: Router) -> None:
    traffic = asyncio.create_task(half.many(4000))
    seconds = []
    while not traffic.done():
        for weight in (5, 50, 25):
            started = time.monotonic()
            await half.set_route(Route(STABLE, CANARY, weight))
            seconds.append(time.monotonic() - started)
    counts = await traffic
    assert counts[200, "stable"] + counts[200, "canary"] == 4000
    assert len(seconds) >= 3
    assert statistics.median(seconds) < 1.0  # one of them may fall into a moment in which the machine stands still


async def test_a_whole_rollout_loses_no_request(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE)) as router:
        router.write(Route(STABLE), with_canary=False)
        await router.reaches(stable=1, canary=0)
        traffic = asyncio.create_task(router.many(6000))
        router.write(Route(STABLE))  # the canary's clusters first, its route when they are healthy
        await router.reaches(stable=1, canary=1)
        await router.set_route(Route(STABLE, CANARY, 50))
        await router.set_route(Route(CANARY))
        while not traffic.done():
            await router.set_route(Route(CANARY))
        counts = await traffic
    assert counts[200, "stable"] + counts[200, "canary"] == 6000
    assert counts[200, "canary"] > 0


async def test_the_canary_dies_under_load_and_nobody_notices(half: Router) -> None:
    half.canary.delay = half.stable.delay = 0.02
    traffic = asyncio.create_task(half.many(2000, clients=16))
    await until(lambda: len(half.canary.attempts) > 100)
    await half.canary.die()
    counts = await traffic
    assert counts[200, "stable"] + counts[200, "canary"] == 2000
    assert counts[200, "stable"] > 1000
    assert "2" in half.stable.attempts


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ready"),
        ("POST", "/quitquitquit"),
        ("GET", "/quitquitquit"),
        ("GET", "/stats"),
        ("GET", "/stats/prometheus/../../memory"),
        ("GET", "//ready"),
        ("GET", "/"),
    ],
)
async def test_the_status_listener_shows_nothing_else(half: Router, method: str, path: str) -> None:
    url = f"http://127.0.0.1:{half.ports['0.0.0.0', listeners.STATUS_PORT]}{path}"
    async with half.session.request(method, url) as answer:
        assert answer.status == 404


async def test_envoy_has_no_complaint_about_the_configuration(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50)) as router:
        await router.set_route(Route(STABLE, CANARY, 25))
    log = (tmp_path / "envoy.log").read_text()
    assert "starting main dispatch loop" in log
    assert "eprecated" not in log
    assert "rejected" not in log
