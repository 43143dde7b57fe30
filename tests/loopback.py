"""Envoy and small upstreams on loopback, for tests that need the real router but no cluster."""

import asyncio
import itertools
import json
import os
import random
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

READY_SECONDS = 20.0


# Below the ports that the kernel gives to outgoing connections: one of those may take a port before its server does.
# Every process that runs tests has ports of its own and gives each once, as a server may listen a while after that.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = list(range(10_000 + _WORKER, 30_000, _WORKERS))
random.shuffle(_PORTS)
_TURNS = itertools.cycle(_PORTS)
_LAST_CLAIMS: deque[socket.socket] = deque(maxlen=200)


def claim(name: str) -> socket.socket | None:
    """Claims a name for as long as the socket is open; None when it is claimed already, by any test on this machine."""
    claimed = socket.socket(socket.AF_UNIX)
    try:
        claimed.bind(f"\0serin-tests-{name}")
    except OSError:
        claimed.close()
        return None
    return claimed


def free_port() -> int:
    """A port that nothing listens on at any address at this moment, and that nobody else gets soon."""
    for port in itertools.islice(_TURNS, len(_PORTS)):
        if (claimed := claim(f"port-{port}")) is None:
            continue
        _LAST_CLAIMS.append(claimed)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports go round")


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Returns when the condition holds; raises TimeoutError when it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@dataclass
class Upstream:
    """A model server's stand-in: answers every POST after `delay` seconds and names itself.

    `attempts`, `paths` and `headers` have one element per request.
    """

    name: str
    port: int = field(default_factory=free_port)
    delay: float = 0.0
    status: int = 200
    ready: bool = True
    breaks: bool = False  # cuts the connection of every POST, and still passes health checks
    attempts: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def _infer(self, request: web.Request) -> web.Response:
        await request.read()
        self.attempts.append(request.headers.get("x-envoy-attempt-count"))
        self.paths.append(request.path)
        self.headers.append(request.headers)
        if self.breaks and request.transport is not None:
            request.transport.abort()
        await asyncio.sleep(self.delay)
        return web.json_response({"by": self.name}, status=self.status, headers={"x-serin-revision": self.name})

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Upstream"]:
        """Serves on loopback until the block ends."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/v2/health/ready", self._ready)
        app.router.add_post("/{path:.*}", self._infer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await self.die()

    async def die(self) -> None:
        """Stop listening and cut every connection, whatever is in flight."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


class ConfigMapVolume:
    """A directory whose files change together, by one rename of a link, as the kubelet changes a ConfigMap's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._versions = 0
        path.mkdir()

    def write(self, files: dict[str, str]) -> None:
        """Replace the files by these."""
        self._versions += 1
        version = self.path / f"..version{self._versions}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        link = self.path / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.path / "..data")
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")


@asynccontextmanager
async def envoy(binary: Path, bootstrap: dict[str, Any], directory: Path) -> AsyncIterator[None]:
    """Runs Envoy with this bootstrap until the block ends; enters it when Envoy says that it is ready.

    Raises RuntimeError that names Envoy's log when it exits or is not ready in time.
    """
    admin = bootstrap["admin"]["address"]["socket_address"]["port_value"]
    config = directory / "bootstrap.json"
    config.write_text(json.dumps(bootstrap))
    log = directory / "envoy.log"
    command = [str(binary), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1"]
    with log.open("w") as stream:
        process = await asyncio.create_subprocess_exec(*command, stdout=stream, stderr=stream)
    try:
        await _until_ready(process, f"http://127.0.0.1:{admin}/ready", log)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_ready(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    async with aiohttp.ClientSession() as session:
        while asyncio.get_running_loop().time() < deadline and process.returncode is None:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # not listening yet
            await asyncio.sleep(0.02)
    raise RuntimeError(f"Envoy is not ready; its log is {log}")
