"""The parent of a server's workers: accepts connections for them, adds up their metrics, counts labels, ends them.

It computes no predictions, so what only it can do never waits for a model. A worker that dies is not replaced: the
others drain, and the server ends with the dead one's exit code. Its counts are gone, and only a new start time of the
server tells a reader that counters began anew.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence

from serin_server import logs
from serin_server.processes.forking import Child
from serin_server.processes.handover import closings, give
from serin_server.processes.link import Link, LinkError, Question
from serin_server.processes.shared import GATHER_SECONDS, Alone, answer_labels, answer_pairs
from serin_server.processes.sums import summed
from serin_server.processes.worker import TIME
from serin_server.shadow.book import parse_told

log = logging.getLogger(__name__)

# As long as the kubelet's probe leaves a single process that does not answer.
SILENT_SECONDS = 60
_TICK_SECONDS = 1.0
_RETRY_SECONDS = 0.02
_ACCEPTED_AT_ONCE = 64


class _Worker:
    """A worker, as far as it is alive."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.link: Link
        self.open = 0  # connections
        self.given = 0  # the turn in which it got its last one
        self.silent = 0  # ticks since it told anything

    @property
    def number(self) -> int:
        return self.child.number


class Supervisor:
    """Runs until all workers have ended."""

    def __init__(self, listener: socket.socket, children: Sequence[Child], own: Alone, drain_seconds: float) -> None:
        """`own` has the parent's counters: those of labels. For `drain_seconds` all goes on after SIGTERM."""
        listener.setblocking(False)
        self._listener = listener
        self._workers = {child.pid: _Worker(child) for child in children}
        self._count = len(children)
        self._own = own
        self._drain_seconds = drain_seconds
        self._held: deque[socket.socket] = deque()  # accepted, when no worker could take one
        self._turn = 0
        self._draining = False
        self._telling: list[asyncio.Task[None]] = []
        self._stopped = False
        self._code = 0
        self._ended = asyncio.Event()

    def run(self) -> int:
        """Supervise until all workers have ended, and return the exit code."""
        with logs.in_background():
            return asyncio.run(self._run())

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for worker in self._workers.values():
            worker.link = await Link.over(worker.child.ends.link, self._answer, lambda: None)
            loop.add_reader(worker.child.ends.handover.fileno(), self._hear, worker)
        # No sooner: what they call needs all links, and takes workers away.
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGTERM, self.drain)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_reader(self._listener.fileno(), self._accept)
        self._tick()
        await self._ended.wait()
        return self._code

    def drain(self) -> None:
        """Let all workers say that they are not ready, go on for a while, then stop. A second call changes nothing."""
        if self._draining:
            return
        self._draining = True
        log.info("draining", extra={"fields": {"seconds": self._drain_seconds}})
        loop = asyncio.get_running_loop()
        self._telling = [loop.create_task(self._tell_drain(worker)) for worker in self._workers.values()]
        loop.call_later(self._drain_seconds, self.stop)

    def stop(self) -> None:
        """Hand over the connections that are there, take no more, and let the workers end."""
        if self._stopped:
            return
        self._draining = self._stopped = True
        self._accept_all()
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        for worker in self._workers.values():
            with contextlib.suppress(OSError):  # it is ending already
                worker.child.ends.handover.shutdown(socket.SHUT_WR)

    async def _tell_drain(self, worker: _Worker) -> None:
        try:
            await worker.link.ask(Question.DRAIN, b"", self._drain_seconds)
        except LinkError as error:
            log.warning(
                "a process was not told to drain", extra={"fields": {"process": worker.number, "why": str(error)}}
            )

    # --- connections ---------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._held or not self._accept_one():
                return

    def _accept_all(self) -> None:
        while self._accept_one():
            pass

    def _accept_one(self) -> bool:
        """Whether a connection was there."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return False
        except OSError as error:  # no more files, or a client that went away meanwhile
            log.warning("a connection cannot be accepted", extra={"fields": {"why": error.strerror}})
            self._pause()
            return False
        self._hand(connection)
        return True

    def _hand(self, connection: socket.socket) -> None:
        """Give a connection to the worker with the fewest, and among equals to the one that waits longest."""
        for worker in sorted(self._workers.values(), key=lambda worker: (worker.open, worker.given)):
            if give(worker.child.ends.handover, connection):
                connection.close()
                self._turn += 1
                worker.open += 1
                worker.given = self._turn
                return
        self._held.append(connection)
        self._pause()

    def _pause(self) -> None:
        """Accept nothing for a moment: what comes waits in the kernel's queue."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.fileno())
        loop.call_later(_RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        held, self._held = self._held, deque()
        for connection in held:
            self._hand(connection)
        if not self._held and not self._stopped:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _hear(self, worker: _Worker) -> None:
        closed = closings(worker.child.ends.handover)
        if closed is None:  # its end; SIGCHLD tells the rest
            asyncio.get_running_loop().remove_reader(worker.child.ends.handover.fileno())
            return
        worker.open -= closed
        worker.silent = 0

    # --- life and death ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Ticks are counted, not time: a machine that slept must not find its workers silent."""
        asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
        for worker in self._workers.values():
            worker.silent += 1
            if worker.silent == SILENT_SECONDS:
                log.error("a process hangs, and is killed", extra={"fields": {"process": worker.number}})
                os.kill(worker.child.pid, signal.SIGKILL)
        self._reap()  # also those that ended before their signal was listened for

    def _reap(self) -> None:
        for pid in list(self._workers):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._lose(self._workers.pop(pid), os.waitstatus_to_exitcode(status))
        if not self._workers:
            self.stop()
            self._ended.set()

    def _lose(self, worker: _Worker, code: int) -> None:
        asyncio.get_running_loop().remove_reader(worker.child.ends.handover.fileno())
        worker.child.ends.handover.close()
        if self._stopped and code == 0:
            return
        log.error(
            "a process has ended: the server ends too",
            extra={"fields": {"process": worker.number, "exit_code" if code >= 0 else "signal": abs(code)}},
        )
        self._code = self._code or (code or 1 if code >= 0 else 128 - code)
        self.drain()

    # --- questions of the workers --------------------------------------------------------------------------

    async def _answer(self, question: Question, payload: bytes) -> bytes:
        match question:
            case Question.METRICS:
                return await self._exposition()
            case Question.LABELS:
                return await answer_labels(self._own, payload)
            case Question.ANSWERED:
                self._own.book.answered(parse_told(payload))
                return b""
            case Question.BATCH:
                return await self._own.batch(payload.decode())
            case Question.PAIRS:
                return await answer_pairs(self._own, payload)
            case Question.DRAIN:
                raise LinkError("the parent alone decides about draining")

    async def _exposition(self) -> bytes:
        """The sum over all processes as they stand now. Raises LinkError: a part of them would look like a restart."""
        now = time.time()
        if len(self._workers) < self._count:
            raise LinkError(f"only {len(self._workers)} of {self._count} workers are left")
        workers = list(self._workers.values())
        asked = [worker.link.ask(Question.METRICS, TIME.pack(now), GATHER_SECONDS) for worker in workers]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        texts = [self._own.metrics.render(now)]
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, BaseException):
                raise LinkError(f"worker {worker.number} of {self._count}: {answer}") from None
            texts.append(answer)
        return summed(texts)
