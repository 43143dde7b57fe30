"""A rollout of the past out of a Prometheus server: baselines, restarts and verdicts as the operator's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.loopback import free_port
from tests.operator.cli.files import Ran, serin

Capture = pytest.CaptureFixture[str]
START = 1_750_000_000
CANARY, STABLE = "c" * 10, "5" * 10
FLAGS = ["--namespace", "shop", "--name", "iris", "--canary", CANARY, "--stable", STABLE]
TIMES = ["--start", "2025-06-15T15:06:40Z", "--end", START + 1200, "--step", "30s"]

Vector = list[dict[str, Any]]


def vector(time: float, *points: tuple[float, dict[str, str]]) -> Vector:
    """As Prometheus writes an instant vector."""
    return [{"metric": labels, "value": [time, str(value)]} for value, labels in points]


def counted(pod: str, revision: str, started: float, requests: int, share: float) -> list[tuple[float, dict[str, str]]]:
    """What one pod's counters show."""
    common = {"namespace": "shop", "pod": pod}
    answered = {**common, "__name__": "serin_requests_total", "revision": revision, "attempt": "first"}
    bad = int(requests * share)
    return [
        (started, {**common, "__name__": "process_start_time_seconds"}),
        (requests - bad, {**answered, "code": "200"}),
        (bad, {**answered, "code": "500"}),
    ]


def world(share: float) -> Callable[[float], Vector]:
    """One request a second to the canary, of which this share fails, and nine to stable, of which 5 % do.

    The stable pod had served for an hour before; the canary's restarts after ten minutes.
    """

    def at(time: float) -> Vector:
        age = time - START
        began = START - 60 if age < 600 else START + 600
        asked = int(max(0.0, time - max(began, START)))
        return vector(
            time,
            *counted("iris-stable", STABLE, START - 3600, int(9 * (3600 + age)), 0.05),
            *counted("iris-canary", CANARY, began, asked, share),
        )

    return at


@asynccontextmanager
async def prometheus(at: Callable[[float], Vector]) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that knows these counters; gives its address and the queries that came."""
    asked: list[str] = []

    async def query(request: web.Request) -> web.Response:
        form = await request.post()
        text, time = str(form["query"]), float(str(form["time"]))
        asked.append(text)
        found = at(time)
        if text.startswith("group by (pod, revision)"):
            arms = {(entry["metric"].get("pod"), entry["metric"].get("revision")) for entry in found}
            found = vector(time, *((1, {"pod": pod, "revision": arm}) for pod, arm in arms if pod and arm))
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": found}})

    application = web.Application()
    application.router.add_post("/api/v1/query", query)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        await runner.cleanup()


async def replayed(capsys: Capture, at: Callable[[float], Vector], *flags: object) -> Ran:
    async with prometheus(at) as (address, _):
        arguments = ["replay", "prometheus", "--address", address, *FLAGS, *TIMES, *flags]
        return await asyncio.to_thread(serin, capsys, *arguments)


def policy(tmp_path: Path, analysis: str = "", rollout: str = "{}") -> Path:
    file = tmp_path / "policy.yaml"
    metrics = "metrics: [{name: errors, margin: 0.05}]"
    file.write_text(f"analysis: {{{metrics}{analysis}}}\nrollout: {rollout}\n")
    return file


async def test_a_bad_canary_would_have_been_rolled_back(capsys: Capture, tmp_path: Path) -> None:
    ran = await replayed(capsys, world(0.25), "--policy", policy(tmp_path), "--json")
    assert ran.code == 0
    (verdict,) = ran.verdicts
    assert verdict["verdict"] == "rollback" and verdict["series"] is None
    assert verdict["time"].startswith("2025-06-15T15:") and verdict["time"].endswith("Z")
    assert len(ran.evidence) == 40  # every look after the first, which is the baseline


async def test_what_was_before_does_not_count_and_a_restart_is_seen(capsys: Capture, tmp_path: Path) -> None:
    ran = await replayed(capsys, world(0.05), "--policy", policy(tmp_path))
    assert "Promoted at 2025-06-15T15:" in ran.out
    ran = await replayed(capsys, world(0.25), "--policy", policy(tmp_path), "--role", "Observe")
    # The restart lost what the canary counted in its last 30 seconds, and nothing else.
    assert "of 1,170 failed against 5.0 % of 10,800 of stable" in ran.out


async def test_steps_and_a_calibration_are_the_policys(capsys: Capture, tmp_path: Path) -> None:
    steps = "{steps: [{weight: 5, duration: 300s}, {weight: 50, duration: 600s}]}"
    file = policy(tmp_path, ", calibration: 2m", steps)
    ran = await replayed(capsys, world(0.05), "--policy", file, "--json")
    assert ran.verdicts == [{"series": None, "verdict": "promote", "time": "2025-06-15T15:21:40.000000Z"}]


async def test_without_a_policy_file_the_metrics_are_those_of_the_definition(capsys: Capture) -> None:
    ran = await replayed(capsys, world(0.05), "--json")
    assert {line["metric"] for line in ran.evidence} == {"errors", "latency"}
    assert ran.verdicts[0]["verdict"] == "hold"  # there are no durations here


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--canary", "0" * 10], "has no requests of revision 0000000000 in namespace shop"),
        (["--end", START], "1 looks from --start to --end"),
        (["--end", START + 10**7], "choose --step"),
    ],
)
async def test_what_is_not_there_is_told(capsys: Capture, flags: list[object], told: str) -> None:
    ran = await replayed(capsys, world(0.05), *flags)
    assert ran.code == 1 and told in ran.err


def test_a_server_that_is_not_there_is_told(capsys: Capture) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    ran = serin(capsys, "replay", "prometheus", "--address", address, *FLAGS, *TIMES)
    assert ran.code == 1 and f"Prometheus at {address}: " in ran.err


def test_missing_flags_are_told(capsys: Capture) -> None:
    ran = serin(capsys, "replay", "prometheus", "--name", "iris")
    assert ran.code == 1
    assert "needs --address, --namespace, --canary, --stable, --start, --end" in ran.err


# --- shadows ---------------------------------------------------------------------------------------------------


def shadowed(only_canary: float, only_stable: float) -> Callable[[float], Vector]:
    """Copies of two requests a second, all of them labelled; in such shares just one of the two answers is wrong."""

    def at(time: float) -> Vector:
        copied = int(2 * max(0.0, time - START))
        points = list(world(0.05)(time))
        common = {"namespace": "shop", "pod": "iris-canary", "revision": CANARY, "stable": STABLE}
        b, c = int(copied * only_canary), int(copied * only_stable)
        for answers, number in (("same", copied - b - c), ("different", b + c)):
            labels = {**common, "__name__": "serin_pairs_total", "answers": answers}
            points += vector(time, (number, labels))
        for answers, wrong, number in (
            ("same", "none", copied - b - c),
            ("different", "canary", b),
            ("different", "stable", c),
        ):
            labels = {**common, "__name__": "serin_paired_labels_total", "answers": answers, "wrong": wrong}
            points += vector(time, (number, labels))
        return points

    return at


def restless(at: Callable[[float], Vector]) -> Callable[[float], Vector]:
    """Without the restart of the canary."""

    def without(time: float) -> Vector:
        found = at(time)
        for entry in found:
            labels = entry["metric"]
            if labels["__name__"] == "process_start_time_seconds" and labels["pod"] == "iris-canary":
                entry["value"][1] = str(START - 60)
        return found

    return without


def shadow_policy(tmp_path: Path, strategy: str) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "analysis: {metrics: [{name: accuracy, margin: 0.02}]}\n"
        f"rollout: {{strategy: {strategy}, shadow: {{percent: 20, duration: 120s}},"
        " steps: [{weight: 10, duration: 60s}]}\n"
    )
    return file


async def test_the_pairs_of_a_shadow_are_replayed(capsys: Capture, tmp_path: Path) -> None:
    file = shadow_policy(tmp_path, "Shadow")
    ran = await replayed(capsys, restless(shadowed(0.01, 0.01)), "--policy", file)
    assert ran.err == ""
    assert "Promoted at 2025-06-15T15:" in ran.out
    assert "requests that both answered, the answers differ in 1." in ran.out
    ran = await replayed(capsys, restless(shadowed(0.06, 0.01)), "--policy", file, "--json")
    (verdict,) = ran.verdicts
    assert verdict["verdict"] == "rollback"


async def test_the_steps_after_a_shadow_begin_when_it_has_passed(capsys: Capture, tmp_path: Path) -> None:
    at = restless(shadowed(0.01, 0.01))
    times = []
    for strategy in ("Shadow", "Canary"):
        ran = await replayed(capsys, at, "--policy", shadow_policy(tmp_path, strategy), "--json")
        (verdict,) = ran.verdicts
        assert verdict["verdict"] == "promote"
        times.append(verdict["time"])
    shadow, stepped = (60 * int(time[14:16]) + int(time[17:19]) for time in times)
    assert stepped == shadow + 60
    out = (await replayed(capsys, at, "--policy", shadow_policy(tmp_path, "Canary"))).out
    assert "copies" in out and "10 %" in out
