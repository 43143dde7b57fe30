"""What a model and its server do to the world outside: nothing after the load, and a hostile model's load ends it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from tests.model_server import estimators
from tests.model_server.serving import (
    KEY,
    Server,
    environment,
    infer,
    infer_body,
    outputs,
    run,
    save,
    serve_arguments,
)

pytestmark = pytest.mark.process

# Runs the server and writes down whatever reaches out of it: Python tells all of these before they happen.
WATCHED = """
import sys
record = open(sys.argv[1], "a", buffering=1)
events = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
          "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "ctypes.dlopen")
sys.addaudithook(lambda event, _arguments: record.write(event + "\\n") if event in events else None)
from serin_server.cli import run
sys.exit(run(sys.argv[2:]))
"""


@contextmanager
def watched(model: Path, directory: Path) -> Iterator[tuple[Server, Path]]:
    """Serve a model; the file gets a line for each event."""
    record, key, log = directory / "events", directory / "key", directory / "log"
    key.write_bytes(KEY)
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(record), *serve_arguments(model, key, "--grpc-port", "off")],
            env=environment(directory / "termination-log"),
            stderr=stderr,
        )
    try:
        yield Server(process, log), record
    finally:
        process.kill()
        process.wait()


def test_a_server_reaches_out_to_nobody_once_it_serves(iris: Path, tmp_path: Path) -> None:
    with watched(iris, tmp_path) as (server, record):
        loaded = record.read_text()
        with server.client() as client:
            row = infer_body([5.1, 3.5, 1.4, 0.2])
            token = outputs(infer(client, row))["prediction_id"][0]
            for _ in range(100):  # also on the other way, in the event loop
                outputs(infer(client, row))
            label = [{"prediction_id": token, "label": 0}]
            assert client.post("/v2/models/m/feedback", json=label).json()["accepted"] == 1
            for path in ("/v2", "/v2/models/m", "/v2/health/ready", "/metrics"):
                assert client.get(path).status_code == 200
        assert record.read_text() == loaded
        assert "socket.connect" not in loaded


@pytest.mark.parametrize(("suffix", "processes"), [("joblib", 1), ("joblib", 2), ("onnx", 1)])
def test_a_server_without_a_network_serves_and_wants_none(tmp_path: Path, suffix: str, processes: int) -> None:
    """From its start to its end, native code too. See `offline` for what is counted, and who counts it."""
    rows = np.random.default_rng(1).normal(size=(60, 4))
    trained = LogisticRegression().fit(rows, np.arange(60) % 3)
    model = tmp_path / f"model.{suffix}"
    if suffix == "onnx":
        model.write_bytes(to_onnx(trained, rows[:1], options={"zipmap": False}).SerializeToString())
    else:
        save(trained, model)
    # Without root, a namespace of users gives the right to make one of networks.
    apart = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip(
            "this user may not make a network namespace: run it as root on Linux to see that no network is needed"
        )
    done = subprocess.run(
        [*apart, sys.executable, "-m", "tests.model_server.offline", model, str(processes)],
        env=environment(tmp_path / "termination-log"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"server": 0, "knocks": 2}


def connect_on_load(port: int) -> None:
    """What a model does that calls home."""
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def spawn_on_load(path: Path) -> None:
    """What a model does that starts a shell."""
    subprocess.run(["sh", "-c", f"env > {path}"], check=True)


def test_what_is_watched_is_seen(tmp_path: Path) -> None:
    """The proof that the watch would tell."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        model = save(estimators.OnLoad(connect_on_load, port), tmp_path / "model")
        with pytest.raises(AssertionError, match="does not listen"), watched(model, tmp_path):
            pass
    assert "socket.connect" in (tmp_path / "events").read_text()


@pytest.mark.parametrize(
    ("act", "argument", "reason"),
    [(connect_on_load, 1, "LoadFailed"), (spawn_on_load, "env", "NotAModel")],
    ids=["socket-refused", "process-started"],
)
def test_a_model_that_acts_at_load_is_never_served(
    tmp_path: Path, act: Callable[..., None], argument: Any, reason: str
) -> None:
    """It ends with its reason before anything listens, and what it starts finds no credentials."""
    found = tmp_path / "env"
    model = save(estimators.OnLoad(act, found if argument == "env" else argument), tmp_path / "model")
    key = tmp_path / "key"
    key.write_bytes(KEY)
    done = run(*serve_arguments(model, key, "--grpc-port", "off"))
    assert done.termination is not None
    assert (done.termination["reason"], done.code) == (reason, {"LoadFailed": 22, "NotAModel": 20}[reason])
    assert '"listening"' not in done.stderr
    if found.exists():
        assert "SERIN_FETCH" not in found.read_text()
