"""What the server tells of requests: traces, the access log, and a log that never holds it up."""

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.model_server import estimators
from tests.model_server.serving import REVISION, infer, infer_body, save, serving, wait_until
from tests.model_server.test_http import get, post, row, site

from serin_server.logs import BackgroundHandler, Bound, JsonFormatter
from serin_server.tracing import parse_traceparent
from serin_server.web.access_log import AccessLog
from serin_server.web.limits import Limits
from serin_server.web.messages import Request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


# --- traces --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", True),
        (f"  00-{TRACE}-{PARENT}-01 ", True),
        (f"cc-{TRACE}-{PARENT}-01", True),  # a later version, read as 00
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-brings", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"cc-{TRACE}-{PARENT}-01.more", False),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE[1:]}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}-1", False),
        ("", False),
    ],
)
def test_a_traceparent_is_read_as_the_standard_says(header: str, valid: bool) -> None:
    trace = parse_traceparent(header.encode())
    assert (trace is not None) == valid
    if trace is not None:
        assert (trace.trace_id, trace.parent_id, trace.sampled) == (TRACE, PARENT, "-01" in header)
        assert trace.span_id not in (PARENT, "0" * 16)


@given(st.binary(max_size=80))
def test_other_bytes_are_no_trace_and_no_error(header: bytes) -> None:
    trace = parse_traceparent(header)
    assert trace is None or len(trace.trace_id) == 32


async def test_an_answer_tells_of_the_trace_that_its_request_is_part_of() -> None:
    async with site() as web:
        _, headers, _ = await web.ask(post(row(1, 1), f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=b"))
        version, trace_id, span_id, flags = headers["traceresponse"].split("-")
        assert (version, trace_id, flags) == ("00", TRACE, "01")
        assert span_id != PARENT
        _, headers, _ = await web.ask(post(row(1, 1), f"traceparent: 00-{'0' * 32}-{PARENT}-01"))
        assert "traceresponse" not in headers


# --- the access log ------------------------------------------------------------------------------------------


def logged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if line["message"] == "request"]


@pytest.mark.process
def test_a_line_tells_how_a_request_went(iris: Path) -> None:
    body = json.dumps(infer_body([5.1, 3.5, 1.4, 0.2], [6.2, 3.4, 5.4, 2.3]))
    with serving(iris, "--access-log-sample", "1") as server, server.client() as client:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r1", "x-envoy-attempt-count": "2"}
        client.get("/v2/health/live")
        client.get("/metrics")
        answer = client.post("/v2/models/m/infer", content=body, headers=headers)
        assert client.post("/v2/models/m/infer", content=b"{").status_code == 400
        wait_until(lambda: len(logged(server.log_lines())) >= 2)
        first, second = logged(server.log_lines())
    assert first.pop("seconds") >= first.pop("queue_seconds") >= 0
    assert first.pop("bytes_out") > len(answer.content)
    assert first.pop("span_id") == answer.headers["traceresponse"].split("-")[2]
    del first["time"]
    assert first == {
        "level": "info",
        "message": "request",
        "method": "POST",
        "path": "/v2/models/m/infer",
        "status": 200,
        "bytes_in": len(body),
        "rows": 2,
        "attempt": "retry",
        "revision": REVISION,
        "request_id": "r1",
        "trace_id": TRACE,
        "parent_id": PARENT,
    }
    assert second["status"] == 400
    assert not {"rows", "request_id", "trace_id"} & second.keys()


@pytest.mark.process
def test_without_a_sample_only_errors_of_the_server_are_logged(tmp_path: Path) -> None:
    model = save(estimators.Moody(), tmp_path / "model")
    with serving(model) as server, server.client() as client:
        assert infer(client, infer_body([0.0])).status_code == 200
        assert infer(client, infer_body([1.0]), **{"x-request-id": "bad"}).status_code == 500
        wait_until(lambda: bool(logged(server.log_lines())))
        (line,) = logged(server.log_lines())
    assert (line["level"], line["status"], line["request_id"]) == ("warning", 500, "bad")


def asked(request_id: str) -> Request:
    request = Request()
    request.method, request.target, request.request_id = b"POST", b"/v2/models/m/infer", request_id
    return request


def test_all_servers_choose_the_same_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chosen = []
    for revision in ("0" * 10, "1" * 10):
        caplog.clear()
        access_log = AccessLog(0.25, revision)
        for number in range(2000):
            access_log.answered(asked(f"request-{number}"), 200, 0)
        chosen.append([record.fields["request_id"] for record in caplog.records])  # type: ignore[attr-defined]
    assert chosen[0] == chosen[1]
    assert 400 < len(chosen[0]) < 600


# --- the log -------------------------------------------------------------------------------------------------


def record(level: int, message: str, second: float) -> logging.LogRecord:
    made = logging.LogRecord("test", level, "", 0, message, None, None)
    made.created = second
    return made


def test_alike_errors_are_bounded_and_counted() -> None:
    bound = Bound()
    passed = [bound.filter(record(logging.ERROR, "the model failed", 5.5)) for _ in range(25)]
    assert passed == [True] * 10 + [False] * 15
    assert bound.filter(record(logging.ERROR, "another", 5.6))
    assert all(bound.filter(record(logging.INFO, "request", 5.6)) for _ in range(100))
    later = record(logging.ERROR, "the model failed", 6.0)
    assert bound.filter(later)
    assert json.loads(JsonFormatter().format(later))["suppressed"] == 15


def test_who_logs_does_not_wait_for_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serin_server.logs._MOST_WAITING", 3000)
    monkeypatch.setattr("serin_server.logs._FLUSH_SECONDS", 20.0)  # the machine may stand still for a while
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as reader:
        handler = BackgroundHandler(stream)
        handler.setFormatter(JsonFormatter())
        for number in range(5000):  # more than a pipe holds, and nobody reads
            handler.handle(record(logging.INFO, f"{number} " + "x" * 100, 0))
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(reader))
        thread.start()
        wait_until(lambda: len(lines) > 2000)
        handler.handle(record(logging.INFO, "last", 0))
        handler.close()
        stream.close()
        thread.join()
    assert 3000 <= len(lines) < 5000
    assert "last" in lines[-1]
    assert sum(json.loads(line).get("lines_dropped_before", 0) for line in lines) == 5000 - (len(lines) - 1)


# --- what uploads may hold -----------------------------------------------------------------------------------


async def test_uploads_are_bounded_together() -> None:
    body = b" " * 3000
    begun = get("/v2/models/m/infer", "content-length: 4000", method="POST") + body
    async with site(Limits(body_bytes=50_000, upload_bytes=7000)) as web:
        peers = [await web.connect() for _ in range(2)]
        for peer in peers:
            peer.send(begun)
        while web.server.held < 6000:
            await web.ask(get("/v2/health/live"))
        status, headers, answer = await web.ask(post(body))
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"as many bytes of requests as it may" in answer
        assert (await web.ask(post(row(1, 1))))[0] == 200  # a small one still fits
        peers[0].send(b" " * 1000)
        assert (await peers[0].answer())[0] == 400
        peers[1].close()
        while web.server.held:
            await web.ask(get("/v2/health/live"))
        assert (await web.ask(post(body)))[0] == 400
        assert 'reason="uploads"} 1.0' in web.server.activity.render()
