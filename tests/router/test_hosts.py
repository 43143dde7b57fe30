"""Pods that the cluster's DNS names and that are not ready, in the real Envoy."""

from pathlib import Path

import pytest
from tests.router.harness import CANARY, STABLE, eventually, running
from tests.router.test_outliers import healthy, two_pods

from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process


async def test_pods_that_start_get_no_requests_and_take_nothing_from_the_canary_s_share(
    envoy_binary: Path, tmp_path: Path
) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE)) as router:
        router.starting = 4
        route = Route(STABLE, CANARY, 50)
        await router.set_route(route)
        await router.reaches(stable=1, canary=1)
        counts = await router.many(400)
        assert counts[200, "stable"] + counts[200, "canary"] == 400
        assert 150 < counts[200, "canary"] < 250  # five standard deviations
        assert set(router.canary.attempts) | set(router.stable.attempts) == {"1"}


async def test_a_shadow_s_pods_that_start_get_no_copies(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE)) as router:
        router.starting = 4
        await router.set_route(Route(STABLE, CANARY, 0, 100))
        await router.reaches(stable=1, canary=1)
        await router.many(16)
        before = len(router.canary.attempts)
        assert await router.many(160) == {(200, "stable"): 160}
        assert len(router.canary.attempts) - before == 160


async def test_a_pod_that_answers_again_is_asked_before_its_next_health_check_if_no_other_is_left(
    envoy_binary: Path, tmp_path: Path
) -> None:
    async with two_pods(envoy_binary, tmp_path) as (router, second):
        second.ready = False

        async def one() -> bool:
            return await healthy(router) == 1

        await eventually(one)
        await router.stable.die()
        assert await router.many(64) == {(200, "second"): 64}
