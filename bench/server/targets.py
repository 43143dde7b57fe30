"""The servers that are compared, each a process of its own on a free port of loopback."""

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serin_server.cli import THREAD_VARIABLES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "model-server" / "src"
MLSERVER = "1.7.1"
# MLServer 1.7.1 does not start its workers under newer ones.
_MLSERVER_PACKAGES = (f"mlserver=={MLSERVER}", f"mlserver-sklearn=={MLSERVER}", "uvloop<0.23")
_PATIENCE_SECONDS = 60
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """A server that runs."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    path: str = "/v2/models/m/infer"

    def cpu_seconds(self) -> float:
        """The CPU time that the process has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def environment(**extra: str) -> dict[str, str]:
    """That of a process with one thread for arithmetic, which is what all servers get."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), **extra}


@contextlib.contextmanager
def serin(model: Path, source: Path = SOURCE, name: str = "Serin") -> Iterator[Target]:
    """The model server from a tree of sources."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    with tempfile.NamedTemporaryFile() as key:
        key.write(os.urandom(32))
        key.flush()
        arguments = [
            *("serve", "--model-name", "m", "--model-version", "v1", "--revision", "0" * 10, "--sha256", digest),
            *("--model-path", str(model), "--key-path", key.name, "--host", "127.0.0.1", "--port", "0"),
            *("--drain-seconds", "0.1"),
        ]
        with _logging(name, [sys.executable, "-m", "serin_server", *arguments], source) as target:
            yield target


@contextlib.contextmanager
def echo() -> Iterator[Target]:
    """The web stack alone."""
    with _logging("empty echo", [sys.executable, "-m", "bench.server.echo"], SOURCE) as target:
        yield target


@contextlib.contextmanager
def _logging(name: str, command: list[str], source: Path) -> Iterator[Target]:
    """A process that logs the port on which it listens."""
    with tempfile.NamedTemporaryFile() as log, _process(command, source, log.name) as process:
        port = None
        while port is None:
            _still_starting(process, Path(log.name))
            found = re.search(r'"message": "listening".*"port": (\d+)', Path(log.name).read_text())
            port = int(found[1]) if found else None
        yield Target(name, process, port)


@contextlib.contextmanager
def mlserver(python: Path, model: Path, batching: bool) -> Iterator[Target]:
    """MLServer without worker processes, which cost more than they give for small models."""
    ports = [_free_port() for _ in range(3)]
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        **dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True)),
    }
    of_model: dict[str, object] = {
        "name": "m",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(model), "version": "v1"},
    }
    if batching:
        of_model |= {"max_batch_size": 32, "max_batch_time": 0.001}
    with tempfile.TemporaryDirectory() as directory, tempfile.NamedTemporaryFile() as log:
        (Path(directory) / "settings.json").write_text(json.dumps(settings))
        (Path(directory) / "model-settings.json").write_text(json.dumps(of_model))
        command = [str(python.parent / "mlserver"), "start", directory]
        with _process(command, SOURCE, log.name) as process:
            while not _is_ready(ports[0]):
                _still_starting(process, Path(log.name))
            yield Target("MLServer, batching" if batching else "MLServer", process, ports[0])


def install_mlserver() -> Path:
    """The Python of an environment with MLServer, made once. Raises CalledProcessError."""
    place = Path.home() / ".cache" / "serin" / f"mlserver-{MLSERVER}"
    python, marker = place / "bin" / "python", place / ".installed"
    if not marker.exists():
        print(f"Installing MLServer {MLSERVER} into {place}, once; this takes some minutes.", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--progress-bar=off", *_MLSERVER_PACKAGES], check=True)
        marker.touch()
    return python


@contextlib.contextmanager
def _process(command: list[str], source: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    path = os.pathsep.join([str(source), str(ROOT)])
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=environment(PYTHONPATH=path), stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _still_starting(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait a moment. Raises RuntimeError when the process ended or has had long enough."""
    started = log.stat().st_ctime if process.poll() is None else 0.0
    if time.time() - started > _PATIENCE_SECONDS:
        raise RuntimeError(f"{process.args!r} does not get ready:\n{log.read_text()[-2000:]}")
    time.sleep(0.05)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/m/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
