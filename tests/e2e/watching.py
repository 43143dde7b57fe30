"""ModelDeployments and other objects as they change: a kubectl that watches, and waiting on what it tells."""

import json
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import IO, Any, Self

from demo.environment import Cluster
from demo.manifests import KIND
from tests.e2e.cluster import Manifest, environment

_PAUSE_SECONDS = 1  # before the next watch, so that a cluster that is gone costs no CPU


class Watch:
    """Every state of every object of a kind in a namespace since the watch began, without polling."""

    def __init__(self, cluster: Cluster, namespace: str, kind: str = KIND) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._kind = kind
        self._states: dict[str, list[Manifest]] = defaultdict(list)
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)
        self._ended = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        if self._process:
            self._process.kill()
        self._thread.join()

    def latest(self, name: str) -> Manifest:
        """The newest state; empty when there was none yet."""
        with self._changed:
            return self._states[name][-1] if self._states[name] else {}

    def states(self, name: str) -> list[Manifest]:
        """All states so far, oldest first."""
        with self._changed:
            return list(self._states[name])

    def until(self, name: str, holds: Callable[[Manifest], bool], seconds: float) -> Manifest | None:
        """The first state from now on, the present one included, for which `holds`; None when the time is over."""
        deadline = time.monotonic() + seconds
        with self._changed:
            states = self._states[name]
            seen = max(len(states) - 1, 0)
            while True:
                for state in states[seen:]:
                    if holds(state):
                        return state
                seen = len(states)
                while len(states) == seen:
                    if not self._changed.wait(deadline - time.monotonic()):
                        return None

    def _follow(self) -> None:
        while not self._ended:  # a watch ends now and then; the next one starts with the present states
            command = ("kubectl", "get", self._kind, "-n", self._namespace, "--watch", "-o", "json")
            self._process = subprocess.Popen(
                command, env=environment(self._cluster), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            assert self._process.stdout
            for state in _documents(self._process.stdout):
                with self._changed:
                    self._states[state["metadata"]["name"]].append(state)
                    self._changed.notify_all()
            self._process.wait()
            time.sleep(_PAUSE_SECONDS)


def _documents(stream: IO[str]) -> Iterator[dict[str, Any]]:
    """The JSON documents of a stream that has one after the other, indented: a document ends with a bare brace."""
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if line.rstrip("\n") == "}":
            yield json.loads("".join(lines))
            lines.clear()
