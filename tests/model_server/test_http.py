"""HTTP/1.1 over a socket: what clients may send, what bounds them, and in which order they are answered."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from tests.model_server.serving import KEY, infer_body, serving_settings

from serin_server.monitor.keys import Keyring
from serin_server.runtime.model import Model
from serin_server.serve import Loaded, make_app
from serin_server.web.limits import Limits
from serin_server.web.server import Server, listen

LIMITS = Limits(body_bytes=50_000, look_seconds=0.01)


class Sum(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts whether the sum of a row is above 0."""

    classes_ = np.array([0, 1])
    n_features_in_ = 2

    def predict(self, matrix: Any) -> Any:
        return (matrix.sum(axis=1) > 0).astype(int)


class Peer:
    """One connection of a client that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers["content-length"])) if has_body else b""
        return int(head[0].split()[1]), headers, body

    async def at_end(self) -> bool:
        """Whether the server closes the connection without another byte."""
        return await self.reader.read(1) == b""

    async def send_without_end(self, data: bytes) -> None:
        """Send the same as often as the server reads it. Raises ConnectionError when the server closes."""
        while True:
            self._writer.write(data)
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


class Site:
    """A server in the test's own event loop, and its clients."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self._port = port
        self._peers: list[Peer] = []

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self._port))
        self._peers.append(peer)
        return peer

    async def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """The answer to these bytes on a connection of their own."""
        peer = await self.connect()
        peer.send(data)
        return await peer.answer()

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


@contextlib.asynccontextmanager
async def site(limits: Limits = LIMITS, estimator: object = None, max_in_flight: int = 10) -> AsyncIterator[Site]:
    settings = replace(serving_settings(), max_in_flight=max_in_flight)
    server = Server(
        make_app(Loaded(settings, Model(estimator or Sum()), Keyring.of(KEY), 0.0)), limits, drain_seconds=1
    )
    listener = listen("127.0.0.1", 0)
    found = Site(server, listener.getsockname()[1])
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(listener))
        yield found
        server.stop()
        found.close()


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "host: m", *headers, "", ""]).encode()


def post(body: bytes, *headers: str, path: str = "/v2/models/m/infer") -> bytes:
    return get(path, f"content-length: {len(body)}", *headers, method="POST") + body


def row(*values: float) -> bytes:
    return json.dumps(infer_body(list(values))).encode()


def predicted(answer: tuple[int, dict[str, str], bytes]) -> list[int]:
    assert answer[0] == 200, answer
    found: list[int] = json.loads(answer[2])["outputs"][0]["data"]
    return found


async def counted(web: Site, code: int) -> float:
    text = (await web.ask(get("/metrics")))[2].decode()
    name = f'serin_requests_total{{attempt="first",code="{code}"'
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with site() as web:
        peer = await web.connect()
        peer.send(post(row(1, 1)) + get("/v2/health/live") + post(b"{") + post(row(-1, 0)))
        assert predicted(await peer.answer()) == [1]
        assert (await peer.answer())[2] == b'{"live":true}'
        assert (await peer.answer())[0] == 400
        assert predicted(await peer.answer()) == [0]


async def test_many_pipelined_requests_are_all_answered() -> None:
    """More than are read ahead of the answers."""
    async with site(max_in_flight=1000) as web:
        peer = await web.connect()
        for n in range(200):
            peer.send(post(row(n - 99.5, 0)))
        assert [predicted(await peer.answer())[0] for n in range(200)] == [0] * 100 + [1] * 100


async def test_a_request_may_come_byte_by_byte() -> None:
    async with site() as web:
        peer = await web.connect()
        for byte in post(row(1, 1)):
            peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert predicted(await peer.answer()) == [1]


async def test_a_chunked_body_with_trailers() -> None:
    body = row(2, -1)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:7], body[7:8], body[8:]))
    request = get("/v2/models/m/infer", "transfer-encoding: chunked", method="POST")
    async with site() as web:
        assert predicted(await web.ask(request + chunks + b"0\r\nx-checksum: 1\r\n\r\n")) == [1]


async def test_the_body_is_asked_for_when_the_client_waits_for_that() -> None:
    body = row(1, 0)
    async with site() as web:
        peer = await web.connect()
        peer.send(get("/v2/models/m/infer", f"content-length: {len(body)}", "expect: 100-continue", method="POST"))
        assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(body)
        assert predicted(await peer.answer()) == [1]


@pytest.mark.parametrize(("path", "status"), [("/v2/health/live", 200), ("/nowhere", 404), ("/v2/models/m/infer", 405)])
async def test_an_answer_to_head_has_the_length_but_not_the_body(path: str, status: int) -> None:
    async with site() as web:
        peer = await web.connect()
        peer.send(get(path, method="HEAD") + get("/v2/health/live"))
        found, headers, _ = await peer.answer(has_body=False)
        assert (found, int(headers["content-length"]) > 0) == (status, True)
        assert (await peer.answer())[2] == b'{"live":true}'


@pytest.mark.parametrize(
    "target", ["/v2/health/live?full=1", "http://m:8080/v2/health/live", "/v2/health/%6Cive", "/v2/health/live#x"]
)
async def test_a_target_is_known_by_its_path(target: str) -> None:
    async with site() as web:
        assert (await web.ask(get(target)))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        get("/v2/health/live", "connection: close"),
        get("/v2/health/live", version="1.0"),
        get("/v2/health/live", "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMA"),
    ],
    ids=["close", "HTTP/1.0", "upgrade"],
)
async def test_the_connection_ends_after_the_answer(request_: bytes) -> None:
    async with site() as web:
        peer = await web.connect()
        peer.send(request_)
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await peer.at_end()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 a TLS greeting\r\n\r\n", 400),
        (get("/v2", "content-length: x"), 400),
        (get("/v2", "content-length: 3", "transfer-encoding: chunked", method="POST"), 400),
        (get("/v2/health/live", *[f"x-{n}: {'a' * 1000}" for n in range(70)]), 431),
        (get("/" + "a" * 70_000), 431),
        (b"GET / HTTP/1.1\r\nx-endless: " + b"a" * 200_000, 431),
        (get("/v2/models/m/infer", "transfer-encoding: chunked", method="POST") + b"0\r\nx: " + b"a" * 400_000, 431),
    ],
    ids=["no HTTP", "length", "smuggling", "many headers", "target", "endless header", "endless trailer"],
)
async def test_what_is_not_http_or_too_much_is_refused_and_ends_the_connection(sent: bytes, status: int) -> None:
    async with site() as web:
        peer = await web.connect()
        peer.send(get("/v2/health/live") + sent)
        assert (await peer.answer())[0] == 200
        found, headers, body = await peer.answer()
        assert (found, headers["connection"], list(json.loads(body))) == (status, "close", ["error"])
        assert (await web.ask(get("/v2/health/live")))[0] == 200


async def test_a_broken_body_is_counted() -> None:
    request = get("/v2/models/m/infer", "transfer-encoding: chunked", method="POST")
    async with site() as web:
        status, headers, _ = await web.ask(request + b"not a size\r\n")
        assert (status, headers["x-serin-revision"]) == (400, "0123456789")
        assert await counted(web, 400) == 1


@pytest.mark.parametrize(
    ("sent", "limits"),
    [
        (b"GET /v2/he", replace(LIMITS, head_seconds=0.5)),
        (post(row(1, 1))[:-5], replace(LIMITS, body_seconds=0.5)),
    ],
    ids=["head", "body"],
)
async def test_a_request_that_does_not_come_in_time_is_refused(sent: bytes, limits: Limits) -> None:
    async with site(limits) as web:
        peer = await web.connect()
        peer.send(sent)
        status, headers, _ = await peer.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert await peer.at_end()
        assert await counted(web, 408) == (1 if b"POST" in sent else 0)


async def test_an_idle_connection_ends() -> None:
    async with site(replace(LIMITS, keep_alive_seconds=0.5)) as web:
        unused, used = await web.connect(), await web.connect()
        used.send(get("/v2/health/live"))
        assert (await used.answer())[0] == 200
        assert await used.at_end()
        assert await unused.at_end()


async def test_a_client_that_does_not_read_is_left() -> None:
    """Its answers pile up in the kernel and then in the server, which reads no more from it and then ends it."""
    async with site(replace(LIMITS, write_seconds=0.05)) as web:
        peer = await web.connect()
        with pytest.raises(ConnectionError):
            await peer.send_without_end(get("/metrics") * 100)
        assert (await web.ask(get("/v2/health/live")))[0] == 200


async def test_connections_beyond_the_limit_are_refused_until_one_ends() -> None:
    async with site(replace(LIMITS, connections=1)) as web:
        only = await web.connect()
        only.send(get("/v2/health/live"))
        assert (await only.answer())[0] == 200
        refused = await web.connect()
        status, headers, _ = await refused.answer()
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert await refused.at_end()
        only.close()
        status = 503
        while status != 200:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                status = (await web.ask(get("/v2/health/live")))[0]


async def test_a_client_that_goes_before_its_body_is_whole_is_a_499() -> None:
    async with site() as web:
        peer = await web.connect()
        peer.send(post(row(1, 1))[:-5])
        peer.close()
        while await counted(web, 499) != 1:
            pass  # each look is a request, during which the server reads


async def test_a_zipped_body_is_unzipped() -> None:
    async with site() as web:
        assert predicted(await web.ask(post(gzip.compress(row(1, 1)), "content-encoding: gzip"))) == [1]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (gzip.compress(b" " * 100_001), 413, "the limit is 100000"),
        (gzip.compress(b" " * 40_000_000), 413, "the limit is 100000"),
        (b"plain", 400, "not gzip"),
        (gzip.compress(row(1, 1))[:-9], 400, "not one whole"),
        (gzip.compress(row(1, 1)) + b"more", 400, "not one whole"),
    ],
    ids=["long", "bomb", "plain", "cut", "more"],
)
async def test_a_zipped_body_is_bounded_and_whole(body: bytes, status: int, text: str) -> None:
    async with site() as web:
        found, _, answer = await web.ask(post(body, "content-encoding: gzip"))
        assert found == status
        assert text in json.loads(answer)["error"]


@pytest.mark.parametrize(
    ("accepted", "rows", "zipped"),
    [
        ("gzip, deflate", 100, True), ("br;q=1, gzip;q=0.5", 100, True), ("*", 100, True), ("gzip", 1, False),
        ("gzip;q=0, br", 100, False), ("gzip; q=0.00", 100, False), ("br", 100, False),
    ],
)  # fmt: skip
async def test_a_long_answer_is_zipped_for_who_asks(accepted: str, rows: int, zipped: bool) -> None:
    body = json.dumps(infer_body(*[[1.0, 2.0]] * rows)).encode()
    async with site() as web:
        status, headers, answer = await web.ask(post(body, f"accept-encoding: {accepted}"))
    assert (status, headers.get("content-encoding")) == (200, "gzip" if zipped else None)
    plain = gzip.decompress(answer) if zipped else answer
    assert json.loads(plain)["outputs"][0]["data"] == [1] * rows


async def test_on_the_way_out_pipelined_requests_are_answered_before_the_close() -> None:
    async with site() as web:
        peer = await web.connect()
        peer.send(get("/v2/health/live"))
        await peer.answer()
        web.server.drain()
        peer.send(post(row(1, 1)) * 3)
        answers = [await peer.answer() for _ in range(3)]
        assert [predicted(answer) for answer in answers] == [[1]] * 3
        assert [headers.get("connection") for _, headers, _ in answers] == [None, None, "close"]
        assert await peer.at_end()
