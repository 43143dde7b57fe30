"""The traffic driver against a stub of the service on loopback."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from demo import traffic
from demo.traffic import Driver, Example, MalformedError, Plan, drive, read_answer, read_examples, running_weights
from tests.loopback import free_port, until

EXAMPLES = read_examples(json.dumps([{"row": [float(label), 0.5], "label": label} for label in range(10)]))


@dataclass
class Service:
    """Predicts a row's first number, unless it is `wrong_about` that one."""

    wrong_about: int | None = None
    status: int = 200
    delay: float = 0.0
    foreign_ids: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def infer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        await asyncio.sleep(self.delay)
        truth = int(body["inputs"][0]["data"][0])
        outputs = [
            {"name": "predict", "shape": [1], "datatype": "INT64", "data": [(truth + (truth == self.wrong_about))]},
            {"name": "prediction_id", "shape": [1], "datatype": "BYTES", "data": [f"token {body['id']}"]},
        ]
        answer = {"id": "foreign" if self.foreign_ids else body["id"], "outputs": outputs}
        return web.json_response(answer, status=self.status, headers={"x-serin-revision": "aaaaaaaaaa"})

    async def feedback(self, request: web.Request) -> web.Response:
        batch = await request.json()
        self.labels += batch
        return web.json_response({"accepted": len(batch) - 1, "duplicates": 0, "refused": [{"index": 0}]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        app = web.Application()
        app.router.add_post("/v2/models/digits/infer", self.infer)
        app.router.add_post("/v2/models/digits/feedback", self.feedback)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


async def run(service: Service, **changes: Any) -> dict[str, Any]:
    plan = replace(Plan(service.url, "digits", rps=500, feedback_delay=0.0, requests=200, timeout=5.0), **changes)
    return await drive(plan, EXAMPLES, free_port())


async def test_every_request_is_counted_and_wrong_answers_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MOST_BEHIND_SECONDS", 60.0)  # the machine may stand still for a while
    async with Service(wrong_about=3).running() as service:
        final = await run(service)
    assert (final["sent"], final["ok"], final["failed"], final["late"]) == (200, 200, 0, 0)
    threes = sum(body["inputs"][0]["data"][0] == 3.0 for body in service.asked)
    assert threes > 0
    assert final["by_revision"]["aaaaaaaaaa"]["n"] == 200
    assert final["by_revision"]["aaaaaaaaaa"]["wrong"] == threes
    assert service.asked[0]["inputs"][0]["shape"] == [1, 2]
    assert len({body["id"] for body in service.asked}) == 200


async def test_every_label_is_true_and_follows_its_prediction() -> None:
    async with Service(wrong_about=3).running() as service:
        final = await run(service)
    truths = {f"token {body['id']}": int(body["inputs"][0]["data"][0]) for body in service.asked}
    assert {label["prediction_id"]: label["label"] for label in service.labels} == truths
    feedback = final["feedback"]
    assert (feedback["posted"], feedback["failed"]) == (200, 0)
    assert feedback["accepted"] + feedback["refused"] == 200


async def test_a_fraction_of_the_labels_never_comes() -> None:
    async with Service().running() as service:
        final = await run(service, feedback_fraction=0.25)
    assert 20 < final["feedback"]["posted"] < 90


@pytest.mark.parametrize(
    ("service", "error"),
    [
        (Service(status=503), "HTTP 503"),
        (Service(foreign_ids=True), "malformed: foreign id"),
        (Service(delay=60.0), "TimeoutError"),
    ],
)
async def test_failures_are_counted_by_kind(service: Service, error: str) -> None:
    async with service.running():
        final = await run(service, requests=5, timeout=1.0 if service.delay else 20.0)
    assert (final["ok"], final["failed"], final["errors"]) == (0, 5, {error: 5})
    assert final["feedback"]["posted"] == 0


async def test_a_connection_refused_is_a_failure() -> None:
    final = await run(Service(url=f"http://127.0.0.1:{free_port()}"), requests=3)
    assert (final["failed"], final["errors"]) == (3, {"ClientConnectorError": 3})


async def test_the_rate_does_not_wait_for_slow_answers_and_overruns_are_counted() -> None:
    async with Service(delay=4.0).running() as service:
        final = await run(service, rps=100, seconds=3.0, max_in_flight=10)
    assert final["sent"] == 10
    assert 90 <= final["late"] <= 295


async def test_the_rate_is_kept() -> None:
    async with Service().running() as service:
        started = time.monotonic()
        final = await run(service, rps=100, requests=300)
        took = time.monotonic() - started
    assert 55 * took < final["sent"] + final["late"] <= 100 * took + 1


async def test_it_is_steered_while_it_runs() -> None:
    port = free_port()
    async with Service().running() as service, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        plan = Plan(service.url, "digits", rps=0, feedback_delay=60)
        running = asyncio.create_task(drive(plan, EXAMPLES, port))
        await until_listening(port)
        assert (await stats(session))["sent"] == 0
        async with session.post("/rate", json={"rps": 200}) as answer:
            assert (answer.status, (await answer.json())["rps"]) == (200, 200)
        async with asyncio.timeout(10):
            while True:
                if (await stats(session))["ok"] >= 20:
                    break
                await asyncio.sleep(0.05)
        async with session.post("/rate", json={"rps": "many"}) as answer:
            assert answer.status == 400
        async with session.post("/stop") as answer:
            final = await answer.json()
        assert final["final"] is True
        assert final["sent"] == final["ok"] == final["feedback"]["posted"] == len(service.labels)
        assert (await running)["sent"] == final["sent"]


async def until_listening(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def stats(session: aiohttp.ClientSession) -> dict[str, Any]:
    async with session.get("/stats") as answer:
        counts: dict[str, Any] = await answer.json()
        return counts


async def test_the_shares_of_the_classes_are_steered_while_it_runs() -> None:
    port = free_port()
    async with Service().running() as service, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        plan = Plan(service.url, "digits", rps=200, feedback_delay=60, class_shares={3: 1.0})
        running = asyncio.create_task(drive(plan, EXAMPLES, port))
        await until_listening(port)
        await until(lambda: len(service.asked) >= 20)
        async with session.post("/shares", json={"3": 0, "5": 0.5}) as answer:
            assert answer.status == 200
            sent = (await answer.json())["sent"]
        for nonsense in ({"3": 2}, {"11": 0.1}, {"three": 0.1}, {"3": "much"}, [3]):
            async with session.post("/shares", json=nonsense) as answer:
                assert answer.status == 400
        await until(lambda: len(service.asked) >= sent + 200)
        async with session.post("/stop"):
            await running
    asked = {int(body["id"].removeprefix("r")): int(body["inputs"][0]["data"][0]) for body in service.asked}
    assert {asked[number] for number in range(20)} == {3}
    afterwards = [asked[number] for number in range(sent, len(asked))]
    assert set(afterwards) == set(range(10)) - {3}
    assert 0.3 < afterwards.count(5) / len(afterwards) < 0.7


async def test_labels_wait_for_their_delay() -> None:
    async with Service().running() as service, aiohttp.ClientSession() as session:
        driver = Driver(Plan(service.url, "digits", rps=100, feedback_delay=60), EXAMPLES, session)
        running = asyncio.create_task(driver.run())
        await until(lambda: driver.tally.ok >= 100)  # one second: the poster has looked at least once
        assert service.labels == []
        driver.stop()
        await running
        assert len(service.labels) == driver.tally.ok


async def test_labels_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "MOST_WAITING_LABELS", 30)
    async with Service().running() as service:
        final = await run(service, requests=100, feedback_delay=60)
    assert (final["feedback"]["posted"], final["feedback"]["dropped"]) == (30, 70)
    assert len(service.labels) == 30


ONE_OF_FOUR = [Example("", label) for label in (0, 1, 1, 2)]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({}, [0.25, 0.5, 0.75, 1.0]),
        ({1: 0.1}, [0.45, 0.5, 0.55, 1.0]),
        ({1: 0.0}, [0.5, 0.5, 0.5, 1.0]),
        ({1: 1.0}, [0.0, 0.5, 1.0, 1.0]),
        ({0: 0.2, 1: 0.2, 2: 0.6}, [0.2, 0.3, 0.4, 1.0]),
    ],
)
def test_each_class_has_its_share_and_the_other_rows_the_rest(shares: dict[int, float], expected: list[float]) -> None:
    assert running_weights(ONE_OF_FOUR, shares) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        ({7: 0.1}, "no row has the label 7"),
        ({1: -0.1}, "from 0 to 1"),
        ({1: float("nan")}, "from 0 to 1"),
        ({0: 0.6, 1: 0.6}, "at most 1 together"),
        ({0: 0.2, 1: 0.2, 2: 0.2}, "of all classes must be 1 together"),
    ],
)
def test_impossible_shares_are_refused(shares: dict[int, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        running_weights(ONE_OF_FOUR, shares)


def test_the_command_line_takes_shares_of_several_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    async def remember(plan: Plan, *_: object) -> dict[str, Any]:
        plans.append(plan)
        return {}

    monkeypatch.setattr(traffic, "drive", remember)
    rows = tmp_path / "rows.json"
    rows.write_text('[{"row": [1], "label": 9}, {"row": [2], "label": 4}]')
    arguments = ["--url=http://digits", "--model=digits", f"--rows={rows}", "--rps=5"]
    traffic.main([*arguments, "--class-share=9=0.03", "--class-share=4=0"])
    traffic.main(arguments)
    assert [plan.class_shares for plan in plans] == [{9: 0.03, 4: 0.0}, {}]


def test_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        read_examples("[]")


def test_an_example_is_a_tensor_of_one_row() -> None:
    assert read_examples('[{"row": [1, 2.5], "label": 7}]') == [
        Example('{"name":"x","shape":[1,2],"datatype":"FP64","data":[1,2.5]}', 7)
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"outputs": []}',
        b'{"id": "r1", "outputs": [{"name": "predict", "data": [1]}]}',
        b'{"id": "r1", "outputs": [{"name": "predict", "data": [1, 2]}, {"name": "prediction_id", "data": ["t"]}]}',
    ],
)
def test_malformed_answers_are_told_apart(body: bytes) -> None:
    with pytest.raises(MalformedError):
        read_answer(body, {"x-serin-revision": "aaaaaaaaaa"}, "r1")


def test_an_answer_without_its_revision_is_malformed() -> None:
    body = b'{"id": "r1", "outputs": [{"name": "predict", "data": [1]}, {"name": "prediction_id", "data": ["t"]}]}'
    assert read_answer(body, {"x-serin-revision": "a"}, "r1").revision == "a"
    with pytest.raises(MalformedError, match="x-serin-revision"):
        read_answer(body, {}, "r1")
