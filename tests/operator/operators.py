"""Operators as processes at a small API server, and who of them acts."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.loopback import free_port
from tests.operator.definition import raw_spec
from tests.operator.small_api_server import SmallApiServer

FAILOVER_SECONDS = 15.0
SOURCES = Path(__file__).resolve().parents[2] / "operator" / "src"
# The port for /healthz is fixed: in a pod nobody else has it.
PROGRAM = "import sys, serin_operator.__main__ as it; it._PORT = int(sys.argv[1]); it.main()"


@dataclass
class Operators:
    """The API server, and a way to start operators at it."""

    server: SmallApiServer
    kubeconfig: Path
    port: int

    async def start(self, pod: str, **more: str) -> asyncio.subprocess.Process:
        """An operator, when it has listed what there is. more: of its environment."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(SOURCES),
            "SERIN_SERVER_IMAGE": "server",
            "SERIN_ROUTER_IMAGE": "router",
            "SERIN_LEASE": "serin",
            "POD_NAME": pod,
            "POD_NAMESPACE": "serin-system",
            **more,
        }
        command = (sys.executable, "-c", PROGRAM, str(free_port()))
        return await asyncio.create_subprocess_exec(*command, env=environment)

    def leader(self) -> str:
        """The pod that has the Lease."""
        lease = self.server.objects.get(("leases", "serin-system", "serin"), {"spec": {}})
        return str(lease["spec"].get("holderIdentity") or "").rpartition("_")[0]

    def writer(self) -> str:
        """The pod that wrote the status last."""
        mdep = self.server.get("modeldeployments", "shop", "iris")
        return str(mdep.get("status", {}).get("operator", "")).rpartition("_")[0]

    def writers(self) -> list[str]:
        """The pods that wrote what has a writer's name in it, one after the other, the Lease aside."""
        marks = [mark for _, kind, mark in self.server.writes if mark and kind != "Lease"]
        return [pod.rpartition("_")[0] for pod, _ in groupby(marks)]

    def strangers(self) -> list[str]:
        """Who wrote anything while somebody else had the Lease, and who had it."""
        found, holder = [], ""
        for verb, kind, mark in self.server.writes:
            if kind == "Lease":
                holder = mark
            elif mark and mark != holder:
                found.append(f"{mark}: {verb} {kind}, while {holder or 'nobody'} had the Lease")
        return found

    def poke(self) -> None:
        """The user asks for something else, which is a reason to write."""
        mdep = self.server.get("modeldeployments", "shop", "iris")
        generation = mdep["metadata"]["generation"] + 1
        mdep["spec"]["model"]["sha256"] = f"{generation:064x}"
        self.server.put("modeldeployments", {**mdep, "metadata": {**mdep["metadata"], "generation": generation}})

    async def acts(self, pod: str, seconds: float = FAILOVER_SECONDS) -> float:
        """How long it took until this one had written the status."""
        return await until(lambda: self.leader() == self.writer() == pod, seconds)


@asynccontextmanager
async def operators(directory: Path, at: SmallApiServer | None = None, **spec: Any) -> AsyncIterator[Operators]:
    """No operator yet, and one ModelDeployment with these parts of its spec."""
    port, server = free_port(), at or SmallApiServer()
    kubeconfig = directory / "kubeconfig"
    names = {"cluster": "small", "user": "small"}
    kubeconfig.write_text(
        json.dumps(
            {
                "clusters": [{"name": "small", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "small", "user": {"token": "small"}}],
                "contexts": [{"name": "small", "context": names}],
                "current-context": "small",
            }
        )
    )
    server.put("modeldeployments", {"metadata": {"namespace": "shop", "name": "iris"}, "spec": raw_spec(**spec)})
    async with server.running(port):
        yield Operators(server, kubeconfig, port)


async def until(holds: Callable[[], Any], seconds: float) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    for _ in range(int(seconds / 0.05) + 1):
        if holds():
            return clock() - began
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")
