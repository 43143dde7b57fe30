"""Questions and answers between the parent and one of its workers, over a pair of connected sockets."""

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import cast

log = logging.getLogger(__name__)

# Length of the payload in bytes, kind, number of the question.
_FRAME = struct.Struct(">IBQ")
_ANSWER, _FAILURE = 0, 255


class Question(IntEnum):
    """What one side may ask the other; the payloads are told by those who answer."""

    METRICS = 1
    LABELS = 2
    DRAIN = 3
    ANSWERED = 4
    BATCH = 5
    PAIRS = 6


class LinkError(Exception):
    """The other side did not answer: it is gone, busy for too long, or failed."""


Answering = Callable[[Question, bytes], Awaitable[bytes]]


class Link(asyncio.Protocol):
    """One end. `answer` is called for each question; `on_end` once, when the other side is gone."""

    def __init__(self, answer: Answering, on_end: Callable[[], None]) -> None:
        self._answer = answer
        self._on_end = on_end
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    @classmethod
    async def over(cls, end: socket.socket, answer: Answering, on_end: Callable[[], None]) -> "Link":
        """A link over one of two connected stream sockets."""
        _, link = await asyncio.get_running_loop().create_connection(lambda: cls(answer, on_end), sock=end)
        return link

    async def ask(self, question: Question, payload: bytes, seconds: float) -> bytes:
        """The other side's answer. Raises LinkError, at the latest after `seconds`."""
        if self._ended:
            raise LinkError("it has ended")
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._send(question, number, payload)
        try:
            return await asyncio.wait_for(future, seconds)
        except TimeoutError:
            raise LinkError(f"it did not answer within {seconds:g} s") from None
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """End the link; whoever waits for an answer gets a LinkError."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _FRAME.size:
            size, kind, number = _FRAME.unpack_from(self._buffer)
            end = _FRAME.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_FRAME.size : end])
            del self._buffer[:end]
            self._take(kind, number, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        for future in self._asked.values():
            if not future.done():
                future.set_exception(LinkError("it has ended"))
        self._on_end()

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind not in (_ANSWER, _FAILURE):
            task = asyncio.get_running_loop().create_task(self._respond(Question(kind), number, payload))
            self._tasks.add(task)  # the loop itself keeps no task
            task.add_done_callback(self._tasks.discard)
            return
        future = self._asked.get(number)
        if future is None or future.done():
            return  # nobody waits any more
        if kind == _ANSWER:
            future.set_result(payload)
        else:
            future.set_exception(LinkError(payload.decode()))

    async def _respond(self, question: Question, number: int, payload: bytes) -> None:
        try:
            self._send(_ANSWER, number, await self._answer(question, payload))
        except LinkError as error:
            self._send(_FAILURE, number, str(error).encode())
        except Exception as error:
            log.exception("internal error", extra={"fields": {"question": question.name}})
            self._send(_FAILURE, number, f"it failed: {type(error).__name__}".encode())

    def _send(self, kind: int, number: int, payload: bytes) -> None:
        if not self._ended:
            self._transport.write(_FRAME.pack(len(payload), kind, number) + payload)
