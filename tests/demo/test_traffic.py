"""The traffic driver against a stub of the service on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from demo.traffic import Driver, Example, MalformedError, Plan, drive, read_answer, read_examples
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


async def test_every_request_is_counted_and_wrong_answers_are_known() -> None:
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
        (Service(delay=2.0), "TimeoutError"),
    ],
)
async def test_failures_are_counted_by_kind(service: Service, error: str) -> None:
    async with service.running():
        final = await run(service, requests=5, timeout=0.5)
    assert (final["ok"], final["failed"], final["errors"]) == (0, 5, {error: 5})
    assert final["feedback"]["posted"] == 0


async def test_a_connection_refused_is_a_failure() -> None:
    final = await run(Service(url=f"http://127.0.0.1:{free_port()}"), requests=3)
    assert (final["failed"], final["errors"]) == (3, {"ClientConnectorError": 3})


async def test_the_rate_does_not_wait_for_slow_answers_and_overruns_are_counted() -> None:
    async with Service(delay=1.0).running() as service:
        final = await run(service, rps=100, seconds=0.5, max_in_flight=10)
    assert final["sent"] == 10
    assert 20 <= final["late"] <= 45


async def test_the_rate_is_kept() -> None:
    async with Service().running() as service:
        final = await run(service, rps=100, requests=1000, seconds=1.0)
    assert 85 <= final["sent"] + final["late"] <= 102


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


async def test_labels_wait_for_their_delay() -> None:
    async with Service().running() as service, aiohttp.ClientSession() as session:
        driver = Driver(Plan(service.url, "digits", rps=100, feedback_delay=60), EXAMPLES, session)
        running = asyncio.create_task(driver.run())
        await until(lambda: driver.tally.ok >= 100)  # one second: the poster has looked at least once
        assert service.labels == []
        driver.stop()
        await running
        assert len(service.labels) == driver.tally.ok


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
