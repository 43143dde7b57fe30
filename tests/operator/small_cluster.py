"""A cluster in one process: a small API server, what makes pods of Deployments, and clients whose requests reach them.

The operators that run at it are the real ones, as processes. Model servers and routers are stand-ins that tell what the
real ones tell: counters, live routes, healthy hosts. Clients draw a router's route for every request.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiohttp import web
from tests.loopback import claim
from tests.operator.small_api_server import Object, SmallApiServer

NAMESPACE, NAME = "shop", "iris"
STEP_SECONDS = 0.05
START_SECONDS = 0.3
UNAIDED_SYNC_SECONDS = 60.0  # until a kubelet looks at a ConfigMap by itself


@dataclass
class SmallPod:
    """A pod's stand-in: its counters or its route, behind its address.

    trouble: "" or how it answers whoever reads it: "hung", "nonsense".
    """

    name: str
    ip: str
    component: str
    revision: str
    ready_at: float
    started: float = field(default_factory=time.time)
    requests: Counter[str] = field(default_factory=Counter)  # by code
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)  # actual, predicted
    files: Mapping[str, str] = field(default_factory=dict)
    ready: bool = False
    trouble: str = ""
    runner: web.AppRunner | None = None

    def metrics(self) -> str:
        revision = f'revision="{self.revision}"'
        lines = [f"process_start_time_seconds {self.started:.3f}"]
        for code, count in self.requests.items():
            lines.append(f'serin_requests_total{{{revision},code="{code}",attempt="first"}} {count}')
        for (actual, predicted), count in self.labels.items():
            lines.append(f'serin_feedback_total{{{revision},actual="{actual}",predicted="{predicted}"}} {count}')
        return "\n".join(lines) + "\n"

    def restart(self) -> None:
        """Its process begins anew, and so do its counters."""
        self.requests.clear()
        self.labels.clear()
        self.started = time.time()


@dataclass
class SmallCluster:
    """`accuracy` and `failures` by model digest; `answered` counts by revision what clients got an answer to."""

    server: SmallApiServer
    accuracy: dict[str, float] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    rps: float = 0.0
    pods: dict[str, SmallPod] = field(default_factory=dict)
    random: Random = field(default_factory=lambda: Random(1))
    skew: Callable[[], float] = lambda: 0.0  # of a new pod's clock
    _ips: Iterator[str] = field(default_factory=lambda: _addresses())
    _due: float = 0.0
    _synced: dict[str, tuple[str, float]] = field(default_factory=dict)

    # --- what a test looks at ---

    @property
    def mdep(self) -> Object:
        return self.server.get("modeldeployments", NAMESPACE, NAME)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.mdep.get("status", {})
        return found

    def apply(self, **spec: Any) -> None:
        """What a user does: other values for parts of the spec."""
        mdep = self.mdep
        changed = {**mdep["spec"], **{key: {**mdep["spec"][key], **value} for key, value in spec.items()}}
        generation = mdep["metadata"]["generation"] + 1
        metadata = {**mdep["metadata"], "generation": generation}
        self.server.put("modeldeployments", {**mdep, "metadata": metadata, "spec": changed})

    def pods_of(self, component: str, revision: str = "") -> list[SmallPod]:
        """The ready ones."""
        return [
            pod
            for pod in self.pods.values()
            if pod.ready and pod.component == component and revision in ("", pod.revision)
        ]

    # --- what goes on by itself ---

    async def run(self) -> None:
        """Until cancelled."""
        self._due = time.monotonic()
        try:
            while True:
                await self._deploy()
                self._sync_routers()
                self._send()
                await asyncio.sleep(STEP_SECONDS)
        finally:
            for pod in self.pods.values():
                if pod.runner:
                    await pod.runner.cleanup()

    async def _deploy(self) -> None:
        """Every Deployment gets its pods, and pods of no Deployment go."""
        wanted = {}
        for (plural, namespace, name), stored in list(self.server.objects.items()):
            if plural == "deployments" and namespace == NAMESPACE:
                for number in range(stored["spec"]["replicas"]):
                    wanted[f"{name}-{number}"] = stored
        for name, deployment in wanted.items():
            if name not in self.pods:
                labels = deployment["spec"]["template"]["metadata"]["labels"]
                await self._start(name, labels)
            pod = self.pods[name]
            if not pod.ready and time.monotonic() >= pod.ready_at:
                pod.ready = True
                self._tell(pod, deployment["spec"]["template"]["metadata"]["labels"])
        for name in self.pods.keys() - wanted.keys():
            pod = self.pods.pop(name)
            if pod.runner:
                await pod.runner.cleanup()
            self.server.remove("pods", NAMESPACE, name)

    async def _start(self, name: str, labels: Mapping[str, str]) -> None:
        component, revision = labels["serin.dev/component"], labels.get("serin.dev/revision", "")
        pod = SmallPod(name, next(self._ips), component, revision, time.monotonic() + START_SECONDS)
        pod.started += self.skew()
        answers = {"/metrics": SmallPod.metrics, "/config_dump": self._dump, "/clusters": self._clusters}

        async def answer(request: web.Request) -> web.Response:
            if pod.trouble == "hung":
                await asyncio.sleep(3600)
            text = answers[request.path](pod) if request.path in answers else "{}"
            return web.Response(text="<html>no</html>" if pod.trouble else text)

        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        pod.runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await pod.runner.setup()
        await web.TCPSite(pod.runner, pod.ip, 9902 if component == "router" else 8080).start()
        self.pods[name] = pod
        self._tell(pod, labels)

    def _tell(self, pod: SmallPod, labels: Mapping[str, str]) -> None:
        """The kubelet's word on a pod."""
        held = self.server.objects.get(("pods", NAMESPACE, pod.name), {"metadata": {}})
        status = {
            "phase": "Running",
            "podIP": pod.ip,
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{"type": "Ready", "status": "True" if pod.ready else "False"}],
            "containerStatuses": [{"name": "server", "restartCount": 0, "state": {"running": {}}}],
        }
        metadata = {**held["metadata"], "namespace": NAMESPACE, "name": pod.name, "labels": dict(labels)}
        self.server.put("pods", {"metadata": metadata, "spec": {}, "status": status})

    def _sync_routers(self) -> None:
        """A router's files follow the ConfigMap when the pod is marked, or after a while."""
        files = self.server.objects.get(("configmaps", NAMESPACE, f"{NAME}-router"))
        if files is None:
            return
        for pod in self.pods_of("router"):
            mark = (
                self.server.get("pods", NAMESPACE, pod.name)["metadata"].get("annotations", {}).get("serin.dev/route")
            )
            seen, at = self._synced.get(pod.name, ("", 0.0))
            if str(mark) != seen or time.monotonic() - at > UNAIDED_SYNC_SECONDS:
                self._synced[pod.name] = (str(mark), time.monotonic())
                with suppress(ValueError, LookupError, TypeError):  # Envoy keeps what it has
                    _route(files["data"])
                    pod.files = files["data"]

    def routes(self) -> list[tuple[str, str, int]]:
        """Stable, canary and its weight, as each router reads them."""
        return [_route(pod.files) for pod in self.pods_of("router")]

    def _send(self) -> None:
        """The clients' requests that are due."""
        now = time.monotonic()
        if self.rps <= 0:
            self._due = now
        while self.rps > 0 and self._due <= now:
            self._due += 1 / self.rps
            self._request()

    def _request(self) -> None:
        routers = [pod for pod in self.pods_of("router") if pod.files]
        if not routers:
            self.unanswered += 1
            return
        stable, canary, weight = _route(self.random.choice(routers).files)
        revision = canary if canary and self.random.uniform(0, 100) < weight else stable
        servers = self.pods_of("server", revision) or self.pods_of("server", stable)
        if not servers:
            self.unanswered += 1
            return
        self._answer(self.random.choice(servers))

    def _answer(self, pod: SmallPod) -> None:
        """With a label, that follows at once."""
        pod.requests["200"] += 1
        actual = str(self.random.randrange(5))
        right = self.random.random() < self.accuracy.get(pod.revision, 0.95)
        pod.labels[actual, actual if right else "9"] += 1
        self.answered[pod.revision] += 1

    def _dump(self, pod: SmallPod) -> str:
        routes = json.loads(pod.files["rds.json"])["resources"] if pod.files else []
        return json.dumps({"configs": [{"route_config": config} for config in routes]})

    def _clusters(self, pod: SmallPod) -> str:
        names = [one["name"] for one in json.loads(pod.files["cds.json"])["resources"]] if pod.files else []
        host = {"health_status": {"eds_health_status": "HEALTHY"}, "priority": 0}
        statuses = [
            {"name": name, "host_statuses": [host] * len(self.pods_of("server", name.rpartition("-")[2]))}
            for name in names
        ]
        return json.dumps({"cluster_statuses": statuses})


def _route(files: Mapping[str, str]) -> tuple[str, str, int]:
    """Stable, canary and its weight, as a router reads them. Raises what a broken file raises."""
    [host] = json.loads(files["rds.json"])["resources"][0]["virtual_hosts"]
    routes = {route["name"]: route for route in host["routes"]}
    stable = str(routes["stable"]["route"]["cluster"]).rpartition("-")[2]
    if "canary" not in routes:
        return stable, "", 0
    weight = int(routes["canary"]["match"]["runtime_fraction"]["default_value"]["numerator"])
    return stable, str(routes["canary"]["route"]["cluster"]).rpartition("-")[2], weight


def _addresses() -> Iterator[str]:
    """Those of a loopback network that no other test on this machine uses."""
    for network in Random().sample(range(2, 252), 250):
        if (claimed := claim(f"network-{network}")) is not None:
            with claimed:
                yield from (f"127.{network}.{number // 250}.{number % 250 + 1}" for number in itertools.count())
    raise AssertionError("no network is free")
