"""The small cluster behind a Gateway: its clients follow a user's own route, and writes to it can be deadly."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.operator.json_patch import patched
from tests.operator.small_api_server import Object, SmallApiServer
from tests.operator.small_cluster import NAME, NAMESPACE, SmallCluster

ROUTE = "public"
SERVICES = (f"{NAME}-blue", f"{NAME}-green")
PARENT = {"name": "public"}
REVISION = "serin.dev/revision"

Moment = Callable[[str, Object, Object], bool]  # of a write: the plural, the object as it was and as it shall be


def route() -> Object:
    """As its author wrote it."""
    backends = [{"name": name, "port": 8080, "weight": 1} for name in SERVICES]
    metadata = {"namespace": NAMESPACE, "name": ROUTE, "labels": {"serin.dev/model-deployment": NAME}}
    rules = [{"backendRefs": backends, "timeouts": {"request": "3s"}}, {"backendRefs": [{"name": NAME, "port": 80}]}]
    return {"metadata": metadata, "spec": {"parentRefs": [PARENT], "hostnames": ["iris.example.com"], "rules": rules}}


def given(raw: Object) -> dict[str, int]:
    """The weight of each Service."""
    return {backend["name"]: backend["weight"] for backend in raw["spec"]["rules"][0]["backendRefs"]}


def leads(service: Object) -> str:
    return str(service["spec"]["selector"][REVISION])


@dataclass
class DeadlyApiServer(SmallApiServer):
    """Whoever does the write for which `moment` holds is killed by `kill`: before it, or `late`, after it.

    turns: each time that a Service was led to another revision, with the weight that it had. settled: how long each
    Service had led there when it got a weight.
    """

    moment: Moment | None = None
    late: bool = False
    kill: Callable[[], None] = lambda: None
    turns: list[tuple[str, int]] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    _led_at: dict[str, float] = field(default_factory=dict)

    def _one(self, verb: str, plural: str, namespace: str, name: list[str], body: Any) -> web.Response:
        held = self.objects.get((plural, namespace, name[0])) if name else None
        if isinstance(body, list) and held:
            try:
                body = patched(held, body)
            except AssertionError:
                return web.json_response({"message": "a test has failed"}, status=422)
        struck = bool(body and held and self.moment and self.moment(plural, held, body))
        if struck:
            self.moment = None
            self.kill()
        if struck and not self.late:
            return web.json_response({"message": "nobody is left to read this"}, status=503)
        answer = super()._one(verb, plural, namespace, name, body)
        if held and name and answer.status == web.HTTPOk.status_code:
            self._take_down(plural, held, self.objects.get((plural, namespace, name[0]), held))
        return answer

    def _take_down(self, plural: str, before: Object, after: Object) -> None:
        route, now = self.objects["httproutes", NAMESPACE, ROUTE], time.monotonic()
        if plural == "services" and before["metadata"]["name"] in SERVICES and leads(before) != leads(after):
            self.turns.append((leads(after), given(route)[before["metadata"]["name"]]))
            self._led_at[before["metadata"]["name"]] = now
        if plural == "httproutes":
            new = [name for name, weight in given(after).items() if weight and not given(before)[name]]
            self.settled += [now - self._led_at[name] for name in new if name in self._led_at]


@dataclass
class GatewayCluster(SmallCluster):
    """A Gateway accepts every version of the route a moment later, and its clients' requests go where it says."""

    def _sync_routers(self) -> None:
        raw = self.server.get("httproutes", NAMESPACE, ROUTE)
        generation = raw["metadata"]["generation"]
        conditions = [
            {"type": kind, "status": "True", "observedGeneration": generation} for kind in ("Accepted", "ResolvedRefs")
        ]
        status = {"parents": [{"parentRef": PARENT, "controllerName": "small", "conditions": conditions}]}
        if raw.get("status") != status:
            self.server.put("httproutes", {**raw, "status": status})

    def _request(self) -> None:
        weights = given(self.server.get("httproutes", NAMESPACE, ROUTE))
        [name] = self.random.choices(list(weights), list(weights.values()))
        pods = self.pods_of("server", leads(self.server.get("services", NAMESPACE, name)))
        if not pods:
            self.unanswered += 1
            return
        self._answer(self.random.choice(pods))
