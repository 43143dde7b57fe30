"""Rollouts end as they would without the fault: two operators as processes, at a cluster that breaks in many ways.

In each there is a good model, of which every answered request is counted exactly once, and a harmful one, which is
never promoted. The moments come from a seed, which is printed; SERIN_CHAOS_SEED=N makes the same ones again, and
SERIN_CHAOS_TIMES is how often a fault strikes in a rollout.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.operator.operators import Operators, operators, until
from tests.operator.small_cluster import NAME, NAMESPACE, SmallCluster, SmallPod

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

SEED = int(os.environ.get("SERIN_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
TIMES = int(os.environ.get("SERIN_CHAOS_TIMES") or 1)
RPS = 200
AWAY_SECONDS = 70.0
SLOW_FOR_SECONDS = 20.0
SLOW_SECONDS = 2.0
ROUTE_SECONDS = 4.5  # within which a rollback reaches every client: much sooner than a kubelet looks by itself
PATIENCE_SECONDS = 150.0
BUDGETS = "poddisruptionbudgets"
FIRST, GOOD, HARMFUL = "1" * 64, "2" * 64, "3" * 64
HELD = [{"weight": 10, "duration": "2s"}, {"weight": 50, "duration": "600s"}]
SHORT = [{"weight": 10, "duration": "2s"}, {"weight": 50, "duration": "3s"}]
SPEC: dict[str, Any] = {
    "model": {"sha256": FIRST, "version": "first"},
    "server": {"replicas": 2},
    "traffic": {"router": {"replicas": 2}},
    "rollout": {"steps": HELD, "keepPrevious": "1m", "watch": "0s"},
    "analysis": {
        "interval": "1s",
        "falseRollbackRate": 0.001,
        "metrics": [{"name": "errors", "margin": 0.03}, {"name": "accuracy", "margin": 0.03}],
    },
}


@dataclass
class World:
    """The cluster with its two operators. `processes` by pod."""

    cluster: SmallCluster
    operators: Operators
    random: random.Random
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self) -> str:
        """One more operator, under a new name."""
        name = f"operator-{len(self.processes)}"
        self.processes[name] = await self.operators.start(name)
        return name

    def gave_up(self, name: str) -> bool:
        """Whether this operator ended although nobody ended it."""
        return self.processes[name].returncode not in (None, 0, -signal.SIGKILL)

    async def leader(self) -> str:
        """The one that acts."""
        await until(lambda: self.operators.leader() in self.processes, 30)
        return self.operators.leader()

    async def succeeded(self, leader: str) -> None:
        """Another one acts."""
        await until(lambda: self.operators.leader() not in ("", leader), 30)

    def arm(self, name: str) -> list[SmallPod]:
        return self.cluster.pods_of("server", self.cluster.status[name]["revision"])

    def guarded(self) -> str:
        """The revision whose pods may not be evicted all at once."""
        budget = self.operators.server.get(BUDGETS, NAMESPACE, f"{NAME}-stable")
        return str(budget["spec"]["selector"]["matchLabels"]["serin.dev/revision"])

    async def status(
        self, holds: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        await until(lambda: holds(self.cluster.status), seconds)
        return self.cluster.status


# --- the faults ---


async def nothing(world: World) -> None:
    """Without a fault all of this holds as well."""


async def operator_killed(world: World) -> None:
    leader = await world.leader()
    world.processes[leader].kill()
    await world.start()
    await world.succeeded(leader)


async def operator_ends(world: World) -> None:
    leader = await world.leader()
    world.processes[leader].send_signal(signal.SIGTERM)
    await world.start()
    await world.succeeded(leader)


async def operator_stopped(world: World) -> None:
    leader = await world.leader()
    world.processes[leader].send_signal(signal.SIGSTOP)
    await world.succeeded(leader)
    world.processes[leader].send_signal(signal.SIGCONT)


async def api_server_down(world: World) -> None:
    world.operators.server.spoil = lambda verb, plural: 503
    world.operators.server.cut_watches()
    await asyncio.sleep(AWAY_SECONDS)
    world.operators.server.spoil = lambda verb, plural: 0


async def api_server_slow(world: World) -> None:
    world.operators.server.delay = SLOW_SECONDS
    await asyncio.sleep(SLOW_FOR_SECONDS)
    world.operators.server.delay = 0.0


async def api_server_errs(world: World) -> None:
    """A third of the calls end in an error, and of those half were done all the same."""
    draw = world.random
    world.operators.server.spoil = lambda verb, plural: draw.choice([500, -500, -504, 0, 0, 0, 0, 0, 0])
    await asyncio.sleep(SLOW_FOR_SECONDS)
    world.operators.server.spoil = lambda verb, plural: 0


async def watches_cut(world: World) -> None:
    for _ in range(5):
        world.operators.server.cut_watches()
        await asyncio.sleep(world.random.uniform(0, 1.5))


async def watches_silent(world: World) -> None:
    """They stay open and tell nothing, until they end."""
    world.operators.server.silent = True
    await asyncio.sleep(SLOW_FOR_SECONDS)
    world.operators.server.silent = False
    world.operators.server.cut_watches()


async def watches_silent_and_a_takeover(world: World) -> None:
    """The successor's cache is old when it takes over."""
    await world.leader()
    world.operators.server.silent = True
    await asyncio.sleep(3)
    await operator_killed(world)
    await asyncio.sleep(3)
    world.operators.server.silent = False
    world.operators.server.cut_watches()


async def conflicting_writes(world: World) -> None:
    for number in range(40):
        mdep = world.cluster.mdep
        annotations = {**mdep["metadata"].get("annotations", {}), "example.com/n": str(number)}
        world.operators.server.put(
            "modeldeployments", {**mdep, "metadata": {**mdep["metadata"], "annotations": annotations}}
        )
        deployment = world.operators.server.get(
            "deployments", NAMESPACE, f"{NAME}-{mdep['status']['stable']['revision']}"
        )
        metadata = {**deployment["metadata"], "generation": deployment["metadata"]["generation"] + 1}
        spec = {**deployment["spec"], "paused": bool(number % 2)}
        world.operators.server.put("deployments", {**deployment, "metadata": metadata, "spec": spec})
        await asyncio.sleep(0.1)


async def route_corrupted(world: World) -> None:
    files = world.operators.server.get("configmaps", NAMESPACE, f"{NAME}-router")
    world.operators.server.put("configmaps", {**files, "data": dict.fromkeys(files["data"], "{ no route")})
    await until(
        lambda: "no route" not in str(world.operators.server.get("configmaps", NAMESPACE, f"{NAME}-router")), 30
    )


async def objects_deleted(world: World) -> None:
    """Somebody deletes the route, the Service and the budget; pods stay."""
    for plural, name in (("configmaps", f"{NAME}-router"), ("services", NAME), (BUDGETS, f"{NAME}-stable")):
        world.operators.server.remove(plural, NAMESPACE, name)
        await until(lambda key=(plural, NAMESPACE, name): key in world.operators.server.objects, 30)  # type: ignore[misc]


async def canary_unreadable(world: World) -> None:
    for trouble in ("hung", "nonsense"):
        pods = world.arm("canary") if "canary" in world.cluster.status else []
        await _trouble(pods, trouble, 6)


async def one_stable_pod_unreadable(world: World) -> None:
    for trouble in ("hung", "nonsense"):
        await _trouble(world.arm("stable")[:1], trouble, 6)


async def routers_untold(world: World) -> None:
    """What routes they serve can not be seen."""
    for trouble in ("hung", "nonsense"):
        await _trouble(world.cluster.pods_of("router"), trouble, 6)


async def clocks_differ(world: World) -> None:
    """The pods' clocks are hours apart. A start time does not change while a process lives, so it is set before."""


SMOKE = [nothing, operator_killed, watches_cut]  # what runs with the other tests of processes, too
FAULTS = [
    nothing,
    operator_killed,
    operator_ends,
    operator_stopped,
    api_server_down,
    api_server_slow,
    api_server_errs,
    watches_cut,
    watches_silent,
    watches_silent_and_a_takeover,
    conflicting_writes,
    route_corrupted,
    objects_deleted,
    canary_unreadable,
    one_stable_pod_unreadable,
    routers_untold,
    clocks_differ,
]


@pytest.mark.parametrize(
    "strike",
    [pytest.param(one, marks=() if one in SMOKE else pytest.mark.chaos) for one in FAULTS],
    ids=lambda strike: strike.__name__,
)
async def test_rollouts_end_as_they_would_without(
    strike: Callable[[World], Awaitable[None]], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    print(f"seed {SEED}")
    record_property("seed", SEED)
    record_property("times", TIMES + 1)
    async with running(tmp_path, f"{SEED} {strike.__name__}", skewed=strike is clocks_differ) as world:
        try:
            await a_good_model_is_promoted_on_exact_evidence(world, strike)
            await a_harmful_model_is_stopped(world, strike)
        finally:
            record_property("requests", world.cluster.answered.total() + world.cluster.unanswered)
            record_property("failed", world.cluster.unanswered)
            record_property("decisions", [one["decision"] for one in world.cluster.status["history"]][::-1])
        assert world.cluster.unanswered == 0
        assert world.operators.strangers() == []
        assert [name for name in world.processes if world.gave_up(name)] == []


@asynccontextmanager
async def running(directory: Path, seed: str, *, skewed: bool = False) -> AsyncIterator[World]:
    """Two operators, and the first model under care."""
    async with operators(directory, **SPEC) as them:
        world = World(SmallCluster(them.server), them, random.Random(seed))
        if skewed:
            world.cluster.skew = lambda: world.random.uniform(-36_000, 36_000)
        life = asyncio.create_task(world.cluster.run())
        try:
            await world.start()
            await world.start()
            await world.status(lambda s: s.get("phase") == "Serving" and _is_true(s, "Ready"), 90)
            yield world
        finally:
            for process in world.processes.values():
                if process.returncode is None:
                    process.kill()
                await process.wait()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)


async def a_good_model_is_promoted_on_exact_evidence(world: World, strike: Callable[[World], Awaitable[None]]) -> None:
    """The canary's first request comes after counting began, and the last before it is compared."""
    cluster = world.cluster
    cluster.apply(model={"sha256": GOOD, "version": "good"})
    await world.status(lambda s: s.get("weight") == 10 and _reason(s) == "NoTraffic")
    before = cluster.answered.copy()
    cluster.rps = RPS
    for _ in range(TIMES):
        await asyncio.sleep(world.random.uniform(0.2, 4))
        await strike(world)
    await world.status(lambda s: s.get("weight") == 50 and "stepStartedAt" in s["rollout"])
    await asyncio.sleep(2)
    cluster.rps = 0
    arms = {arm: cluster.status[arm]["revision"] for arm in ("canary", "stable")}
    expected = {arm: cluster.answered[revision] - before[revision] for arm, revision in arms.items()}
    for name in ("errors", "accuracy"):
        await until(lambda name=name: _trials(cluster.status, name) == expected, 30)  # type: ignore[misc]

    cluster.rps = RPS
    cluster.apply(rollout={"steps": SHORT})
    status = await world.status(lambda s: s["history"][0]["decision"] in ("Promoted", "RolledBack", "Rejected"))
    assert _decisions(status) == ["Started 0", "Advanced 10", "Advanced 50", "Promoted 100"]
    assert status["stable"]["version"] == "good"
    await world.status(lambda s: s["phase"] == "Serving" and s["weight"] == 0 and "canary" not in s)
    await until(lambda: world.guarded() == cluster.status["stable"]["revision"], 30)


async def a_harmful_model_is_stopped(world: World, strike: Callable[[World], Awaitable[None]]) -> None:
    cluster = world.cluster
    cluster.apply(model={"sha256": HARMFUL, "version": "harmful"}, rollout={"steps": HELD})
    status = await world.status(lambda s: s.get("canary", {}).get("version") == "harmful")
    cluster.accuracy[status["canary"]["revision"]] = 0.75
    await world.status(lambda s: s.get("weight") == 10)
    await asyncio.sleep(world.random.uniform(0, 2))
    await strike(world)
    status = await world.status(lambda s: s["history"][0]["decision"] in ("Promoted", "RolledBack", "Rejected"))
    assert _decisions(status)[-1] == "RolledBack 0"
    assert status["history"][0]["reason"] == "LessAccurate"
    rejected = status["rejected"]["revision"]
    await world.status(lambda s: s["phase"] == "RolledBack" and s["stable"]["version"] == "good")
    await until(lambda: not any(weight for _, _, weight in cluster.routes()), ROUTE_SECONDS)
    answered = cluster.answered[rejected]
    await asyncio.sleep(3)
    assert cluster.answered[rejected] == answered, "it still has traffic"


def _trials(status: dict[str, Any], name: str) -> dict[str, int]:
    found = next((one for one in status.get("metrics", []) if one["name"] == name), None)
    return {arm: found[arm]["trials"] for arm in ("canary", "stable")} if found else {}


def _decisions(status: dict[str, Any]) -> list[str]:
    """Of the last rollout, oldest first."""
    found = []
    for record in status["history"]:
        found.append(f"{record['decision']} {record['weight']}")
        if record["decision"] == "Started":
            break
    return found[::-1]


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((one for one in status.get("conditions", []) if one["type"] == kind), {})


def _reason(status: dict[str, Any]) -> str:
    return str(_condition(status, "Reconciling").get("reason"))


def _is_true(status: dict[str, Any], kind: str) -> bool:
    return bool(_condition(status, kind).get("status") == "True")


async def _trouble(pods: list[SmallPod], trouble: str, seconds: float) -> None:
    for pod in pods:
        pod.trouble = trouble
    await asyncio.sleep(seconds)
    for pod in pods:
        pod.trouble = ""
