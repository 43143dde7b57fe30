"""Structured log lines: one JSON object a line on stderr."""

import json
import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

# Lines that may wait for a slow reader of stderr; more are dropped and counted.
_MOST_WAITING = 10_000
# Warnings and errors of one text that are written in a second.
_MOST_ALIKE = 10
_FLUSH_SECONDS = 2.0


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON. `extra={"fields": {...}}` adds keys to the line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Bound(logging.Filter):
    """Lets at most _MOST_ALIKE warnings or errors of one text through in a second.

    The next one that passes says in `suppressed` how many did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[int, int]] = {}  # text to second and number

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        second = int(record.created)
        since, number = self._seen.get(record.msg, (second, 0))
        suppressed = 0
        if since != second:
            suppressed, number = max(0, number - _MOST_ALIKE), 0
        self._seen[record.msg] = (second if since != second else since, number + 1)
        if number >= _MOST_ALIKE:
            return False
        if suppressed:
            record.fields = {**getattr(record, "fields", {}), "suppressed": suppressed}
        return True


class BackgroundHandler(logging.Handler):
    """Writes lines in a thread of its own, so that who logs never waits for who reads."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return
        if self._dropped:
            record.fields = {**getattr(record, "fields", {}), "lines_dropped_before": self._dropped}
            self._dropped = 0
        self._lines.put(self.format(record))

    def close(self) -> None:
        """Write what waits, for at most _FLUSH_SECONDS."""
        self._lines.put(None)
        self._thread.join(_FLUSH_SECONDS)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            self._stream.write(line + "\n")
            self._stream.flush()


def configure() -> None:
    """Send every log record, and Python's warnings, to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)


@contextmanager
def in_background() -> Iterator[None]:
    """Let a thread write the log meanwhile: for event loops, and not before a fork."""
    root = logging.getLogger()
    before = root.handlers[:]
    handler = BackgroundHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Bound())
    root.handlers[:] = [handler]
    try:
        yield
    finally:
        root.handlers[:] = before
        handler.close()
