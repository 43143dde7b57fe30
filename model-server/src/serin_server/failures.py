"""Failures that end the process, in a form that the operator reads: a reason, a message and an exit code."""

import json
import logging
import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path

log = logging.getLogger(__name__)

# The kubelet keeps 4,096 bytes of a termination message; room is left for the JSON around it.
MESSAGE_LIMIT = 2000


class Reason(Enum):
    """Why the process ends: the name the operator shows and the exit code."""

    INTERNAL_ERROR = ("InternalError", 1)
    INVALID_CONFIGURATION = ("InvalidConfiguration", 2)
    UNREACHABLE = ("Unreachable", 10)
    NOT_FOUND = ("NotFound", 11)
    DENIED = ("Denied", 12)
    DIGEST_MISMATCH = ("DigestMismatch", 13)
    UNSUPPORTED_URI = ("UnsupportedUri", 14)
    STORAGE_FAILED = ("StorageFailed", 15)
    TOO_LARGE = ("TooLarge", 16)
    SIGNATURE_MISSING = ("SignatureMissing", 17)
    NOT_A_MODEL = ("NotAModel", 20)
    MISSING_MODULE = ("MissingModule", 21)
    LOAD_FAILED = ("LoadFailed", 22)
    VERSION_MISMATCH = ("VersionMismatch", 23)
    DIGEST_MISMATCH_AT_LOAD = ("DigestMismatch", 24)
    UNTRUSTED_TYPES = ("UntrustedTypes", 25)
    SIGNATURE_INVALID = ("SignatureInvalid", 26)
    PROFILE_MISMATCH = ("ProfileMismatch", 27)

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def exit_code(self) -> int:
        return self.value[1]


class FatalError(Exception):
    """Ends the process with the reason's exit code. Users see the message: it holds no credentials."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def guarded(run: Callable[[], int]) -> int:
    """Run something that is a process's whole life, and return its exit code; what it raises is reported."""
    try:
        return run()
    except FatalError as failure:
        report(failure)
        return failure.reason.exit_code
    except Exception as error:
        log.exception("unexpected failure")
        report(FatalError(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
        return Reason.INTERNAL_ERROR.exit_code


def report(failure: FatalError) -> None:
    """Write the failure as one JSON line to stderr and to the termination log."""
    message = failure.message
    if len(message) > MESSAGE_LIMIT:
        message = message[: MESSAGE_LIMIT - 1] + "…"
    line = json.dumps({"reason": failure.reason.label, "message": message}, ensure_ascii=False)
    print(line, file=sys.stderr, flush=True)
    write_termination_log(line)


def write_termination_log(line: str) -> None:
    """Leave a line where the kubelet picks it up, or nowhere when the directory is missing (no container)."""
    path = Path(os.environ.get("SERIN_TERMINATION_LOG", "/dev/termination-log"))
    if not path.parent.is_dir():
        return
    try:
        path.write_text(line + "\n", encoding="utf-8")
    except OSError as error:
        # The exit code and stderr still tell the story, so a log that cannot be written must not replace it.
        print(json.dumps({"level": "warning", "message": f"no termination log: {error}"}), file=sys.stderr)
