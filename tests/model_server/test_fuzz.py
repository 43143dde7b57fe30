"""No input ends the server, gets a 500 or makes it grow.

`make fuzz` runs 100,000 inputs from a seed that it prints; `SERIN_FUZZ_SEED` runs the same ones again.
"""

import errno
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from tests.model_server import fuzzing
from tests.model_server.serving import Server, infer, infer_body, outputs, save, serving
from tests.model_server.test_conformance_grpc import grpc_port

pytestmark = pytest.mark.process

SEED = int(os.environ.get("SERIN_FUZZ_SEED", "1"))
INPUTS = int(os.environ.get("SERIN_FUZZ_INPUTS", "2500"))
SHARES = {"infer": 0.3, "binary": 0.25, "feedback": 0.1, "zipped": 0.05, "framing": 0.15}
GRPC_SHARE = 0.15
BODY_BYTES = 200_000
# The server answered and closed while bytes were still coming; which call notices first is the kernel's choice.
CLOSED_MEANWHILE = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
GROWTH_BYTES = 48 * 2**20  # a body of the largest size costs a few times itself, the allocator keeps some


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model with columns by name that takes whatever it gets: what fails is the server."""
    columns = pd.DataFrame([[0.0] * 4, [1.0] * 4], columns=["a", "b", "c", "d"])
    model = DummyClassifier(strategy="prior").fit(columns, [0, 1])
    path = save(model, tmp_path_factory.mktemp("fuzz") / "model")
    with serving(path, "--max-body-bytes", str(BODY_BYTES), "--grpc-port", "0") as server:
        yield server


class Client:
    """Sends bytes over one connection while the server keeps it, and over the next one after that."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def status(self, wire: bytes) -> int:
        """The status that a request which is framed well gets."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        self._socket.sendall(wire)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(re.findall(rb"content-length: (\d+)", head)[0])
        while len(body) < length:
            body += self._more()
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1])

    def statuses(self, wire: bytes) -> list[int]:
        """The statuses of all answers until the server closes, after bytes and their end."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=20) as connection:
            received = b""
            try:
                connection.sendall(wire)
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(65536):
                    received += data
            except OSError as error:
                if error.errno not in CLOSED_MEANWHILE:
                    raise
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(65536)
        assert data, "the server closed without an answer"
        return data


def peak_bytes(server: Server) -> int:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@pytest.mark.parametrize("kind", SHARES)
def test_no_input_hurts_the_server(server: Server, kind: str) -> None:
    with server.client() as http:
        row = infer_body([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
        tokens = [str(token) for token in outputs(infer(http, row))["prediction_id"]]
    client = Client(server.port)
    seen: Counter[int] = Counter()
    before = 0
    count = int(INPUTS * SHARES[kind])
    for number in range(count):
        if number == count // 5:
            before = peak_bytes(server)  # caches are warm
        made = fuzzing.make(kind, SEED, number, tokens)
        where = f"SERIN_FUZZ_SEED={SEED}, {kind} {number}: {made.wire[:2000]!r}"
        try:
            statuses = [client.status(made.wire)] if made.framed else client.statuses(made.wire)
        except (OSError, AssertionError) as error:
            raise AssertionError(f"{error!r} after {where}") from error
        seen.update(statuses)
        assert not {status for status in statuses if status >= 500 and status not in (503, 504)}, where
    client.close()
    grown = peak_bytes(server) - before
    print(f"{kind}: {count} inputs of seed {SEED}, statuses {dict(sorted(seen.items()))}, grown by {grown >> 10} KiB")
    assert grown < GROWTH_BYTES
    assert not [line for line in server.log_lines() if line["level"] == "error"]
    assert len(seen) > 1, "the inputs are all alike to the server"
    with server.client() as http:
        assert infer(http, row).status_code == 200


def test_no_message_hurts_the_server(server: Server) -> None:
    """The same over gRPC. INTERNAL and UNKNOWN are its 500."""
    with server.client() as http:
        row = infer_body([1.0, 2.0, 3.0, 4.0])
        token = str(outputs(infer(http, row))["prediction_id"][0])
    seen: Counter[str] = Counter()
    before = 0
    count = int(INPUTS * GRPC_SHARE)
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port(server)}") as channel:
        for number in range(count):
            if number == count // 5:
                before = peak_bytes(server)
            method, message = fuzzing.make_message(SEED, number, token)
            code = grpc.StatusCode.OK
            try:
                channel.unary_unary(method)(message, timeout=20)
            except grpc.RpcError as error:
                code = error.code()
            seen[code.name] += 1
            where = f"SERIN_FUZZ_SEED={SEED}, grpc {number}: {method} {message[:2000]!r}"
            assert code.name in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"), (
                code,
                where,
            )
    grown = peak_bytes(server) - before
    print(f"grpc: {count} inputs of seed {SEED}, codes {dict(sorted(seen.items()))}, grown by {grown >> 10} KiB")
    assert grown < GROWTH_BYTES
    assert len(seen) > 1
    assert not [line for line in server.log_lines() if line["level"] == "error"]


@pytest.mark.parametrize(
    "header",
    [b"x-envoy-expected-rq-timeout-ms: " + b"9" * 400, *(b"grpc-timeout: " + b"9" * n + b"S" for n in (400, 5000))],
    ids=["milliseconds", "seconds", "no-integer"],
)
def test_a_timeout_that_no_number_holds_is_none(server: Server, header: bytes) -> None:
    client = Client(server.port)
    assert client.status(fuzzing.http(b"/v2/models/m/infer", b"{}", header)) == 400
    client.close()
