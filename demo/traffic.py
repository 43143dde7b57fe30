"""Steady traffic for a ModelDeployment, with labels that follow: runs in a pod.

Sends one-row requests at a fixed rate whatever the answers do (an open loop), knows each row's true label,
and posts it some seconds after the prediction. Prints one JSON line a second and a last one with
`"final": true`. While it runs, `GET /stats`, `POST /rate {"rps": 50}`, `POST /shares {"9": 0.03}` and
`POST /stop` steer it.
"""

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from demo.tally import Tally

# A driver that stood still longer than this skips what was due meanwhile (counted as late): no burst.
MOST_BEHIND_SECONDS = 1.0
FEEDBACK_BATCH = 500
FEEDBACK_EVERY_SECONDS = 0.5
# Some 30 MB: labels that follow half an hour later at 50 requests a second.
MOST_WAITING_LABELS = 100_000
REPORT_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Example:
    """One row as the JSON text of a V2 input, and its true label."""

    tensor: str
    label: int


@dataclass(frozen=True)
class Answer:
    """What a well-formed answer says."""

    revision: str
    predicted: int
    prediction_id: str


class MalformedError(Exception):
    """The answer is not what the protocol says."""


@dataclass(frozen=True)
class Plan:
    """What to send. `feedback_delay` and `timeout` are seconds; `requests` and `seconds` bound the run.

    `class_shares`: the share of rows with this label, as a fraction; the other rows share the rest evenly.
    """

    url: str
    model: str
    rps: float
    feedback_delay: float = 3.0
    feedback_fraction: float = 1.0
    max_in_flight: int = 200
    timeout: float = 35.0
    requests: int = 10_000_000
    seconds: float = 86_400.0
    class_shares: Mapping[int, float] = field(default_factory=dict)
    new_connections: bool = False


def read_examples(text: str) -> list[Example]:
    """Decode `[{"row": [numbers], "label": integer}, …]`. Raises ValueError when there is none."""
    examples = [
        Example(
            json.dumps(
                {"name": "x", "shape": [1, len(one["row"])], "datatype": "FP64", "data": one["row"]},
                separators=(",", ":"),
            ),
            int(one["label"]),
        )
        for one in json.loads(text)
    ]
    if not examples:
        raise ValueError("there are no rows to send")
    return examples


def running_weights(examples: Sequence[Example], shares: Mapping[int, float]) -> list[float]:
    """What `random.choices` takes as `cum_weights`: with them each class has its share, the other rows the rest.

    Raises ValueError when the rows cannot have these shares.
    """
    rows = Counter(example.label for example in examples)
    others = sum(count for label, count in rows.items() if label not in shares)
    rest = 1 - math.fsum(shares.values())
    if missing := [label for label in shares if label not in rows]:
        raise ValueError(f"no row has the label {missing[0]}")
    if rest < 0 or not all(0 <= share <= 1 for share in shares.values()):
        raise ValueError("shares must be from 0 to 1, and at most 1 together")
    if rest > 0 and not others:
        raise ValueError("the shares of all classes must be 1 together")
    return list(
        accumulate(
            shares[example.label] / rows[example.label] if example.label in shares else rest / others
            for example in examples
        )
    )


def read_answer(body: bytes, headers: Mapping[str, str], request_id: str) -> Answer:
    """Decode an infer response. Raises MalformedError."""
    try:
        answer = json.loads(body)
        if answer["id"] != request_id:
            raise MalformedError("foreign id")
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        [predicted] = outputs["predict"]
        [prediction_id] = outputs["prediction_id"]
        return Answer(headers["x-serin-revision"], int(predicted), str(prediction_id))
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}") from error


class Driver:
    """Sends what the plan says and keeps the tally."""

    def __init__(self, plan: Plan, examples: Sequence[Example], session: aiohttp.ClientSession) -> None:
        self.tally = Tally()
        self.rps = plan.rps
        self.finished = asyncio.Event()
        self._plan = plan
        self._examples = examples
        self._running_weights = running_weights(examples, plan.class_shares)
        self._session = session
        self._model_url = f"{plan.url}/v2/models/{plan.model}"
        self._random = random.Random(plan.model)
        self._stopping = False
        self._answered = asyncio.Event()
        self._steered = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._labels: deque[tuple[float, str, int]] = deque()

    def set_rate(self, rps: float) -> None:
        """Go on at another rate; 0 pauses."""
        self.rps = rps
        self._steered.set()

    def set_shares(self, shares: Mapping[int, float]) -> None:
        """Go on with other shares of the classes. Raises ValueError when the rows cannot have them."""
        self._running_weights = running_weights(self._examples, shares)

    def stop(self) -> None:
        """Send nothing new. `finished` is set when all answers are in and the labels posted."""
        self._stopping = True
        self._steered.set()

    async def run(self) -> None:
        """Send until stopped or at the plan's bounds, then post the labels that still wait."""
        labels = asyncio.create_task(self._post_labels())
        await self._send()
        if self._in_flight:
            await asyncio.wait(self._in_flight)
        self._answered.set()
        await labels
        self.finished.set()

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        end = due + self._plan.seconds
        while not self._stopping and self.tally.sent < self._plan.requests and loop.time() < end:
            rps = self.rps
            now = loop.time()
            while rps > 0 and due <= now and self.tally.sent < self._plan.requests:
                self._send_or_skip(behind=now - due)
                due += 1 / rps
            wait = end - now if rps <= 0 else min(due, end) - now
            self._steered.clear()
            await _set_within(self._steered, wait)
            if rps != self.rps:
                due = loop.time()

    def _send_or_skip(self, behind: float) -> None:
        if behind > MOST_BEHIND_SECONDS or len(self._in_flight) >= self._plan.max_in_flight:
            self.tally.late += 1
            return
        task = asyncio.create_task(self._one(self.tally.sent))
        self.tally.sent += 1
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _one(self, number: int) -> None:
        [example] = self._random.choices(self._examples, cum_weights=self._running_weights)
        request_id = f"r{number}"
        body = f'{{"id":"{request_id}","inputs":[{example.tensor}]}}'
        started = time.monotonic()
        try:
            async with self._session.post(f"{self._model_url}/infer", data=body) as response:
                answer_body = await response.read()
            if not response.ok:
                self.tally.not_answered(f"HTTP {response.status}", time.monotonic() - started)
                return
            answer = read_answer(answer_body, response.headers, request_id)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.tally.not_answered(type(error).__name__, time.monotonic() - started)
            return
        except MalformedError as error:
            self.tally.not_answered(f"malformed: {error}", time.monotonic() - started)
            return
        right = answer.predicted == example.label
        self.tally.answered(answer.revision, right, time.monotonic() - started, int(time.time() * 1000))
        if self._random.random() < self._plan.feedback_fraction:
            self._keep_label(answer.prediction_id, example.label)

    def _keep_label(self, prediction_id: str, label: int) -> None:
        if len(self._labels) >= MOST_WAITING_LABELS:
            self.tally.feedback.dropped += 1
            return
        self._labels.append((time.monotonic() + self._plan.feedback_delay, prediction_id, label))

    async def _post_labels(self) -> None:
        while not await _set_within(self._answered, FEEDBACK_EVERY_SECONDS):
            await self._post_due(time.monotonic())
        await self._post_due(float("inf"))

    async def _post_due(self, until: float) -> None:
        while self._labels and self._labels[0][0] <= until:
            batch: list[dict[str, object]] = []
            while self._labels and self._labels[0][0] <= until and len(batch) < FEEDBACK_BATCH:
                _, prediction_id, label = self._labels.popleft()
                batch.append({"prediction_id": prediction_id, "label": label})
            await self._post(batch)

    async def _post(self, batch: list[dict[str, object]]) -> None:
        feedback = self.tally.feedback
        feedback.posted += len(batch)
        try:
            async with self._session.post(f"{self._model_url}/feedback", json=batch) as response:
                receipt = await response.json()
                response.raise_for_status()
                feedback.accepted += receipt["accepted"]
                feedback.duplicates += receipt["duplicates"]
                feedback.refused += len(receipt["refused"])
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            feedback.failed += len(batch)
            print(f"labels were lost: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    async def report(self) -> None:
        """Print the tally once a second, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_EVERY_SECONDS)
            _print({"t": round(time.time(), 3), "rps": self.rps, **self.tally.interval()})


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True


def control(driver: Driver) -> web.Application:
    """The small HTTP interface for whoever watches or steers the driver."""

    def stats(**more: object) -> web.Response:
        return web.json_response({"rps": driver.rps, **driver.tally.cumulative(), **more})

    async def get_stats(_: web.Request) -> web.Response:
        return stats(final=driver.finished.is_set())

    async def post_rate(request: web.Request) -> web.Response:
        try:
            rps = float((await request.json())["rps"])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": 'the body must be {"rps": number}'}, status=400)
        if not 0 <= rps <= 10_000:
            return web.json_response({"error": "rps must be between 0 and 10000"}, status=400)
        driver.set_rate(rps)
        return stats()

    async def post_shares(request: web.Request) -> web.Response:
        try:
            driver.set_shares({int(label): float(share) for label, share in (await request.json()).items()})
        except (ValueError, AttributeError, TypeError) as error:
            return web.json_response({"error": f'the body must be {{"label": fraction, …}}: {error}'}, status=400)
        return stats()

    async def post_stop(_: web.Request) -> web.Response:
        driver.stop()
        await driver.finished.wait()
        return stats(final=True)

    app = web.Application()
    app.router.add_get("/stats", get_stats)
    app.router.add_post("/rate", post_rate)
    app.router.add_post("/shares", post_shares)
    app.router.add_post("/stop", post_stop)
    return app


async def drive(plan: Plan, examples: Sequence[Example], port: int) -> dict[str, Any]:
    """Run the plan, steerable on `port` (all addresses). Returns the final tally."""
    connector = aiohttp.TCPConnector(limit=0, force_close=plan.new_connections)
    timeout = aiohttp.ClientTimeout(total=plan.timeout)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        driver = Driver(plan, examples, session)
        runner = web.AppRunner(control(driver), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()
        reports = asyncio.create_task(driver.report())
        try:
            await driver.run()
        finally:
            reports.cancel()
            await runner.cleanup()  # waits for the answer to POST /stop
    return driver.tally.cumulative()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments, drive, print the final line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", required=True, help="of the ModelDeployment's Service, http://NAME")
    parser.add_argument("--model", required=True, help="the ModelDeployment's name")
    parser.add_argument("--rows", required=True, type=Path, help='JSON file: [{"row": […], "label": 3}, …]')
    parser.add_argument("--rps", type=float, required=True, help="requests a second")
    parser.add_argument("--feedback-delay", type=float, default=3.0, help="seconds until a label follows")
    parser.add_argument("--feedback-fraction", type=float, default=1.0, help="share of labels that follow")
    parser.add_argument(
        "--class-share",
        dest="class_shares",
        type=_class_share,
        action="append",
        default=[],
        metavar="LABEL=FRACTION",
        help="share of the rows with this label",
    )
    parser.add_argument("--new-connections", action="store_true", help="one for each request")
    parser.add_argument("--max-in-flight", type=int, default=200, help="requests without an answer at once")
    parser.add_argument("--timeout", type=float, default=35.0, help="seconds until a request has failed")
    parser.add_argument("--requests", type=int, default=10_000_000, help="end after so many")
    parser.add_argument("--seconds", type=float, default=86_400.0, help="end after so long")
    parser.add_argument("--port", type=int, default=8081, help="of the control interface")
    options = vars(parser.parse_args(arguments))
    examples = read_examples(options.pop("rows").read_text())
    port = options.pop("port")
    options["class_shares"] = dict(options["class_shares"])
    final = asyncio.run(drive(Plan(**options), examples, port))
    _print({"t": round(time.time(), 3), "final": True, **final})


def _class_share(text: str) -> tuple[int, float]:
    label, _, share = text.partition("=")
    return int(label), float(share)


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
