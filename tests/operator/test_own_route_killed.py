"""Operators as processes move weights in a user's own route, and die at one write after the other."""

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tests.operator.operators import Operators, operators, until
from tests.operator.small_api_server import Object
from tests.operator.small_cluster import NAMESPACE
from tests.operator.small_gateway import ROUTE, SERVICES, DeadlyApiServer, GatewayCluster, Moment, given, leads, route
from tests.operator.test_faults import GOOD, RPS, SHORT, SPEC

from serin_operator.decide.slots import SETTLE_SECONDS

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

ROUTED = {"router": {"type": "GatewayAPI", "gatewayAPI": {"routeRef": {"name": ROUTE}}}}
BETTER = "4" * 64
PATIENCE_SECONDS = 120.0
BLUE_ALONE = dict(zip(SERVICES, (100, 0), strict=True))
ENDINGS = ("Promoted", "RolledBack", "Rejected")


def has_turn(plural: str, before: Object, after: Object) -> bool:
    """The status says to which Service the canary comes."""
    status = after.get("status", {})
    canary = status.get("canary", {}).get("revision")
    slots = [status["routing"][colour] for colour in ("blue", "green") if colour in status.get("routing", {})]
    return plural == "modeldeployments" and bool(canary) and canary in [slot["revision"] for slot in slots]


def is_led(plural: str, before: Object, after: Object) -> bool:
    """A Service is led elsewhere."""
    return plural == "services" and before["metadata"]["name"] in SERVICES and leads(before) != leads(after)


def has_weight(plural: str, before: Object, after: Object) -> bool:
    """The status says that the weight is another."""
    old, new = (each.get("status", {}).get("weight", 0) for each in (before, after))
    return plural == "modeldeployments" and old != new


def is_edited(plural: str, before: Object, after: Object) -> bool:
    """The route gets other weights."""
    return plural == "httproutes" and given(before) != given(after)


def its_authors(raw: Object) -> Object:
    """What Serin has no business with."""
    spec: Object = deepcopy(raw["spec"])
    for rule in spec["rules"]:
        for backend in rule["backendRefs"]:
            backend.pop("weight", None)
    return spec


async def test_who_is_killed_at_any_write_leaves_a_rollout_that_ends_as_it_would(tmp_path: Path) -> None:
    server = DeadlyApiServer()
    server.put("httproutes", route())
    processes: dict[str, asyncio.subprocess.Process] = {}
    spec = {**SPEC, "traffic": ROUTED, "rollout": {"steps": SHORT, "watch": "0s"}}
    async with operators(tmp_path, server, **spec) as them:
        cluster = GatewayCluster(server)
        life = asyncio.create_task(cluster.run())
        try:
            for _ in range(2):
                await start(them, processes)
            await until(lambda: cluster.status.get("phase") == "Serving", PATIENCE_SECONDS)
            await until(lambda: given(server.get("httproutes", NAMESPACE, ROUTE)) == BLUE_ALONE, 30)
            cluster.rps = RPS
            for digest, moments in (
                (GOOD, [(has_turn, True), (has_weight, True), (is_edited, True)]),
                (BETTER, [(has_turn, False), (is_led, True), (has_weight, False)]),
            ):
                server.turns.clear()
                cluster.apply(model={"sha256": digest, "version": digest[:4]})
                await killed(them, processes, moments)
                await until(lambda: cluster.status["history"][0]["decision"] in ENDINGS, PATIENCE_SECONDS)
                assert told(cluster.status) == ["Started 0", "Advanced 10", "Advanced 50", "Promoted 100"]
                assert server.turns == [(cluster.status["stable"]["revision"], 0)]
        finally:
            print(server.turns, server.settled, cluster.status)
            for process in processes.values():
                if process.returncode is None:
                    process.kill()
                await process.wait()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
    assert cluster.unanswered == 0
    assert min(server.settled) >= SETTLE_SECONDS
    assert [raw for raw in server.history("httproutes") if its_authors(raw) != its_authors(route())] == []


async def start(them: Operators, processes: dict[str, asyncio.subprocess.Process]) -> None:
    name = f"operator-{len(processes)}"
    processes[name] = await them.start(name, SERIN_ROUTERS="GatewayAPI")


async def killed(
    them: Operators, processes: dict[str, asyncio.subprocess.Process], moments: Sequence[tuple[Moment, bool]]
) -> None:
    """Who leads dies at each of these moments, after the write or before it; the next one need not wait for its Lease.

    Whoever comes may do the next moment's write at once, so that is set before.
    """
    server = them.server
    assert isinstance(server, DeadlyApiServer)
    dead: list[str] = []

    def kill() -> None:
        dead.append(them.leader())
        processes[dead[-1]].kill()

    async def succeed() -> None:
        server.remove("leases", "serin-system", "serin")
        await start(them, processes)

    server.kill = kill
    for moment, late in moments:
        server.late, server.moment = late, moment
        if dead:
            await succeed()
        await until(lambda: server.moment is None, PATIENCE_SECONDS)
        await processes[dead[-1]].wait()
    await succeed()


def told(status: dict[str, Any]) -> list[str]:
    """The last rollout, oldest decision first."""
    found = [f"{one['decision']} {one['weight']}" for one in status["history"]]
    return found[: found.index("Started 0") + 1][::-1]
