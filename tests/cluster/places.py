"""Where things are kept that outlive a cluster: binaries, image layers, downloads."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """The cache directory; `$SERIN_CACHE` moves it."""
    base = os.environ.get("SERIN_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "serin"


def user() -> str:
    """Who runs this, as messages name them."""
    return "root" if os.geteuid() == 0 else f"user {os.geteuid()}"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a lock on a directory, so that two commands at once do one piece of work after the other."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
