"""Runs the real server, and its other commands, as processes."""

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import joblib

from serin_server.serve import Settings

ROOT = Path(__file__).parents[2]
REVISION = "0123456789"
KEY = bytes(range(32))


@dataclass(frozen=True)
class Finished:
    """A command that ended: exit code, standard output, and the termination message (None when none was left)."""

    code: int
    stdout: str
    stderr: str
    termination: dict[str, Any] | None


def environment(termination_log: Path, **extra: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT / "model-server" / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "SERIN_TERMINATION_LOG": str(termination_log), **extra}


def run(*arguments: str | Path, **extra: str) -> Finished:
    """Run one command of the server to its end."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "termination-log"
        done = subprocess.run(
            [sys.executable, "-m", "serin_server", *map(str, arguments)],
            env=environment(log, **extra),
            capture_output=True,
            text=True,
            timeout=60,
        )
        message = json.loads(log.read_text()) if log.exists() else None
    return Finished(done.returncode, done.stdout, done.stderr, message)


def save(model: object, path: Path) -> Path:
    """Write a model as users do."""
    joblib.dump(model, path)
    return path


def serve_arguments(model: Path, key: Path, *extra: str, sha256: str | None = None) -> list[str]:
    digest = sha256 or hashlib.sha256(model.read_bytes()).hexdigest()
    return [
        *("serve", "--model-name", "m", "--model-version", "v1", "--revision", REVISION),
        *("--model-path", str(model), "--sha256", digest, "--key-path", str(key)),
        *("--host", "127.0.0.1", "--port", "0", *extra),
    ]


def serving_settings(model_path: Path = Path("model"), key_path: Path = Path("key")) -> Settings:
    """The same for a server inside the test's own process."""
    return Settings(
        model_name="m",
        model_version="v1",
        revision=REVISION,
        model_path=model_path,
        sha256="0" * 64,
        key_path=key_path,
        host="127.0.0.1",
        port=0,
        drain_seconds=1,
        max_body_bytes=100_000,
        max_in_flight=10,
    )


class Server:
    """A serving process that listens on a port of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.port = self._wait_for_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            for line in self.log_lines():
                if line["message"] == "listening":
                    return int(line["port"])
            time.sleep(0.02)
        raise AssertionError(f"the server does not listen:\n{self._log.read_text()}")

    def log_lines(self) -> list[dict[str, Any]]:
        complete = self._log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in complete.splitlines()]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20)


@contextlib.contextmanager
def serving(model: Path, *extra: str) -> Iterator[Server]:
    """Serve a model file, as the operator does, until the context ends."""
    with tempfile.TemporaryDirectory() as directory:
        key = Path(directory) / "key"
        key.write_bytes(KEY)
        with served(*serve_arguments(model, key, *extra)) as server:
            yield server


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Server]:
    """Run the server with these arguments until the context ends; with gRPC only where they say so."""
    if "--grpc-port" not in arguments:
        arguments = (*arguments, "--grpc-port", "off")
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "serin_server", *arguments],
                env=environment(Path(directory) / "termination-log"),
                stderr=stderr,
            )
        try:
            yield Server(process, log)
        finally:
            process.kill()
            process.wait()


def infer_body(*rows: list[Any], datatype: str = "FP64", **fields: Any) -> dict[str, Any]:
    """A request with one matrix."""
    shape = [len(rows), len(rows[0])]
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": list(rows)}], **fields}


def infer(client: httpx.Client, body: dict[str, Any], **headers: str) -> httpx.Response:
    return client.post("/v2/models/m/infer", json=body, headers=headers)


def outputs(response: httpx.Response) -> dict[str, list[Any]]:
    """The data of each output of an answer."""
    assert response.status_code == 200, response.text
    return {output["name"]: output["data"] for output in response.json()["outputs"]}


def metric(client: httpx.Client, name: str, **labels: str) -> float | None:
    """The value of the one series that has these labels among its own, None when there is none."""
    found = []
    for line in client.get("/metrics").text.splitlines():
        series = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if series and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', series[1])).items():
            found.append(float(series[2]))
    assert len(found) <= 1, f"{name} {labels} is not one series"
    return found[0] if found else None


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
