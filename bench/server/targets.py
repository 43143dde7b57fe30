"""The servers that are compared: each on free ports of loopback, on the servers' core, on one thread for arithmetic."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.server import processes
from bench.server.wire import MODEL
from serin_server.cli import THREAD_VARIABLES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "model-server" / "src"
_PATIENCE_SECONDS = 120
_LOOK_SECONDS = 0.005
_END_SECONDS = 10
# gRPC connections live for two fifths of it: longer than any load, whose connections stay.
_DRAIN_SECONDS = "30"


@dataclass(frozen=True)
class Target:
    """A server that runs and is ready; `setting` is what it was told. `grpc_port` is None where it has none."""

    name: str
    setting: str
    pid: int
    port: int
    grpc_port: int | None
    ready_seconds: float

    @property
    def title(self) -> str:
        return f"{self.name} ({self.setting})" if self.setting else self.name


Start = Callable[[], contextlib.AbstractContextManager[Target]]


def environment(**extra: str) -> dict[str, str]:
    """That of a process with one thread for arithmetic, which is what all servers get."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), **extra}


@contextlib.contextmanager
def serin(model: Path, *, accelerate: str = "Auto", source: Path = SOURCE, name: str = "Serin") -> Iterator[Target]:
    """The model server from a tree of sources."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    port, grpc = free_port(), free_port()
    with tempfile.NamedTemporaryFile() as key:
        key.write(os.urandom(32))
        key.flush()
        arguments = [
            *("serve", "--model-name", MODEL, "--model-version", "v1", "--revision", "0" * 10, "--sha256", digest),
            *("--model-path", str(model), "--key-path", key.name, "--host", "127.0.0.1", "--port", str(port)),
            *("--grpc-port", str(grpc), "--drain-seconds", _DRAIN_SECONDS, "--accelerate", accelerate),
        ]
        setting = "" if accelerate == "Auto" else "not accelerated"
        command = [sys.executable, "-m", "serin_server", *arguments]
        with _running(command, _python_path(source), port, grpc, name, setting) as target:
            yield target


@contextlib.contextmanager
def echo() -> Iterator[Target]:
    """Serin's web stack alone."""
    port = free_port()
    command = [sys.executable, "-m", "bench.server.echo", str(port)]
    with _running(command, _python_path(SOURCE), port, None, "empty echo", "") as target:
        yield target


@contextlib.contextmanager
def mlserver(python: Path, model: Path, *, workers: int, batching: bool) -> Iterator[Target]:
    """MLServer with 0 or 1 processes that predict, and with or without adaptive batching."""
    http, grpc, metrics = (free_port() for _ in range(3))
    settings = {
        "debug": False,
        "parallel_workers": workers,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
    }
    of_model: dict[str, object] = {
        "name": MODEL,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(model), "version": "v1"},
    }
    if batching:
        of_model |= {"max_batch_size": 32, "max_batch_time": 0.001}
    setting = f"{workers} worker{'' if workers == 1 else 's'}, {'batching' if batching else 'no batching'}"
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "settings.json").write_text(json.dumps(settings))
        (Path(directory) / "model-settings.json").write_text(json.dumps(of_model))
        command = [str(python.parent / "mlserver"), "start", directory]
        with _running(command, {}, http, grpc, "MLServer", setting, directory) as target:
            yield target


@contextlib.contextmanager
def kserve(python: Path, model: Path, *, workers: int) -> Iterator[Target]:
    """KServe's sklearnserver without a log line for each request, in so many processes. gRPC has one in any case."""
    http, grpc = free_port(), free_port()
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / model.name).symlink_to(model)
        quiet = Path(directory) / "logs.yaml"
        quiet.write_text(json.dumps({"version": 1, "disable_existing_loggers": False}))
        command = [
            *(str(python), str(Path(__file__).with_name("kserve_server.py")), "--model_dir", directory),
            *("--model_name", MODEL, "--http_port", str(http), "--grpc_port", str(grpc), "--workers", str(workers)),
            *("--enable_latency_logging", "false", "--log_config_file", str(quiet)),
        ]
        setting = f"{workers} worker{'' if workers == 1 else 's'}"
        with _running(command, {}, http, grpc if workers == 1 else None, "KServe", setting, directory) as target:
            yield target


def _python_path(source: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(source), str(ROOT)])}


@contextlib.contextmanager
def _running(
    command: Sequence[str],
    extra: Mapping[str, str],
    port: int,
    grpc_port: int | None,
    name: str,
    setting: str,
    directory: str | None = None,
) -> Iterator[Target]:
    """A process from its start to its end, once it says that it is ready. Raises RuntimeError when it does not."""
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment(**extra), stdout=log, stderr=log, cwd=directory, start_new_session=True
        )
        processes.pin(process.pid, processes.ALL_CORES)
        try:
            while not _is_ready(port):
                if process.poll() is not None or time.perf_counter() - began > _PATIENCE_SECONDS:
                    log.seek(0)
                    text = log.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"{name} ({setting}) does not get ready:\n{text}")
                time.sleep(_LOOK_SECONDS)
            ready_seconds = time.perf_counter() - began
            processes.pin(process.pid, processes.SERVER_CORES)
            yield Target(name, setting, process.pid, port, grpc_port, ready_seconds)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, which is alone in its session's group. SIGINT spares servers their drain."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)  # workers that their parent left behind


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{MODEL}/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
