"""The routers' log of single requests, as the real Envoy writes it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import until
from tests.router.harness import INFER, STABLE, running

from serin_operator.decide.observed import Route

pytestmark = pytest.mark.process


def lines(directory: Path) -> list[dict[str, Any]]:
    text = (directory / "envoy.log").read_text().rpartition("\n")[0]  # the last one may be half written
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


async def test_what_fails_is_logged_and_the_sample_of_the_rest(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE), access_log=0.0) as router:
        assert await router.one() == (200, "stable")
        router.stable.status = 500
        assert await router.one(headers={"x-secret": "do not log", "x-request-id": "mine"}) == (500, "stable")
        await until(lambda: bool(lines(tmp_path)))
    (line,) = lines(tmp_path)
    assert (line["method"], line["path"], line["status"]) == ("POST", INFER, 500)
    assert (line["route"], line["cluster"], line["attempts"]) == ("stable", f"revision-{STABLE}", 1)
    assert line["message"] == "request"
    assert "flags" not in line or line["flags"] != ""
    assert "do not log" not in json.dumps(line)


async def test_all_can_be_logged(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE), access_log=1.0) as router:
        await router.many(80)
        await until(lambda: len(lines(tmp_path)) == 80)
    assert {line["status"] for line in lines(tmp_path)} == {200}


async def test_without_the_field_nothing_is_logged(envoy_binary: Path, tmp_path: Path) -> None:
    async with running(envoy_binary, tmp_path, Route(STABLE)) as router:
        router.stable.status = 500
        await router.many(16)
    assert lines(tmp_path) == []
