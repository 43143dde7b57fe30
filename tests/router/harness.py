"""A running Envoy with the operator's configuration between two upstreams, on loopback."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from bench.router.loopback import on_loopback
from tests.loopback import ConfigMapVolume, Upstream, envoy, free_port

from serin_operator.api.spec import RouterType, Traffic
from serin_operator.build import envoy as config
from serin_operator.build import listeners
from serin_operator.build.owner import Owner
from serin_operator.decide.observed import Route
from serin_operator.observe.routers import healthy_hosts, live_route

OWNER = Owner("demo", "digits", "uid")
STABLE, CANARY = "aaaaaaaaaa", "bbbbbbbbbb"
INFER = "/v2/models/digits/infer"
TRAFFIC = Traffic(RouterType.EMBEDDED, 1, {}, 30.0)
LARGEST: int = config.routes(Route(STABLE), TRAFFIC, "")["resources"][0]["virtual_hosts"][0][
    "request_body_buffer_limit"
]
Ports = dict[tuple[str, int], int]


@dataclass
class Router:
    """A running Envoy with the operator's configuration between two upstreams."""

    stable: Upstream
    canary: Upstream
    volume: ConfigMapVolume
    ports: Ports
    session: aiohttp.ClientSession
    traffic: Traffic
    second: Upstream | None = None  # another pod of stable's

    def write(self, route: Route, *, with_canary: bool = True) -> None:
        """Change the files as the operator does."""
        revisions, fallbacks = ([STABLE, CANARY], {CANARY: STABLE, STABLE: CANARY}) if with_canary else ([STABLE], {})
        mirrored = route.canary if route.mirror else None
        clusters = config.clusters(OWNER, revisions, fallbacks, f"{with_canary} {mirrored}", mirrored=mirrored)
        files = {
            "cds.json": clusters,
            "rds.json": config.routes(route, self.traffic, str(route), candidate=CANARY if with_canary else None),
        }
        if self.traffic.tls_secret:
            files["sds.json"] = listeners.certificate()
        moved = {name: on_loopback(file, self.ports, self.volume.path) for name, file in files.items()}
        for cluster in moved["cds.json"]["resources"]:
            for check in cluster["health_checks"]:
                check["timeout"] = "20s"  # the upstreams share this process, which may stand still for a while
            places = {config.cluster_of(STABLE): 0, config.canary_cluster_of(CANARY): 1}
            if self.second and cluster["name"] in places:
                self._add_pod(cluster, self.second, places[cluster["name"]])
        self.volume.write({name: json.dumps(file) for name, file in moved.items()})

    def _add_pod(self, cluster: dict[str, Any], pod: Upstream, priority: int) -> None:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": pod.port}}
        endpoint = {"address": address, "health_check_config": {"port_value": pod.port}}
        cluster["load_assignment"]["endpoints"][priority]["lb_endpoints"].append({"endpoint": endpoint})

    async def status(self, path: str) -> Any:
        """GET something of the status listener; its JSON."""
        url = f"http://127.0.0.1:{self.ports['0.0.0.0', listeners.STATUS_PORT]}{path}"
        async with self.session.get(url) as answer:
            assert answer.status == 200
            return await answer.json(content_type=None)

    async def set_route(self, route: Route) -> None:
        """Change the route and wait until it is the one that serves."""
        self.write(route)
        await eventually(lambda: self._serves(route))

    async def _serves(self, route: Route) -> bool:
        return live_route(await self.status("/config_dump?resource=dynamic_route_configs")) == route

    async def reaches(self, **hosts: int) -> None:
        """Wait until so many hosts of each revision are healthy."""

        async def as_wanted() -> bool:
            found = healthy_hosts(await self.status("/clusters?format=json"))
            return {"stable": found[STABLE], "canary": found[CANARY]} == hosts

        await eventually(as_wanted)

    async def one(self, path: str = INFER, **request: Any) -> tuple[int, str]:
        """One POST: its status, and who answered."""
        url = f"http://127.0.0.1:{self.ports['0.0.0.0', 8080]}{path}"
        async with self.session.post(url, **request) as answer:
            await answer.read()
            return answer.status, answer.headers.get("x-serin-revision", "nobody")

    async def many(self, number: int, clients: int = 8) -> Counter[tuple[int, str]]:
        """So many POSTs, a few at a time."""
        counts: Counter[tuple[int, str]] = Counter()

        async def client() -> None:
            for _ in range(number // clients):
                counts[await self.one(data=b"{}")] += 1

        await asyncio.gather(*(client() for _ in range(clients)))
        return counts


async def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(
    binary: Path, directory: Path, route: Route, *, request_seconds: float = 30.0, **traffic: Any
) -> AsyncIterator[Router]:
    volume = ConfigMapVolume(directory / "files")
    async with (
        Upstream("stable").running() as stable,
        Upstream("canary").running() as canary,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        ports: Ports = {
            ("0.0.0.0", 8080): free_port(),
            ("0.0.0.0", listeners.TLS_PORT): free_port(),
            ("0.0.0.0", listeners.STATUS_PORT): free_port(),
            ("127.0.0.1", listeners.ADMIN_PORT): free_port(),
            (OWNER.server(STABLE), 8080): stable.port,
            (OWNER.server(CANARY), 8080): canary.port,
            (OWNER.server(STABLE), 8081): free_port(),
            (OWNER.server(CANARY), 8081): free_port(),
        }
        router = Router(stable, canary, volume, ports, session, replace(TRAFFIC, timeout=request_seconds, **traffic))
        router.write(route)
        bootstrap = on_loopback(listeners.bootstrap(router.traffic), ports, volume.path)
        async with envoy(binary, bootstrap, directory):
            await router.reaches(stable=1, canary=1)
            yield router
