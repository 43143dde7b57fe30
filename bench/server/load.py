"""Load on one HTTP server from a process of its own: as much as it takes, or at a fixed rate.

    python -m bench.server.load PORT PATH BODY_FILE --connections 16 --seconds 3 [--rate 300]

Prints one JSON object: answers, answers a second until the last one, failures, and quantiles of the latency in
milliseconds. At a fixed rate the latency counts from the time at which a request was due, not from when a connection
was free for it, so that a stall of the server counts for all that it held up.
"""

import argparse
import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

_PATIENCE_SECONDS = 20


@dataclass
class Tally:
    """What came of it: latencies in seconds of answers 200, how many others there were, seconds to the last one."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failures: int = 0


class Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport
        self._data = b""
        self._missing = 0
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.free(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._data += data
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            self._missing = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) - len(rest)
        if self._missing == 0:
            good = self._data.startswith(b"HTTP/1.1 200")
            self._data = b""
            self._load.answered(self, self._due, good)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost()

    def close(self) -> None:
        self._transport.abort()


class Load:
    """Sends one request again and again over some connections."""

    def __init__(self, request: bytes, seconds: float, rate: float | None) -> None:
        """`rate` in requests a second, None for as many as are answered."""
        self._request = request
        self._rate = rate
        self._loop = asyncio.get_running_loop()
        self._begin = time.perf_counter()
        self._free: deque[Client] = deque()
        self._due: deque[float] = deque()
        self._made = 0
        self._open = 0
        self._ending = False
        self.tally = Tally()
        self.over = asyncio.Event()
        self._loop.call_later(seconds, self._end)
        if rate is not None:
            self._tick(rate)

    def free(self, client: Client) -> None:
        """Use a connection for the next request."""
        self._free.append(client)
        if self._rate is None and not self._ending:
            self._due.append(time.perf_counter())
        self._match()

    def answered(self, client: Client, due: float, good: bool) -> None:
        self._open -= 1
        now = time.perf_counter()
        self.tally.seconds = now - self._begin
        if good:
            self.tally.latencies.append(now - due)
        else:
            self.tally.failures += 1
        self.free(client)

    def lost(self) -> None:
        if not self.over.is_set():
            raise ConnectionError("the server closed a connection")

    def _tick(self, rate: float) -> None:
        """Note the requests that have become due. That the timer is late is not the server's fault."""
        if self._ending:
            return
        now = time.perf_counter()
        while self._begin + self._made / rate <= now:
            self._due.append(now)
            self._made += 1
        self._match()
        self._loop.call_later(self._begin + self._made / rate - now, self._tick, rate)

    def _end(self) -> None:
        self._ending = True
        self._match()

    def _match(self) -> None:
        while self._free and self._due:
            self._open += 1
            self._free.popleft().send(self._request, self._due.popleft())
        if self._ending and not self._open and not self._due:
            self.over.set()


async def run(port: int, request: bytes, connections: int, seconds: float, rate: float | None) -> dict[str, float]:
    """Put load on a server on loopback and sum up."""
    loop = asyncio.get_running_loop()
    load = Load(request, seconds, rate)
    clients = [(await loop.create_connection(lambda: Client(load), "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.wait_for(load.over.wait(), seconds + _PATIENCE_SECONDS)
    load.over.set()
    for client in clients:
        client.close()
    latencies = sorted(load.tally.latencies)
    if not latencies:
        raise SystemExit(f"no request was answered 200, {load.tally.failures} failed")
    return {
        "answers": len(latencies),
        "per_second": len(latencies) / load.tally.seconds,
        "failures": load.tally.failures,
        "p50": 1000 * latencies[len(latencies) // 2],
        "p99": 1000 * latencies[int(len(latencies) * 0.99)],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float)
    options = parser.parse_args()
    body = options.body.read_bytes()
    head = (
        f"POST {options.path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    )
    request = head.encode() + b"\r\n\r\n" + body
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(options.port, request, options.connections, options.seconds, options.rate))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
