"""Forks the workers of a server, each with its ends of what connects it to the parent."""

import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from serin_server.failures import FatalError, Reason, guarded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ends:
    """One side's ends: `handover` carries accepted connections, `link` questions and answers."""

    handover: socket.socket
    link: socket.socket

    def close(self) -> None:
        self.handover.close()
        self.link.close()


@dataclass(frozen=True)
class Child:
    """A worker as its parent knows it."""

    number: int  # from 1
    pid: int
    ends: Ends


def fork_workers(count: int, work: Callable[[Ends], int], inherited: socket.socket) -> list[Child]:
    """Fork `count` workers, which run `work` and end with its exit code; `inherited` is the parent's alone.

    Raises FatalError when a thread runs: the children would have its locks, as they stand, without the thread.
    """
    if sys.platform != "linux":
        raise FatalError(Reason.INVALID_CONFIGURATION, "several processes need Linux: leave --processes out")
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise FatalError(
            Reason.LOAD_FAILED,
            f"loading the model started {threads - 1} threads, which several processes cannot share: serve it with "
            "one process (leave server.processes out), or load what starts them at the first prediction",
        )
    sys.stdout.flush()
    sys.stderr.flush()
    children: list[Child] = []
    for number in range(1, count + 1):
        handover, its_handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link, its_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours, its = Ends(handover, link), Ends(its_handover, its_link)
        pid = os.fork()
        if pid == 0:
            # The parent alone decides when a worker ends; a terminal sends its signals to all.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for child in children:
                child.ends.close()
            ours.close()
            inherited.close()
            np.random.seed()  # else models that draw from the global generator would all draw alike
            random.seed()
            code = guarded(partial(work, its))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        its.close()
        for end in (handover, link):
            end.setblocking(False)
        children.append(Child(number, pid, ours))
    return children
