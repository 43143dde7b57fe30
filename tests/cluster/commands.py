"""Running other programs: short ones whose output is wanted, long ones that show life while they work."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .report import Failure, indent, say, tail

HEARTBEAT_SECONDS = 15.0


def run(argv: Sequence[str], *, stdin: str = "", env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a short command and return its standard output; a non-zero exit is a Failure with its last lines."""
    done = subprocess.run(argv, input=stdin, env=_with(env), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip().splitlines()[-15:]
        raise Failure(f"{' '.join(argv[:3])} … failed with exit code {done.returncode}:\n{indent(said)}")
    return done.stdout


def succeeds(argv: Sequence[str], timeout: float = 15.0) -> bool:
    """Whether a command exists and exits with 0 in time."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def last_line(log: Path) -> str:
    """The usual account of how far a long command is: the last line that it printed."""
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "nothing printed yet")


def run_long(
    what: str,
    argv: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: Callable[[Path], str] = last_line,
) -> None:
    """Run a command that may take minutes, its output in `log`, and say every few seconds how far it is."""
    say(f"{what} (log: {log})")
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=_with(env), cwd=cwd
        )
        try:
            while (code := _wait(process, HEARTBEAT_SECONDS)) is None:
                say(f"{what}: {time.monotonic() - started:.0f} s so far; {account(log)}")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code != 0:
        raise Failure(f"{what}: {argv[0]} failed with exit code {code}; the end of {log}:\n{tail(log)}")
    say(f"{what}: done in {time.monotonic() - started:.0f} s")


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _with(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(extra or {})}
