"""What the gRPC server does beside the protocol: compression, watches, the access log, and what clients may take."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.model_server import estimators
from tests.model_server.serving import REVISION, Server, metric, save, serving, wait_until
from tests.model_server.test_conformance_grpc import ROWS, call, grpc_port, in_flight, infer, one_row, refused

from serin_server.grpc_service import health as watches
from serin_server.grpc_service.messages import health_pb2 as health
from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2
from serin_server.grpc_service.wire import MOST_FIELDS, check_fields
from serin_server.protocol.errors import RequestError
from serin_server.web.app import Lifecycle

pytestmark = pytest.mark.process

INFER = "/inference.GRPCInferenceService/ModelInfer"
MIB = 2**20


@pytest.fixture(scope="module")
def server(iris: Path) -> Iterator[Server]:
    with serving(iris, "--grpc-port", "0", "--access-log-sample", "1") as server:
        yield server


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel:
        yield channel


# --- compression -------------------------------------------------------------------------------------------


class Relay:
    """Passes one connection on, and counts the bytes that come back."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answered = 0
        self._target = port
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        near, _ = self.listener.accept()
        far = socket.create_connection(("127.0.0.1", self._target))
        threading.Thread(target=self._pass, args=(near, far), daemon=True).start()
        self._pass(far, near, count=True)

    def _pass(self, source: socket.socket, sink: socket.socket, count: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.answered += len(data) if count else 0
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def many_rows(rows: int) -> v2.ModelInferRequest:
    request = v2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP64", shape=[rows, 4])
    request.raw_input_contents.append(struct.pack("<4d", *ROWS[0]) * rows)
    return request


def test_a_large_answer_is_compressed_for_a_client_that_asks_for_it(server: Server) -> None:
    sizes: dict[str, int] = {}
    answers = []
    for wish in ("identity", "deflate, gzip"):
        relay = Relay(grpc_port(server))
        with grpc.insecure_channel(f"127.0.0.1:{relay.port}") as channel:
            request = many_rows(1000)
            request.outputs.add(name="predict")
            answers.append(infer(channel, request, metadata=[("accept-encoding", wish)]))
        sizes[wish] = relay.answered
    assert answers[0] == answers[1]
    assert sizes["identity"] > 8000  # classes of 8 bytes each
    assert sizes["deflate, gzip"] < 1000


# --- watches -----------------------------------------------------------------------------------------------


def watch(channel: grpc.Channel, service: str = "", **options: Any) -> Any:
    stub = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=health.HealthCheckResponse.FromString,
    )
    return stub(health.HealthCheckRequest(service=service), **options)


def test_a_watch_tells_of_the_drain_and_does_not_keep_the_server(iris: Path) -> None:
    status = health.HealthCheckResponse
    with (
        serving(iris, "--grpc-port", "0", "--drain-seconds", "1") as server,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel,
    ):
        states = watch(channel, "inference.GRPCInferenceService")
        unknown = watch(channel, "other")
        assert next(states).status == status.SERVING
        assert next(unknown).status == status.SERVICE_UNKNOWN
        server.terminate()
        assert next(states).status == status.NOT_SERVING
        assert list(states) == list(unknown) == []
        assert (states.code(), server.process.wait(10)) == (grpc.StatusCode.OK, 0)


async def test_watches_are_bounded_and_end_with_their_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MOST_WATCHES", 2)
    state = watches.Health(Lifecycle(), ["a"])
    first, second = state.watch("a"), state.watch("")
    assert (await anext(first)).status == (await anext(second)).status == watches.Status.SERVING
    with pytest.raises(RequestError, match="2 watches already"):
        await anext(state.watch(""))
    await first.aclose()
    third = state.watch("")
    assert (await anext(third)).status == watches.Status.SERVING
    state.end()
    for one in (second, third):
        waiting = asyncio.ensure_future(anext(one, None))
        state.drained()
        assert await waiting is not None


# --- the access log ----------------------------------------------------------------------------------------

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def lines_of(server: Server, request_id: str) -> list[dict[str, Any]]:
    """The lines about the calls with this id, so far."""
    found = [line for line in server.log_lines() if line["message"] == "request"]
    return [line for line in found if line.get("request_id") == request_id]


def logged(server: Server, request_id: str) -> dict[str, Any]:
    """The line about a call, once it is there."""
    wait_until(lambda: bool(lines_of(server, request_id)))
    [line] = lines_of(server, request_id)
    return line


def test_a_line_tells_how_a_call_went(server: Server, channel: grpc.Channel) -> None:
    request = one_row(*ROWS[0])
    traced = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "c1"), ("x-envoy-attempt-count", "2")]
    answer = infer(channel, request, metadata=traced)
    line = logged(server, "c1")
    assert line.pop("seconds") >= line.pop("queue_seconds") >= 0
    assert len(line.pop("span_id")) == 16
    del line["time"]
    assert line == {
        "level": "info",
        "message": "request",
        "method": "POST",
        "path": INFER,
        "status": 200,
        "bytes_in": request.ByteSize(),
        "bytes_out": answer.ByteSize(),
        "rows": 1,
        "attempt": "retry",
        "revision": REVISION,
        "request_id": "c1",
        "trace_id": TRACE,
        "parent_id": PARENT,
    }


def test_refusals_are_logged_and_health_is_not(server: Server, channel: grpc.Channel) -> None:
    check = "grpc.health.v1.Health/Check"
    named = {"metadata": [("x-request-id", "quiet")]}
    call(channel, check, health.HealthCheckResponse.FromString, health.HealthCheckRequest(), **named)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "needs a name"):
        wrong = v2.ModelInferRequest(model_name="m")
        wrong.inputs.add()
        infer(channel, wrong, metadata=[("x-request-id", "c2")])
    line = logged(server, "c2")
    assert (line["status"], line["bytes_out"]) == (400, 0)
    assert not [line for line in server.log_lines() if line.get("request_id") == "quiet"]


def test_a_call_whose_client_went_away_is_logged_as_such(tmp_path: Path) -> None:
    model = save(estimators.Slow(tmp_path / "started"), tmp_path / "model")
    with (
        serving(model, "--grpc-port", "0", "--access-log-sample", "1") as server,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel,
    ):
        running = in_flight(channel, 15.0)
        wait_until((tmp_path / "started").exists)
        stub = channel.unary_unary(INFER)
        gone = stub.future(one_row(0).SerializeToString(), metadata=[("x-request-id", "gone")])
        with server.client() as web:
            wait_until(lambda: metric(web, "serin_queue_length") == 1)
        gone.cancel()
        assert logged(server, "gone")["status"] == 499

        def late() -> list[int]:
            """Statuses of calls whose time is over. One that the server hears of late counts as gone."""
            with contextlib.suppress(grpc.RpcError):
                infer(channel, one_row(0), timeout=0.1, metadata=[("x-request-id", "late")])
            return [line["status"] for line in lines_of(server, "late")]

        wait_until(lambda: 504 in late())
        assert not running.done()


# --- what clients may take ---------------------------------------------------------------------------------


def test_calls_and_requests_share_what_uploads_may_hold(tmp_path: Path) -> None:
    """While a body waits for its answer, over whichever of the two, it counts; afterwards it does not."""
    model = save(estimators.Slow(tmp_path / "started"), tmp_path / "model")
    limits = ("--max-body-bytes", "100000", "--max-upload-bytes", "150000")
    with (
        serving(model, "--grpc-port", "0", *limits) as server,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel,
        server.client() as web,
    ):
        large = v2.ModelInferRequest(model_name="m")
        large.inputs.add(name="x", datatype="FP64", shape=[10_000, 1])
        large.raw_input_contents.append(struct.pack("<10000d", 5.0, *[0.0] * 9999))
        running = channel.unary_unary(INFER).future(large.SerializeToString(), timeout=20)
        wait_until((tmp_path / "started").exists)
        assert metric(web, "serin_upload_bytes") == large.ByteSize()
        with refused(grpc.StatusCode.UNAVAILABLE, "holds as many bytes"):
            infer(channel, large)
        body = b'{"inputs": [' + b" " * 90_000
        assert web.post("/v2/models/m/infer", content=body).status_code == 503
        assert metric(web, "serin_refused_total", reason="uploads") == 2
        assert metric(web, "serin_requests_total", code="503", attempt="first") == 2
        assert running.result()
        wait_until(lambda: metric(web, "serin_upload_bytes") == 0)


EMPTY = {
    "inputs": b"\x2a\x00",
    "outputs": b"\x32\x00",
    "raw_input_contents": b"\x3a\x00",
    "parameters": b"\x22\x00",
    "unknown groups of numbers": b"\x78\x00",
}


@pytest.mark.parametrize("field", EMPTY.values(), ids=EMPTY.keys())
def test_a_message_of_nothing_but_empty_fields_is_refused(field: bytes) -> None:
    with pytest.raises(RequestError, match=f"at most {MOST_FIELDS}"):
        check_fields(field * (MOST_FIELDS + 1))
    check_fields(field * MOST_FIELDS)


@pytest.mark.parametrize("end", [b"", b"\x3a", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 12, b"\x0b", b"\x39\x00"])
def test_what_is_no_message_is_left_to_the_parser(end: bytes) -> None:
    check_fields(b"\x3a\xa0\x8d\x06" + bytes(100_000) + end)


def peak(server: Server) -> int:
    """Bytes that the process ever had in memory."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def empty_texts(count: int) -> bytes:
    """A request that is right but for strings, which the model does not take."""
    request = v2.ModelInferRequest(model_name="m")
    tensor = request.inputs.add(name="x", datatype="BYTES", shape=[count // 4, 4])
    tensor.contents.bytes_contents.extend([b""] * count)
    return bytes(request.SerializeToString())


# A message as it comes, and what is made of it before it can be refused.
MOST_GROWTH = 40
NAMES = b"\x0a\x01m"  # model_name "m"
HOSTILE = {
    "inputs": NAMES + EMPTY["inputs"] * (4 * MIB - 2),
    "outputs": NAMES + EMPTY["outputs"] * (4 * MIB - 2),
    "raw contents": NAMES + EMPTY["raw_input_contents"] * (4 * MIB - 2),
    "one input's empty texts": empty_texts(2 * MIB),
    "labels": NAMES + b"\x12\x02\x10\x01" * (2 * MIB - 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_message_takes_a_bounded_multiple_of_its_bytes(iris: Path, name: str) -> None:
    """In a process of its own, whose highest use is what counts."""
    method = "/serin.FeedbackService/Feedback" if name == "labels" else INFER
    options = [("grpc.max_send_message_length", -1)]
    with (
        serving(iris, "--grpc-port", "0") as server,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}", options=options) as channel,
    ):
        infer(channel, one_row(*ROWS[0]))
        before = peak(server)
        body = HOSTILE[name]
        assert len(body) > 4 * MIB
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary(method)(body, timeout=30)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT, error.value.details()
        grown = (peak(server) - before) / len(body)
        print(f"{name}: {grown:.1f} bytes for each")
        assert grown < MOST_GROWTH
        infer(channel, one_row(*ROWS[0]))
