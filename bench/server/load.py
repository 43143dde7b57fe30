"""Load on one server from a process of its own: as much as it takes, or at a fixed rate.

    python -m bench.server.load PORT REQUEST_FILE --connections 32 --seconds 3 [--rate 300] [--grpc]

The file holds the bytes of one request (see `wire`). Prints one JSON object: answers, answers a second until the last
one, failures, quantiles of the latency in milliseconds, and the share of a core that this process used. At a fixed rate
also the 99th percentile of what was due while the machine ran as usual, and the share of the rest (see `stalls`).

The load at a fixed rate is open: requests become due by the clock, whatever the server does, and the latency counts
from then and not from when a connection was free. So a stall of the server counts for all that it held up. Before, each
connection has had one answer, which is not counted: a server accepts a connection after its client takes it to stand.
"""

import argparse
import asyncio
import gc
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop

from bench.server.clients import Client, GrpcClient, HttpClient
from bench.server.stalls import Stalls

_PATIENCE_SECONDS = 30


@dataclass
class Tally:
    """What came of it: of good answers when they were due and their latencies, how many others, seconds to the last."""

    due: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failures: int = 0


class Load:
    """Sends one request again and again over some connections."""

    def __init__(self, seconds: float, rate: float | None) -> None:
        """`rate` in requests a second, None for as many as are answered."""
        self._rate = rate
        self._loop = asyncio.get_running_loop()
        self._free: deque[Client] = deque()
        self._due: deque[float] = deque()
        self._made = 0
        self._open = 0
        self._seconds = seconds
        self._running = False
        self._ended = False
        self._begin = 0.0
        self.tally = Tally()
        self.stalls = Stalls()
        self.over = asyncio.Event()

    async def warm_up(self) -> None:
        """Use each connection once."""
        self._due.extend([time.perf_counter()] * len(self._free))
        self._end()
        await self.over.wait()
        self.over.clear()
        self._ended = False
        self.tally = Tally()

    def begin(self) -> None:
        """Start the clock, now that all connections are in use."""
        self._running = True
        self._begin = time.perf_counter()
        self._loop.call_later(self._seconds, self._end)
        if self._rate is not None:
            self._tick(self._rate)
        else:
            self._due.extend([self._begin] * len(self._free))
            self._match()

    def free(self, client: Client) -> None:
        """Use a connection for the next request."""
        self._free.append(client)
        if self._rate is None and self._running:
            self._due.append(time.perf_counter())
        if self._due or self._ended:
            self._match()

    def answered(self, client: Client, due: float, good: bool) -> None:
        self._open -= 1
        now = time.perf_counter()
        self.tally.seconds = now - self._begin
        if good:
            self.tally.due.append(due)
            self.tally.latencies.append(now - due)
        else:
            self.tally.failures += 1
        self.free(client)

    def lost(self) -> None:
        if not self.over.is_set():
            raise ConnectionError("the server closed a connection")

    def _tick(self, rate: float) -> None:
        """Note the requests that have become due. That the timer is late is not the server's fault."""
        if not self._running:
            return
        now = time.perf_counter()
        while self._begin + self._made / rate <= now:
            self._due.append(now)
            self._made += 1
        self._match()
        self.stalls.sample()
        self._loop.call_later(self._begin + self._made / rate - time.perf_counter(), self._tick, rate)

    def _end(self) -> None:
        self._running = False
        self._ended = True
        self._match()

    def _match(self) -> None:
        while self._free and self._due:
            self._open += 1
            self._free.popleft().send(self._due.popleft())
        if self._ended and not self._open and not self._due:
            self.over.set()


async def run(
    port: int, make: Callable[[Load], Client], connections: int, seconds: float, rate: float | None
) -> dict[str, float]:
    """Put load on a server on loopback and sum up."""
    loop = asyncio.get_running_loop()
    load = Load(seconds, rate)
    clients = [make(load) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(partial(_itself, client), "127.0.0.1", port)
    await asyncio.wait_for(load.warm_up(), _PATIENCE_SECONDS)
    cpu = time.process_time()
    load.begin()
    await asyncio.wait_for(load.over.wait(), seconds + _PATIENCE_SECONDS)
    cpu = time.process_time() - cpu
    for client in clients:
        client.close()
    return _summary(load, cpu)


def _summary(load: Load, cpu: float) -> dict[str, float]:
    tally = load.tally
    if not tally.latencies:
        raise SystemExit(f"no request was answered well, {tally.failures} failed")
    answers = len(tally.latencies)
    is_calm = load.stalls.calm(tally.due)
    calm = [latency for latency, among in zip(tally.latencies, is_calm, strict=True) if among]
    return {
        "answers": answers,
        "per_second": answers / tally.seconds,
        "failures": tally.failures,
        "p50": _quantile(tally.latencies, 0.5),
        "p99": _quantile(tally.latencies, 0.99),
        "p99_calm": _quantile(calm, 0.99),
        "stalled": 1 - len(calm) / answers,
        "busy": cpu / tally.seconds,
    }


def _quantile(latencies: list[float], share: float) -> float:
    """In milliseconds; of none it is not a number."""
    return 1000 * sorted(latencies)[int(len(latencies) * share)] if latencies else math.nan


def _itself(client: Client) -> Client:
    return client


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("request", type=Path)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--grpc", action="store_true", help="the file holds a message for gRPC")
    options = parser.parse_args()
    kind = GrpcClient if options.grpc else HttpClient
    request = options.request.read_bytes()
    gc.disable()  # nothing here makes circles, and its pauses would count as the server's
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = run(options.port, lambda load: kind(load, request), options.connections, options.seconds, options.rate)
        print(json.dumps(runner.run(load)))


if __name__ == "__main__":
    main()
