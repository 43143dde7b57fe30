"""The load generator of the server's benchmark: what it sends is what it counts."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import grpc
import grpc.aio
import pytest
from bench.server.clients import Client, GrpcClient, HttpClient
from bench.server.load import Load, run
from bench.server.wire import GRPC_METHOD
from hypothesis import given
from hypothesis import strategies as st

_CONNECTIONS = 4
_REQUEST = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"


class Server(asyncio.Protocol):
    """Answers each request of the test in two pieces, so many with an error after the first of each connection."""

    received = 0

    def __init__(self, failing: int) -> None:
        self._failing = failing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert data == _REQUEST
        Server.received += 1
        failing = _CONNECTIONS < Server.received <= _CONNECTIONS + self._failing
        status = b"500 Internal Server Error" if failing else b"200 OK"
        head = b"HTTP/1.1 %s\r\nInference-Header-Content-Length: 9\r\nContent-Length: 4\r\n\r\nab" % status
        self._transport.write(head)
        asyncio.get_running_loop().call_soon(self._transport.write, b"cd")


@asynccontextmanager
async def serving(failing: int = 0) -> AsyncIterator[int]:
    Server.received = 0
    server = await asyncio.get_running_loop().create_server(lambda: Server(failing), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def client(load: Load) -> HttpClient:
    return HttpClient(load, _REQUEST)


@pytest.mark.parametrize("rate", [None, 200.0])
async def test_every_request_that_the_server_gets_is_counted_once(rate: float | None) -> None:
    async with serving(failing=3) as port:
        found = await run(port, client, connections=_CONNECTIONS, seconds=0.2, rate=rate)
        assert found["failures"] == 3
        assert _CONNECTIONS + found["answers"] + found["failures"] == Server.received


async def test_at_a_fixed_rate_no_more_is_sent_than_is_due() -> None:
    async with serving() as port:
        started = time.perf_counter()
        found = await run(port, client, connections=2, seconds=0.2, rate=100.0)
        took = time.perf_counter() - started
    assert 1 <= found["answers"] <= 100 * took + 1


class Answered:
    """A load that only counts."""

    def __init__(self) -> None:
        self.good: list[bool] = []

    def free(self, client: Client) -> None: ...
    def lost(self) -> None: ...
    def answered(self, client: Client, due: float, good: bool) -> None:
        self.good.append(good)


_LENGTH = b"HTTP/1.1 200 OK\r\ninference-header-content-length: 9\r\nContent-Length: 4\r\n\r\nabcd"
_CHUNKS = b"HTTP/1.1 200 OK\r\ninference-header-content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n"
_CHUNKS += b"A\r\n0\r\n\r\n56789\r\n3\r\nabc\r\n0\r\n\r\n"
_NONE = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"


@given(st.data())
def test_the_end_of_an_answer_is_found_however_it_comes(data: st.DataObject) -> None:
    """With its length before it or in chunks, in pieces that are cut anywhere."""
    answers = data.draw(st.lists(st.sampled_from([_LENGTH, _CHUNKS, _NONE]), min_size=1, max_size=4))
    load = Answered()
    one = HttpClient(load, b"")
    for number, answer in enumerate(answers):
        cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=6)))
        for start, end in pairwise([0, *cuts, len(answer)]):
            assert len(load.good) == number
            one.data_received(answer[start:end])
        assert load.good[-1] == (answer is not _NONE)
    assert len(load.good) == len(answers)


@pytest.mark.parametrize("size", [10, 40_000])
async def test_grpc_calls_of_any_size_are_counted_once(size: int) -> None:
    """Also those that take several frames, and wait for the peer's flow control."""
    received = []

    async def infer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        received.append(len(request))
        if _CONNECTIONS < len(received) <= _CONNECTIONS + 3:
            await context.abort(grpc.StatusCode.INTERNAL, "failing")
        return request

    server = grpc.aio.server()
    service, method = GRPC_METHOD.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(infer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    message = struct.pack(">BI", 0, size) + bytes(size)
    try:
        found = await run(
            port, lambda load: GrpcClient(load, message), connections=_CONNECTIONS, seconds=0.3, rate=None
        )
    finally:
        await server.stop(None)
    assert set(received) == {size}
    assert found["failures"] == 3
    assert _CONNECTIONS + found["answers"] + found["failures"] == len(received)
    assert found["answers"] > 12  # more than the first window of a connection has room for
