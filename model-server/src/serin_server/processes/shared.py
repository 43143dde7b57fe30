"""What the processes of a server do as one, seen from the one that got the request: all metrics, and labels."""

import asyncio
import logging
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from serin_server.monitor.feedback import FeedbackCounter
from serin_server.monitor.metrics import Metrics
from serin_server.processes.link import Link, LinkError, Question
from serin_server.protocol.errors import RequestError
from serin_server.protocol.feedback import parse_feedback
from serin_server.shadow.answers import Told
from serin_server.shadow.book import Book, dump_told

log = logging.getLogger(__name__)

# A scrape of the operator takes at most 2 s in all: the parent waits for its workers, a worker for the parent.
GATHER_SECONDS = 1.2
_SCRAPE_SECONDS = 1.6
_LABEL_SECONDS = 5.0
_TELL_SECONDS = 0.05
_MOST_TOLD = 5_000
_STATUS = struct.Struct(">H")
_OK = 200


class UnavailableError(Exception):
    """Another process of the server did not answer in time. The text is for the client."""


class Shared(Protocol):
    """The server as a whole."""

    async def exposition(self) -> bytes:
        """All metrics in Prometheus' text format. Raises UnavailableError: a part would look like a restart."""

    async def take_labels(self, body: bytes, request_id: str | None) -> bytes:
        """Count the labels of a request, and return the answer's body. Raises RequestError or UnavailableError."""

    async def batch(self, place: str) -> bytes:
        """What is told of marked requests from a place on. Raises UnavailableError."""

    async def take_batch(self, sealed: bytes) -> None:
        """Take in what another server told. Raises RequestError or UnavailableError."""


@dataclass(frozen=True)
class Alone:
    """A process that has all counters: the only one of its server, or the parent as far as labels go."""

    metrics: Metrics
    feedback: FeedbackCounter
    book: Book

    async def exposition(self) -> bytes:
        return self.metrics.render(time.time())

    async def take_labels(self, body: bytes, request_id: str | None) -> bytes:
        receipt = await self.feedback.count_in_turns(parse_feedback(body), time.time())
        if receipt.refused:
            fields = {"refused": len(receipt.refused), "first": receipt.refused[0][1], "request_id": request_id}
            log.warning("labels refused", extra={"fields": fields})
        return orjson.dumps(
            {
                "accepted": receipt.accepted,
                "duplicates": receipt.duplicates,
                "refused": [{"index": index, "reason": reason} for index, reason in receipt.refused],
            }
        )

    async def batch(self, place: str) -> bytes:
        return self.book.answers.batch(place)

    async def take_batch(self, sealed: bytes) -> None:
        await self.book.take(sealed)


class Worker:
    """A worker's view: what concerns the whole server is asked of the parent."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._told: list[Told] = []
        self._telling: asyncio.Task[None] | None = None

    def connect(self, link: Link) -> None:
        """Ask over this link from now on."""
        self._link = link

    async def exposition(self) -> bytes:
        return await self._ask(Question.METRICS, b"", _SCRAPE_SECONDS)

    async def take_labels(self, body: bytes, request_id: str | None) -> bytes:
        payload = orjson.dumps(request_id) + b"\n" + body
        answer = await self._ask(Question.LABELS, payload, _LABEL_SECONDS)
        (status,) = _STATUS.unpack_from(answer)
        content = answer[_STATUS.size :]
        if status != _OK:
            raise RequestError(status, content.decode())
        return content

    async def batch(self, place: str) -> bytes:
        return await self._ask(Question.BATCH, place.encode(), _LABEL_SECONDS)

    async def take_batch(self, sealed: bytes) -> None:
        answer = await self._ask(Question.PAIRS, sealed, _LABEL_SECONDS)
        (status,) = _STATUS.unpack_from(answer)
        if status != _OK:
            raise RequestError(status, answer[_STATUS.size :].decode())

    def answered(self, told: Sequence[Told]) -> None:
        """Tell the parent of answers to marked requests, those of some milliseconds together; more are lost."""
        if len(self._told) < _MOST_TOLD:
            self._told += told
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        await asyncio.sleep(_TELL_SECONDS)
        told, self._told, self._telling = self._told, [], None
        try:
            await self._ask(Question.ANSWERED, dump_told(told), _LABEL_SECONDS)
        except UnavailableError as error:
            log.warning("answers to marked requests are lost", extra={"fields": {"why": str(error)}})

    async def _ask(self, question: Question, payload: bytes, seconds: float) -> bytes:
        if self._link is None:
            raise UnavailableError("the server is starting")
        try:
            return await self._link.ask(question, payload, seconds)
        except LinkError as error:
            raise UnavailableError(f"the server's parent process: {error}; try again") from None


async def answer_pairs(server: Shared, payload: bytes) -> bytes:
    """The parent's answer to a worker's PAIRS."""
    try:
        await server.take_batch(payload)
    except RequestError as error:
        return _STATUS.pack(error.status) + error.message.encode()
    return _STATUS.pack(_OK)


async def answer_labels(server: Shared, payload: bytes) -> bytes:
    """The parent's answer to a worker's LABELS."""
    request_id, _, body = payload.partition(b"\n")
    try:
        return _STATUS.pack(_OK) + await server.take_labels(body, orjson.loads(request_id))
    except RequestError as error:
        return _STATUS.pack(error.status) + error.message.encode()
