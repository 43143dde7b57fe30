"""Two operators as processes, at a small API server: one acts, and when it dies, hangs or ends, only the other does."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import free_port
from tests.operator.definition import raw_spec
from tests.operator.small_api_server import SmallApiServer

pytestmark = pytest.mark.process

FAILOVER_SECONDS = 15.0
SOURCES = Path(__file__).resolve().parents[2] / "operator" / "src"
# The port for /healthz is fixed: in a pod nobody else has it.
PROGRAM = "import sys, serin_operator.__main__ as it; it._PORT = int(sys.argv[1]); it.main()"


@dataclass
class Operators:
    """The API server, and a way to start operators at it."""

    server: SmallApiServer
    kubeconfig: Path

    async def start(self, pod: str) -> asyncio.subprocess.Process:
        """An operator, when it has listed what there is."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PYTHONPATH": str(SOURCES),
            "SERIN_SERVER_IMAGE": "server",
            "SERIN_ROUTER_IMAGE": "router",
            "SERIN_LEASE": "serin",
            "POD_NAME": pod,
            "POD_NAMESPACE": "serin-system",
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
async def operators(directory: Path) -> AsyncIterator[Operators]:
    port, server = free_port(), SmallApiServer()
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
    server.put("modeldeployments", {"metadata": {"namespace": "shop", "name": "iris"}, "spec": raw_spec()})
    async with server.running(port):
        yield Operators(server, kubeconfig)


async def until(holds: Callable[[], Any], seconds: float) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    for _ in range(int(seconds / 0.05) + 1):
        if holds():
            return clock() - began
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


async def test_one_acts_and_its_successor_takes_over(tmp_path: Path) -> None:
    async with operators(tmp_path) as one:
        first = await one.start("a")
        processes = [first]
        try:
            await one.acts("a", 60)
            second = await one.start("b")
            processes.append(second)
            await asyncio.sleep(5)
            one.poke()
            await asyncio.sleep(1)
            assert one.writers() == ["a"]

            # It ends in order: the other acts at once.
            first.send_signal(signal.SIGTERM)
            assert await one.acts("b") < 5
            assert await asyncio.wait_for(first.wait(), 20) == 0

            # It dies.
            third = await one.start("c")
            processes.append(third)
            await asyncio.sleep(5)
            second.kill()
            await one.acts("c")

            # It stands still, and wakes up when another leads.
            fourth = await one.start("d")
            processes.append(fourth)
            await asyncio.sleep(5)
            third.send_signal(signal.SIGSTOP)
            await one.acts("d", FAILOVER_SECONDS)
            one.poke()
            third.send_signal(signal.SIGCONT)
            for _ in range(10):
                one.poke()
                await asyncio.sleep(0.5)
            assert one.writers() == ["a", "b", "c", "d"]
            assert third.returncode is None
            marks = {
                stored["metadata"].get("annotations", {}).get("serin.dev/operator", "d_")[:2]
                for stored in one.server.objects.values()
            }
            assert marks == {"d_"}
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()
