"""The preStop hook against the real Envoy: clients that keep their connections lose no request."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.loopback import Upstream, envoy, free_port, until

pytestmark = pytest.mark.process

DRAIN = Path(__file__).parents[2] / "router" / "drain"
TYPE = "type.googleapis.com/envoy.extensions.filters"


def bootstrap(listen: int, admin: int, upstream: int) -> dict[str, Any]:
    """The smallest Envoy that forwards everything to one loopback port."""

    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    manager = {
        "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.http.router.v3.Router"},
            }
        ],
    }
    connections = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}
    return {
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"address": address(listen), "filter_chains": [{"filters": [connections]}]}],
            "clusters": [
                {
                    "name": "upstream",
                    "load_assignment": {"cluster_name": "upstream", "endpoints": [endpoint]},
                }
            ],
        },
    }


@dataclass
class Clients:
    """Clients that each keep one connection, as the Service would route them: to `port`."""

    port: int
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    stopped: bool = False

    async def one(self) -> None:
        connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=600)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not self.stopped:
                try:
                    url = f"http://127.0.0.1:{self.port}/v2/models/m/infer"
                    async with session.post(url, data=b"x") as answer:
                        await answer.read()
                        if answer.status != 200:
                            self.failures.append(str(answer.status))
                except aiohttp.ClientError as error:
                    self.failures.append(repr(error))
                self.answered += 1
                await asyncio.sleep(0.01)


async def drain(admin: int, least: int, most: int) -> tuple[int, float, str]:
    """Runs the hook; its exit code, its seconds and what it said."""
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        DRAIN,
        str(least),
        str(most),
        env={"PATH": "/usr/bin:/bin", "ENVOY_ADMIN_PORT": str(admin)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, time.monotonic() - started, said.decode()


async def test_keep_alive_clients_lose_no_request_when_their_router_stops(envoy_binary: Path, tmp_path: Path) -> None:
    listen, admin = free_port(), free_port()
    async with Upstream("stable", delay=0.02).running() as upstream:
        clients = Clients(listen)
        async with asyncio.TaskGroup() as group:
            async with envoy(envoy_binary, bootstrap(listen, admin, upstream.port), tmp_path):
                for _ in range(8):
                    group.create_task(clients.one())
                await until(lambda: clients.answered >= 100)
                draining = asyncio.create_task(drain(admin, least=2, most=20))
                await asyncio.sleep(1)  # kube-proxy's delay: new connections still reach the old router
                clients.port = upstream.port  # from here on, connections go to "another router"
                code, seconds, said = await draining
            before = clients.answered  # Envoy is killed by now
            await until(lambda: clients.answered >= before + 100)
            clients.stopped = True
    assert clients.failures == []
    assert code == 0, said
    assert 2 <= seconds < 10


async def test_a_request_in_flight_is_waited_for_beyond_the_least_time(envoy_binary: Path, tmp_path: Path) -> None:
    listen, admin = free_port(), free_port()
    async with (
        Upstream("stable", delay=4.0).running() as upstream,
        aiohttp.ClientSession() as session,
        envoy(envoy_binary, bootstrap(listen, admin, upstream.port), tmp_path),
    ):
        request = asyncio.create_task(session.post(f"http://127.0.0.1:{listen}/v2/models/m/infer"))
        await until(lambda: bool(upstream.attempts))
        code, seconds, said = await drain(admin, least=1, most=20)
        answer = await request
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
    assert code == 0, said
    assert 1.5 < seconds < 10  # the least time is one


async def test_an_idle_connection_holds_the_router_only_for_the_greatest_time(
    envoy_binary: Path, tmp_path: Path
) -> None:
    listen, admin = free_port(), free_port()
    async with (
        Upstream("stable").running() as upstream,
        aiohttp.ClientSession() as session,
        envoy(envoy_binary, bootstrap(listen, admin, upstream.port), tmp_path),
    ):
        await (await session.post(f"http://127.0.0.1:{listen}/v2/models/m/infer")).read()
        code, seconds, said = await drain(admin, least=1, most=2)
        async with session.get(f"http://127.0.0.1:{admin}/ready") as ready:
            assert ready.status == 503
    assert (code, said) == (0, "drain: 1 client connections still open after 2 seconds\n")
    assert 1 < seconds < 5


async def test_it_fails_at_once_when_no_envoy_answers() -> None:
    code, seconds, said = await drain(free_port(), least=5, most=10)
    assert code == 1
    assert "does not answer" in said
    assert seconds < 5  # the least time is not waited for
