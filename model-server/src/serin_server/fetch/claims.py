"""Models on a persistent volume claim: pvc://<claim>/<path>, mounted below one directory by claim name."""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from serin_server.failures import FatalError, Reason
from serin_server.fetch.source import CHUNK_BYTES, Source

_CLAIM_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@contextmanager
def open_claim(location: str, root: Path) -> Iterator[Source]:
    """Open `<claim>/<path>` (taken literally, nothing is percent-decoded) below `root`.

    Symbolic links may lead around inside the claim, never out of it. Raises FatalError.
    """
    name = f"pvc://{location}"
    claim, _, path = location.partition("/")
    if not _CLAIM_NAME.fullmatch(claim) or not path or "\0" in path:
        raise FatalError(Reason.UNSUPPORTED_URI, f"{name!r} is not of the form pvc://<claim>/<path>")
    if ".." in path.split("/"):
        raise FatalError(Reason.UNSUPPORTED_URI, f"{name} contains '..', which could lead out of the claim")
    try:
        with _open_inside(root / claim, path, name) as file:
            yield Source(name, os.fstat(file.fileno()).st_size, _chunks(file, name))
    except OSError as error:
        raise _failure(error, name) from error


def _open_inside(claim: Path, path: str, name: str) -> BinaryIO:
    # Not Path.resolve, which reports a loop of links as a RuntimeError.
    base = Path(os.path.realpath(claim, strict=True))
    target = Path(os.path.realpath(base / path.lstrip("/"), strict=True))
    if not target.is_relative_to(base):
        raise FatalError(Reason.UNSUPPORTED_URI, f"{name} is a link that leads out of the claim")
    # The path is free of links now; one that appears since is refused. Non-blocking: a FIFO has no end to
    # wait for.
    descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FatalError(Reason.NOT_FOUND, f"{name} is not a file")
    return os.fdopen(descriptor, "rb")


def _chunks(file: BinaryIO, name: str) -> Iterator[bytes]:
    try:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        raise _failure(error, name) from error


def _failure(error: OSError, name: str) -> FatalError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return FatalError(Reason.NOT_FOUND, f"{name} does not exist")
    if error.errno in (errno.EACCES, errno.EPERM):
        return FatalError(Reason.DENIED, f"{name} cannot be read by user {os.getuid()}")
    return FatalError(Reason.UNREACHABLE, f"reading {name} failed: {error.strerror}")
