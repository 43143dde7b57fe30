"""Testers and callers that stay in one arm, in the real Envoy."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import Upstream
from tests.router.harness import CANARY, STABLE, Router, running

from serin_operator.api import callers
from serin_operator.api.callers import Sticky
from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process

TESTERS = callers.Testers(header=("x-tester", "yes"), cookie=("preview", "on"))
BY_HEADER = {"x-tester": "yes"}
BY_COOKIE = {"cookie": "session=1; preview=on"}
CALLERS = [f"caller-{number}" for number in range(1000)]
KINDS = [
    pytest.param(Sticky(header="x-user"), "x-user: {}", id="header"),
    pytest.param(Sticky(cookie="session"), "cookie: other=1; session={}; last=2", id="cookie"),
]


def marks(upstream: Upstream) -> list[str | None]:
    """Per request, whether it came marked as a tester's."""
    return [headers.get("x-serin-tester") for headers in upstream.headers]


@pytest.mark.parametrize("headers", [BY_HEADER, BY_COOKIE], ids=["header", "cookie"])
async def test_testers_reach_the_candidate_before_it_has_any_weight(
    envoy_binary: Path, tmp_path: Path, headers: dict[str, str]
) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE), testers=TESTERS) as router:
        assert {await router.one(headers=headers) for _ in range(20)} == {(200, "canary")}
        assert {await router.one() for _ in range(20)} == {(200, "stable")}
    assert marks(router.canary) == ["1"] * 20
    assert marks(router.stable) == [None] * 20


async def test_what_is_almost_a_testers_request_is_none(envoy_binary: Path, tmp_path: Path) -> None:
    almost = [{"x-tester": "no"}, {"x-tester": "yes!"}, {"cookie": "preview=off"}, {"cookie": "my-preview=on"}]
    async with running(envoy_binary, tmp_path, Route(STABLE), testers=TESTERS) as router:
        assert {await router.one(headers=headers) for headers in almost} == {(200, "stable")}
    assert marks(router.stable) == [None] * 4


async def test_testers_do_not_change_the_share_of_others(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 10), testers=TESTERS) as router:
        counts: Counter[tuple[int, str]] = Counter()
        for _ in range(20):
            answers = await asyncio.gather(*(router.one() for _ in range(50)), *(router.one(headers=BY_HEADER),) * 1)
            counts.update(answers[:50])
    assert 55 <= counts[200, "canary"] <= 150  # 5 standard deviations around 100
    assert marks(router.canary).count(None) == counts[200, "canary"]
    assert marks(router.canary).count("1") == 20


async def test_a_tester_sees_the_candidates_error_and_a_client_does_not(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50), testers=TESTERS) as router:
        router.canary.status = 500
        assert {await router.one(headers=BY_HEADER) for _ in range(10)} == {(500, "canary")}
        assert {await router.one() for _ in range(20)} == {(200, "stable")}


async def test_a_tester_is_answered_by_stable_while_the_router_sees_no_pod_of_the_candidate_ready(
    envoy_binary: Path, tmp_path: Path
) -> None:
    """The operator may see a pod ready before the router does."""
    async with running(envoy_binary, tmp_path, Route(STABLE), testers=TESTERS) as router:
        router.canary.ready = False
        await router.reaches(stable=1, canary=0)
        assert {await router.one(headers=BY_HEADER) for _ in range(20)} == {(200, "stable")}
        router.canary.ready = True
        await router.reaches(stable=1, canary=1)
        assert {await router.one(headers=BY_HEADER) for _ in range(20)} == {(200, "canary")}
    assert set(marks(router.stable)) == {"1"}


async def test_a_testers_labels_go_to_stable(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE), testers=TESTERS) as router:
        assert await router.one("/v2/models/digits/feedback", headers=BY_HEADER) == (200, "stable")


async def test_without_a_candidate_testers_are_stables_and_still_apart(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE), testers=TESTERS) as router:
        router.write(Route(STABLE), with_canary=False)
        await router.reaches(stable=1, canary=0)
        assert await router.one(headers=BY_HEADER) == (200, "stable")
    assert marks(router.stable) == ["1"]


async def test_nobody_marks_a_request_but_the_router(envoy_binary: Path, tmp_path: Path) -> None:
    forged = {"x-serin-tester": "1"}
    for testers in (None, TESTERS):
        directory = tmp_path / str(testers is None)
        directory.mkdir()
        async with running(envoy_binary, directory, Route(STABLE, CANARY, 50), testers=testers) as router:
            assert {status for status, _ in [await router.one(headers=forged) for _ in range(20)]} == {200}
        assert {*marks(router.stable), *marks(router.canary)} == {None}


async def on_canary(router: Router, header: str) -> set[str]:
    """The callers that the canary answers, each asking once."""
    name, _, template = header.partition(": ")

    async def one(caller: str) -> str | None:
        status, by = await router.one(headers={name: template.format(caller)})
        assert status == 200
        return caller if by == "canary" else None

    found: set[str] = set()
    for start in range(0, len(CALLERS), 50):
        answers = await asyncio.gather(*map(one, CALLERS[start : start + 50]))
        found.update(answer for answer in answers if answer)
    return found


@pytest.mark.parametrize(("sticky", "header"), KINDS)
async def test_a_caller_that_reached_the_canary_stays_there_while_the_weight_rises(
    envoy_binary: Path, tmp_path: Path, sticky: Sticky, header: str
) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 5), sticky=sticky) as router:
        before: set[str] = set()
        for weight in (5, 25, 50):
            await router.set_route(Route(STABLE, CANARY, weight))
            found = await on_canary(router, header)
            assert before <= found
            assert abs(len(found) - 10 * weight) < 5 * (1000 * weight / 100 * (1 - weight / 100)) ** 0.5
            before = found
        assert await on_canary(router, header) == before


async def test_callers_of_one_address_share_an_arm(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50), sticky=Sticky()) as router:
        forged = [{"x-serin-caller": str(number)} for number in range(30)]
        assert len({await router.one(headers=headers) for headers in forged}) == 1


async def test_requests_without_the_key_are_drawn_one_by_one(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50), sticky=Sticky(cookie="session")) as router:
        counts = await router.many(400)
    assert 150 < counts[200, "canary"] < 250


async def test_a_sticky_caller_does_not_see_the_canary_fail(envoy_binary: Path, tmp_path: Path) -> None:
    sticky = Sticky(header="x-user")
    async with running(envoy_binary, tmp_path, Route(STABLE, CANARY, 50), sticky=sticky, request_seconds=6.0) as router:
        ours = sorted(await on_canary(router, "x-user: {}"))[:8]
        router.canary.status = 500
        assert {await router.one(headers={"x-user": caller}) for caller in ours} == {(200, "stable")}
        router.canary.delay = 60.0
        slow: list[Any] = await asyncio.gather(*(router.one(headers={"x-user": caller}) for caller in ours))
        assert set(slow) == {(200, "stable")}


async def test_another_canary_begins_with_other_callers(envoy_binary: Path, tmp_path: Path) -> None:
    found = []
    for number, (stable, canary) in enumerate([(STABLE, CANARY), (CANARY, STABLE)]):
        directory = tmp_path / str(number)
        directory.mkdir()
        route = Route(stable, canary, 25)
        async with running(envoy_binary, directory, route, sticky=Sticky(header="x-user")) as router:
            reached = await on_canary(router, "x-user: {}")
            found.append(reached if canary == CANARY else set(CALLERS) - reached)
    assert abs(len(found[0] & found[1]) - 1000 / 16) < 5 * (1000 * 15 / 256) ** 0.5
