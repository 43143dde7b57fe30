"""What a person sees: progress lines, and failures that say what to do."""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

_STARTED = time.monotonic()


class Failure(Exception):  # noqa: N818 (an error of the machine or the run, told to a person as one message)
    """Something that a person has to hear about; its text is all that is printed."""


def say(message: str) -> None:
    """Print a progress line with the seconds since the command began.

    On standard error, so that standard output holds only answers (a path, a status).
    """
    print(f"[{time.monotonic() - _STARTED:5.1f}s] {message}", file=sys.stderr, flush=True)


def tail(log: Path, lines: int = 20) -> str:
    """Return the end of a log, indented, to be shown under the message that it explains."""
    if not log.exists():
        return f"  ({log} was never written)"
    return indent(log.read_text(errors="replace").splitlines()[-lines:])


def indent(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)
