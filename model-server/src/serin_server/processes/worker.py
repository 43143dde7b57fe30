"""The life of a worker: serves the connections that the parent gives, and answers the parent's questions."""

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol

import uvloop

from serin_server import logs
from serin_server.processes.forking import Ends
from serin_server.processes.handover import Receiver
from serin_server.processes.link import Link, LinkError, Question
from serin_server.processes.shared import Worker

TIME = struct.Struct(">d")  # the payload of METRICS: seconds since 1970


class Serving(Protocol):
    """The worker's web server."""

    def begin_drain(self) -> None:
        """Say that the server is not ready."""

    def stop(self) -> None:
        """End when all requests are answered."""

    async def serve_given(self, source: Receiver) -> None:
        """Serve until the source ends."""


def work(ends: Ends, server: Serving, shared: Worker, render: Callable[[float], bytes]) -> int:
    """Serve until the parent gives no more connections, or is gone; returns the exit code.

    `render` writes the worker's own metrics as they stand at a time in seconds since 1970.
    """

    async def answer(question: Question, payload: bytes) -> bytes:
        match question:
            case Question.METRICS:
                return render(*TIME.unpack(payload))
            case Question.DRAIN:
                server.begin_drain()
                return b""
            case Question.LABELS | Question.ANSWERED | Question.BATCH | Question.PAIRS:
                raise LinkError("the parent counts labels, and pairs of answers")

    async def serve() -> None:
        shared.connect(await Link.over(ends.link, answer, server.stop))
        await server.serve_given(Receiver(ends.handover))

    with logs.in_background(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    return 0
