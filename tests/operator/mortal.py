"""A cluster in memory under a virtual clock, and operators that die at any of their writes.

What runs is the real loop with all that it decides, builds and applies. Only what it reads of pods and routers over the
network is made up here, and its watch caches may show an earlier state.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, cast

import aiohttp
import pytest
from tests.operator.test_loop import PLACE, SETTINGS

from serin_operator import loop as module
from serin_operator.act.client import ApiError, Client
from serin_operator.api import LABEL_COMPONENT, LABEL_REVISION
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Status, parse_status
from serin_operator.build.owner import Existing
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Router, Snapshot
from serin_operator.loop import Loop
from serin_operator.observe.cache import Cache
from serin_operator.observe.pods import Pod
from serin_operator.observe.ratio import of_pods
from serin_operator.observe.routers import live_route
from serin_operator.observe.routing import Sight

Object = dict[str, Any]
Key = tuple[str, str]  # kind and name; all is in one namespace
MDEP: Key = ("ModelDeployment", PLACE[1])
START = 1_750_000_000.0
STEP_SECONDS = 0.25
READY_SECONDS, SYNC_SECONDS = 2.0, 0.5
REQUESTS = 50  # in a step
EVENTS_SECONDS = 1.0  # something wakes the operator as often
FAILOVER_SECONDS = 10.0
QUIET_SECONDS = 40.0  # nothing was written for so long: the end


class Killed(BaseException):
    """The process is gone: no handler of its own sees this."""


@dataclass
class Server:
    """A model server's pod and what it has counted."""

    pod: Pod
    born: float
    failures: int = 0
    trials: int = 0


@dataclass
class MortalCluster:
    """The API server, pods, a router and clients. dies_at: the number of the write at which the operator is killed,
    before it is done or, `late`, after it. stale: draws whether a cache shows the state before the last one.

    good: the revision that fails in none of its requests, where others fail in a fifth. lost: requests that nobody
    could answer. served: by revision, and what that was when the last decision was taken. together: whether two
    revisions had pods at one time. meanwhile: what somebody does just before this status is written.
    """

    spec: Object
    dies_at: int | None = None
    late: bool = False
    stale: Random | None = None
    now: float = START
    objects: dict[Key, Object] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)
    routers: dict[str, Pod] = field(default_factory=dict)
    files: Mapping[str, str] | None = None
    good: str = ""
    writes: int = 0
    lost: int = 0
    served: Counter[str] = field(default_factory=Counter)
    served_then: Counter[str] = field(default_factory=Counter)
    together: bool = False
    meanwhile: Callable[[Object], None] = lambda status: None
    operators: int = 0
    before: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    _version: int = 10
    _synced: tuple[str, float] = ("", 0.0)

    def __post_init__(self) -> None:
        self._put(MDEP, {"apiVersion": "serin.dev/v1alpha1", "kind": MDEP[0], "metadata": {}, "spec": self.spec})
        self.loop = self.operator()

    def operator(self) -> Loop:
        """A new process."""
        self.operators += 1
        session = cast(aiohttp.ClientSession, None)
        return Loop(SETTINGS, cast(Client, self), session, Cache(), f"operator-{self.operators}")

    @property
    def raw_status(self) -> Object:
        found: Object = self.objects[MDEP].get("status", {})
        return found

    @property
    def status(self) -> Status:
        return parse_status(self.raw_status)

    def annotate_mdep(self, mark: str, value: str) -> None:
        raw = self.objects[MDEP]
        self._put(MDEP, {**raw, "metadata": {**raw["metadata"], "annotations": {mark: value}}})

    def change(self, **parts: Any) -> None:
        """What a user does."""
        raw = copy.deepcopy(self.objects[MDEP])
        for name, values in parts.items():
            raw["spec"][name] = {**raw["spec"][name], **values}
        self._put(MDEP, raw)

    # --- the API server, as `act.client.Client`

    async def read(self, kind: str, _: str, name: str) -> Object | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    async def names(self, *_: str) -> frozenset[str]:
        return frozenset({*self.servers, *self.routers})

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> Object:
        key = (manifest["kind"], manifest["metadata"]["name"])
        return self._write(key, dict(manifest), manifest["metadata"].get("resourceVersion"))

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        if manifest["kind"] == "Event":
            return {}
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in self.objects:
            raise ApiError(409, "exists")
        return self._write(key, dict(manifest), None)

    async def replace_status(self, resource: Mapping[str, Any], status: Object) -> Object:
        self.meanwhile(status)
        held = self.objects[MDEP]
        if status["history"] != held.get("status", {}).get("history"):
            self.served_then = self.served.copy()
        return self._write(MDEP, {**held, "status": status}, resource["metadata"]["resourceVersion"])

    async def delete(self, kind: str, _: str, name: str, **preconditions: str) -> None:
        self._write((kind, name), None, preconditions.get("resourceVersion"))

    async def annotate(self, kind: str, _: str, name: str, annotations: Mapping[str, str]) -> None:
        self._struck(late=False)
        (mark,) = annotations.values()
        if name in self.routers:
            self.routers[name] = replace(self.routers[name], route_mark=mark)
        self._struck(late=True)

    def _struck(self, *, late: bool) -> None:
        self.writes += not late
        if self.writes == self.dies_at and late is self.late:
            self.dies_at = None
            raise Killed

    def _write(self, key: Key, raw: Object | None, version: str | None) -> Object:
        self._struck(late=False)
        held = self.objects.get(key)
        if version is not None and (held is None or held["metadata"]["resourceVersion"] != version):
            raise ApiError(409, f"{key} is at another version")
        if raw is None:
            self.objects.pop(key, None)
        else:
            self._put(key, raw)
        self._struck(late=True)
        return copy.deepcopy(self.objects.get(key, {}))

    def _put(self, key: Key, raw: Object) -> None:
        self._version += 1
        held = self.objects.get(key, {"metadata": {"generation": 0}, "spec": None})
        grown = held["metadata"]["generation"] + (raw.get("spec") != held.get("spec"))
        metadata = {"uid": f"uid-{self._version}", **held["metadata"], **raw["metadata"], "generation": grown}
        metadata |= {"namespace": PLACE[0], "name": key[1], "resourceVersion": str(self._version)}
        self.objects[key] = copy.deepcopy({**raw, "metadata": metadata})

    # --- what goes on by itself

    def elapse(self) -> None:
        """A step of time: pods start and end, routers take up their files, clients ask."""
        self.now += STEP_SECONDS
        wanted = {}
        for (kind, name), raw in self.objects.items():
            if kind == "Deployment":
                for number in range(raw["spec"]["replicas"]):
                    wanted[f"{name}-{number}"] = raw["spec"]["template"]["metadata"]["labels"]
        for name in (self.servers.keys() | self.routers.keys()) - wanted.keys():
            self.servers.pop(name, None)
            self.routers.pop(name, None)
        for name, labels in wanted.items():
            if name not in self.servers and name not in self.routers:
                component, revision = labels[LABEL_COMPONENT], labels.get(LABEL_REVISION, "")
                uid = f"{name} {self.now}"
                pod = Pod(name, component, revision, "127.0.0.1", False, False, None, None, None, uid=uid)
                if component == "router":
                    self.routers[name] = replace(pod, ready=True)
                else:
                    self.servers[name] = Server(pod, self.now)
        for server in self.servers.values():
            if not server.pod.ready and self.now - server.born >= READY_SECONDS:
                server.pod = replace(server.pod, ready=True)
        self.together |= len({each.pod.revision for each in self.servers.values()}) > 1
        self._sync()
        self._ask()
        self._preview()

    def _sync(self) -> None:
        files = self.objects.get(("ConfigMap", f"{PLACE[1]}-router"))
        if files is None or not self.routers:
            return
        version = files["metadata"]["resourceVersion"]
        if self._synced[0] != version:
            self._synced = (version, self.now)
        if self.now - self._synced[1] >= SYNC_SECONDS:
            self.files = files["data"]

    def ready(self, revision: str) -> list[Server]:
        return [each for each in self.servers.values() if each.pod.revision == revision and each.pod.ready]

    def _ask(self) -> None:
        """Clients ask the Service that is theirs, from when something serves."""
        status, entry = self.raw_status, self.objects.get(("Service", PLACE[1]))
        if entry is None or len(status.get("history", ())) < len(("Started", "Serving")):
            return
        selector = entry["spec"]["selector"]
        if selector[LABEL_COMPONENT] == "server":
            named = selector.get(LABEL_REVISION)
            pods = [each for each in self.servers.values() if each.pod.ready and named in (None, each.pod.revision)]
            known = [*(status[role] for role in ("stable", "canary", "previous") if role in status)]
            known += status.get("retiring", [])  # while the route of the operator that died is not written yet
            assert {each.pod.revision for each in pods} <= {each["revision"] for each in known}
            self._serve(pods, REQUESTS)
            return
        route = live_route(self.dump()) if self.files else None
        if route is None:
            self.lost += REQUESTS
            return
        to_canary = REQUESTS * route.weight // 100 if route.canary and self.ready(route.canary) else 0
        if route.canary:
            self._serve(self.ready(route.canary), to_canary)
        self._serve(self.ready(route.stable), REQUESTS - to_canary)

    def _preview(self) -> None:
        """Somebody calls the new revision at its Service, where it has one."""
        entry = self.objects.get(("Service", f"{PLACE[1]}-preview"))
        if entry is not None and (pods := self.ready(entry["spec"]["selector"][LABEL_REVISION])):
            self._serve(pods, REQUESTS // 5)

    def _serve(self, pods: list[Server], requests: int) -> None:
        if not pods:
            self.lost += requests
            return
        for index, server in enumerate(pods):
            share = requests // len(pods) + (index < requests % len(pods))
            server.trials += share
            self.served[server.pod.revision] += share
            if self.good not in ("", server.pod.revision):
                server.failures = server.trials // 5

    def dump(self) -> Object:
        """Envoy's route table."""
        assert self.files
        tables = json.loads(self.files["rds.json"])["resources"]
        return {"configs": [{"route_config": table} for table in tables]}

    # --- what the loop sees

    async def verify(self, kind: RouterType, sight: Sight) -> Router:
        if kind is RouterType.REPLICA_RATIO:
            return of_pods(sight.status, sight.selector, sight.ready)
        if self.files is None or not self.routers:
            return Router(ready=1, problem="it has no route yet")
        named = [one["name"] for one in json.loads(self.files["cds.json"])["resources"]]
        revisions = {each.pod.revision for each in self.servers.values()}
        healthy = {each: len(self.ready(each)) for each in revisions if any(name.endswith(each) for name in named)}
        return Router(len(self.routers), (live_route(self.dump()),) * len(self.routers), (healthy,) * len(self.routers))

    async def look(self, _: Any, __: Any, ___: Any, pods: list[Pod], *____: Any, **_____: Any) -> Snapshot:
        found: dict[str, dict[str, Counts]] = {}
        names = frozenset(pod.name for pod in pods)
        for each in self.servers.values():
            if not each.pod.ready or each.pod.name not in names:
                continue
            series = f"{each.pod.name}/{each.born:.0f}"
            found.setdefault(each.pod.revision, {})[series] = Counts(each.failures, each.trials)
        processes = frozenset(one for arm in found.values() for one in arm)
        return Snapshot(dict.fromkeys(("requests", "errors"), found), processes, names)

    def show(self) -> None:
        """Fills the operator's cache, each kind perhaps with what it has shown before."""
        cache = self.loop._cache
        self.before, self.shown = self.shown, self._state()
        state = {
            kind: self.before[kind] if self.stale and kind in self.before and self.stale.random() < 0.5 else newest
            for kind, newest in self.shown.items()
        }
        cache.resources = {PLACE: state[MDEP[0]]}
        cache.pods = {PLACE: state["Pod"]}
        kinds = ("Service", "ConfigMap", "Deployment", "PodDisruptionBudget")
        cache.objects = {kind: {PLACE: state[kind]} for kind in kinds}

    def _state(self) -> dict[str, Any]:
        found: dict[str, Any] = {MDEP[0]: [copy.deepcopy(self.objects[MDEP])]}
        found["Pod"] = [each.pod for each in self.servers.values()] + list(self.routers.values())
        for kind in ("Service", "ConfigMap", "Deployment", "PodDisruptionBudget"):
            found[kind] = [Existing.of(raw, kind) for (of, _), raw in self.objects.items() if of == kind]
        return found

    async def run(self, most: float) -> None:
        """Passes and time go on until nothing has been due for a while, `most` seconds at most."""
        end, quiet = self.now + most, 0.0
        while self.now < end and quiet < QUIET_SECONDS:
            self.show()
            before, wait = self._version, EVENTS_SECONDS
            try:
                wait = min(await self.loop._pass(PLACE), EVENTS_SECONDS)
            except ApiError:
                pass  # it looks again
            except Killed:
                self.loop, wait = self.operator(), FAILOVER_SECONDS
            for _ in range(max(1, round(wait / STEP_SECONDS))):
                self.elapse()
            idle = "rollout" not in self.raw_status and before == self._version
            quiet = quiet + EVENTS_SECONDS if idle else 0.0


class Clock:
    """In place of the module `time`."""

    def __init__(self, cluster: MortalCluster) -> None:
        self._cluster = cluster

    def time(self) -> float:
        return self._cluster.now

    monotonic = time


def installed(cluster: MortalCluster, patch: pytest.MonkeyPatch) -> MortalCluster:
    """The loop sees this cluster and its clock."""
    patch.setattr(module, "time", Clock(cluster))
    patch.setattr(module, "verify", cluster.verify)
    patch.setattr(module, "look", cluster.look)
    return cluster
