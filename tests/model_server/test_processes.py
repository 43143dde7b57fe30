"""Several processes that serve one port: as one server to clients, scrapes and labels, and to who ends it."""

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.model_server import estimators
from tests.model_server.serving import (
    KEY,
    REVISION,
    Server,
    infer,
    infer_body,
    metric,
    outputs,
    run,
    save,
    serve_arguments,
    serving,
    wait_until,
)

from serin_server.monitor.feedback import FeedbackCounter
from serin_server.monitor.keys import Keyring
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.processes import supervisor
from serin_server.processes.forking import Child, Ends
from serin_server.processes.link import Answering, Link, LinkError, Question
from serin_server.processes.shared import Alone
from serin_server.processes.sums import summed
from serin_server.shadow.book import Book

pytestmark = pytest.mark.process

IRIS_ROW = [5.1, 3.5, 1.4, 0.2]


def workers(server: Server) -> list[int]:
    """The process ids of the server's children."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.fixture(scope="module")
def pair(iris: Path) -> Iterator[Server]:
    with serving(iris, "--processes", "2") as server:
        yield server


def test_counters_of_all_processes_are_told_as_one_sum(pair: Server) -> None:
    with pair.client() as client:
        before = metric(client, "serin_requests_total", code="200", attempt="first") or 0.0
    for _ in range(20):
        with pair.client() as client:  # connections go to the processes in turns
            assert outputs(infer(client, infer_body(IRIS_ROW)))["predict"] == [0]
    with pair.client() as client, pair.client() as other:
        for asked in (client, other):
            assert metric(asked, "serin_requests_total", code="200", attempt="first") == before + 20
            assert metric(asked, "serin_request_duration_seconds_count", attempt="first") == before + 20
        text = client.get("/metrics").text
    started = [line for line in text.splitlines() if line.startswith("process_start_time_seconds ")]
    assert len(started) == 1 and float(started[0].split()[1]) <= time.time()


def test_a_label_counts_once_whichever_process_gets_it(pair: Server) -> None:
    with pair.client() as client:
        predicted = outputs(infer(client, infer_body(IRIS_ROW)))["prediction_id"][0]
    receipts = []
    for _ in range(4):
        with pair.client() as client:
            body = [{"prediction_id": predicted, "label": 0}]
            receipts.append(client.post("/v2/models/m/feedback", json=body).json())
    assert [receipt["accepted"] for receipt in receipts] == [1, 0, 0, 0]
    assert [receipt["duplicates"] for receipt in receipts] == [0, 1, 1, 1]
    with pair.client() as client:
        assert metric(client, "serin_feedback_total", actual="0", predicted="0") == 1
        assert client.post("/v2/models/m/feedback", content=b"no JSON").status_code == 400


def test_a_scrape_fails_when_a_process_hangs(iris: Path) -> None:
    """A sum of the others would look as if the server had begun anew."""
    with serving(iris, "--processes", "2", "--drain-seconds", "0.1") as server:
        pid = workers(server)[0]
        os.kill(pid, signal.SIGSTOP)
        with server.client() as client:
            # One of two connections in a row goes to the process that answers, and is kept.
            answers = []
            for _ in range(2):
                with contextlib.suppress(httpx.TimeoutException):
                    answers.append(client.get("/v2/health/live", timeout=3).status_code)
            assert 200 in answers
            refused = client.get("/metrics")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "did not answer within" in refused.json()["error"]
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: client.get("/metrics").status_code == 200)


def test_the_server_drains_and_ends_when_a_process_dies(iris: Path) -> None:
    with serving(iris, "--processes", "2", "--drain-seconds", "30") as server:
        pid = workers(server)[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())  # until then it may be given a connection
        with server.client() as client:
            wait_until(lambda: client.get("/v2/health/ready").status_code == 503)
            assert infer(client, infer_body(IRIS_ROW)).status_code == 200
            assert client.get("/metrics").status_code == 503
        server.process.send_signal(signal.SIGINT)  # cuts the drain short
        assert server.process.wait(10) == 128 + signal.SIGKILL
        assert any(line["message"].startswith("a process has ended") for line in server.log_lines())


def test_no_request_is_lost_when_several_processes_drain(tmp_path: Path) -> None:
    model = save(estimators.Slow(tmp_path / "started"), tmp_path / "model")
    drain = 5.0

    def ask_until_the_end(server: Server) -> list[int]:
        codes = []
        end = time.monotonic() + drain * 0.5
        client = server.client()
        while time.monotonic() < end:
            response = infer(client, infer_body([0.01]))
            codes.append(response.status_code)
            if response.headers.get("connection") == "close":
                client.close()
                client = server.client()
        client.close()
        return codes

    with (
        serving(model, "--processes", "2", "--drain-seconds", str(drain)) as server,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        clients = [pool.submit(ask_until_the_end, server) for _ in range(4)]
        wait_until((tmp_path / "started").exists)
        server.terminate()
        codes = [code for client in clients for code in client.result()]
        assert set(codes) == {200}
        assert server.process.wait(10) == 0


def test_a_model_that_starts_threads_is_refused(tmp_path: Path) -> None:
    model = save(estimators.OnLoad(estimators.start_thread_on_load), tmp_path / "model")
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    done = run(*serve_arguments(model, key, "--processes", "2"))
    assert done.code == 22
    assert done.termination is not None
    assert "loading the model started 1 threads" in done.termination["message"]


def supervised(*commands: list[str], started: list[int] | None = None) -> int:
    """The exit code of a supervisor whose workers are these commands; their process ids go into `started`."""
    metrics = Metrics("m", REVISION, None)
    keyring = Keyring.of(KEY)
    own = Alone(metrics, FeedbackCounter(Tokens(keyring, "m", REVISION), metrics), Book(keyring, "m", REVISION))
    with contextlib.ExitStack() as open_until_then:
        children = []
        for number, command in enumerate(commands, start=1):
            handover, its_handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            link, its_link = socket.socketpair()
            handover.setblocking(False)
            worker = open_until_then.enter_context(subprocess.Popen(command))
            open_until_then.enter_context(its_handover)
            open_until_then.enter_context(its_link)
            if command == ["false"]:
                wait_until_ended(worker.pid)
            if started is not None:
                started.append(worker.pid)
            children.append(Child(number, worker.pid, Ends(handover, link)))
        listener = open_until_then.enter_context(socket.create_server(("127.0.0.1", 0)))
        return supervisor.Supervisor(listener, children, own, drain_seconds=5).run()


def wait_until_ended(pid: int) -> None:
    state = Path(f"/proc/{pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(supervisor, "SILENT_SECONDS", 3)
    monkeypatch.setattr(supervisor, "_TICK_SECONDS", 0.01)
    assert supervised(["sleep", "60"]) == 128 + signal.SIGKILL
    assert "a process hangs, and is killed" in capfd.readouterr().err


def test_a_process_that_ended_at_once_is_noticed() -> None:
    assert supervised(["false"]) == 1


def test_a_process_that_ends_while_the_links_are_made_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its death may be told at any moment."""
    made = Link.over
    started: list[int] = []

    async def over(end: socket.socket, answer: Answering, on_end: Callable[[], None]) -> Link:
        link = await made(end, answer, on_end)
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            wait_until_ended(pid)
        await asyncio.sleep(0)  # what listens for SIGCHLD is called
        await asyncio.sleep(0)
        return link

    monkeypatch.setattr(Link, "over", over)
    assert supervised(["sleep", "60"], ["sleep", "60"], started=started) == 128 + signal.SIGKILL


# --- parts ---------------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["0", "1"]), st.integers(1, 99)), max_size=5), min_size=1, max_size=4)
)
def test_the_sum_of_expositions_is_the_exposition_of_the_sum(processes: list[list[tuple[str, int]]]) -> None:
    apart = [Metrics("m", REVISION, ["0", "1"]) for _ in processes]
    together = Metrics("m", REVISION, ["0", "1"])
    for own, events in zip(apart, processes, strict=True):
        for name, rows in events:
            for metrics in (own, together):
                metrics.predicted([(name, rows)], "first")
                metrics.request_done(200, "first", rows / 64)
                metrics.feedback_counted(REVISION, name, "0", "first", 0, 20)

    def told(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name.startswith("serin_")
        }

    assert told(summed([metrics.render(30) for metrics in apart])) == told(together.render(30))


async def test_questions_are_answered_in_any_order_and_failures_are_told() -> None:
    release = asyncio.Event()
    ended = asyncio.Event()

    async def answer(question: Question, payload: bytes) -> bytes:
        match question:
            case Question.METRICS:
                await release.wait()
                return payload * 100_000
            case Question.LABELS:
                return payload
            case _:
                raise LinkError("not now")

    async def nothing(_question: Question, _payload: bytes) -> bytes:
        raise AssertionError

    one, other = socket.socketpair()
    far = await Link.over(one, answer, lambda: None)
    near = await Link.over(other, nothing, ended.set)
    slow = asyncio.create_task(near.ask(Question.METRICS, b"abc", 10))
    assert await near.ask(Question.LABELS, b"quick", 10) == b"quick"
    with pytest.raises(LinkError, match="not now"):
        await near.ask(Question.DRAIN, b"", 10)
    with pytest.raises(LinkError, match="did not answer within"):
        await near.ask(Question.METRICS, b"", 0.01)
    release.set()
    assert await slow == b"abc" * 100_000
    release.clear()
    left = asyncio.create_task(near.ask(Question.METRICS, b"", 10))
    await asyncio.sleep(0)
    far.close()
    with pytest.raises(LinkError, match="has ended"):
        await left
    await ended.wait()
    with pytest.raises(LinkError, match="has ended"):
        await near.ask(Question.LABELS, b"", 10)
