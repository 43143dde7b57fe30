"""Files of lines in one directory, which together never grow beyond a bound: the oldest make room."""

import contextlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Stores of objects behind a volume show a file only when it is closed.
OLDEST_SECONDS = 3600.0
_LARGEST_FILE = 16 * 1024 * 1024
_PARTS = 8  # at least so many files fill the bound, so that little is lost when one makes room
_STEPS = 16  # so often is the directory looked at while one file fills
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-.+\.jsonl")


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    size: int
    changed: float


class BoundedFiles:
    """Appends to a file of this process's own, and begins another when it is large or an hour old.

    Several processes, also of several pods, may share the directory. Each looks at all files in it after every
    sixteenth of a file, so all together may exceed the bound by as much for each process but one. Lines are whole,
    except for the last of a file whose process was killed or whose disk was full.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._file_bytes = min(_LARGEST_FILE, max_bytes // _PARTS)
        self._step = self._file_bytes // _STEPS
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._size = 0
        self._opened = 0.0
        self._room = 0  # bytes that may be written before the next look

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises OSError; the next call then begins a new file."""
        try:
            if len(lines) > self._room:
                self._make_room(len(lines))
            file = self._open()
            if file.write(lines) < len(lines):
                raise OSError("the volume is full")
        except OSError:
            self._forget()
            raise
        self._room -= len(lines)
        self._size += len(lines)
        if self._size >= self._file_bytes:
            self.close()

    def close(self) -> None:
        """End the present file, if there is one. Raises OSError."""
        file, self._file, self._path = self._file, None, None
        if file is not None:
            file.close()

    def _open(self) -> BinaryIO:
        now = time.time()
        if self._file is not None and now - self._opened > OLDEST_SECONDS:
            self.close()
        if self._file is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            begun = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
            self._path = self._directory / f"{begun}-{socket.gethostname()}-{secrets.token_hex(4)}.jsonl"
            # Not for all: what is in it is somebody's data. Unbuffered, so that lines are written whole.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
            self._file = os.fdopen(descriptor, "wb", buffering=0)
            self._size, self._opened = 0, now
        return self._file

    def _make_room(self, needed: int) -> None:
        """Delete the oldest files until a step more fits, and at least `needed` bytes. Raises OSError."""
        step = max(self._step, needed)
        if step > self._max_bytes:
            raise OSError(f"{needed} bytes at once are more than the bound of {self._max_bytes}")
        if self._path is not None and not self._path.exists():
            self.close()  # it was the oldest for another process
        found = sorted(self._found(), key=lambda file: file.changed)
        total = sum(file.size for file in found)
        for file in found:
            if total + step <= self._max_bytes:
                break
            if file.path == self._path:
                self.close()
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                file.path.unlink()
            total -= file.size
        self._room = step

    def _found(self) -> Iterator[_Found]:
        if not self._directory.exists():
            return
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        yield _Found(Path(entry.path), stat.st_size, stat.st_mtime)

    def _forget(self) -> None:
        self._room = 0
        with contextlib.suppress(OSError):  # the one that is told is the first
            self.close()
