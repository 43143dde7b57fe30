"""An API server in a few lines: it lists, watches and writes the kinds that Serin uses, whatever is in them.

Versions are checked: who may write is what it is for.
"""

import asyncio
import copy
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Object = dict[str, Any]
_GROUPS = {
    "v1": {
        "pods": "Pod",
        "services": "Service",
        "configmaps": "ConfigMap",
        "secrets": "Secret",
        "namespaces": "Namespace",
    },
    "apps/v1": {"deployments": "Deployment"},
    "serin.dev/v1alpha1": {"modeldeployments": "ModelDeployment"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "events.k8s.io/v1": {"events": "Event"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "gateway.networking.k8s.io/v1": {"httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute"},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions": "CustomResourceDefinition"},  # Kopf looks for it
}
_KINDS = {plural: (version, kind) for version, plurals in _GROUPS.items() for plural, kind in plurals.items()}


@dataclass
class SmallApiServer:
    """`writes`: what was done, in order, as verb, kind and the writer's mark (where what was written has one).

    Troubles: `delay` is how many seconds every call takes. `spoil` says of a call whether it ends in an error: a code
    before it is done, a negative one after it. `silent`: watches tell nothing and do not end.
    """

    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    writes: list[tuple[str, str, str]] = field(default_factory=list)
    refused: int = 0
    delay: float = 0.0
    spoil: Callable[[str, str], int] = lambda verb, plural: 0
    silent: bool = False
    _watching: set[asyncio.Task[Any]] = field(default_factory=set)
    _version: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _log: list[tuple[str, str, Object]] = field(default_factory=list)  # plural, event, object

    def get(self, plural: str, namespace: str, name: str) -> Object:
        return self.objects[plural, namespace, name]

    def put(self, plural: str, raw: Object) -> Object:
        """Store an object at a new version and tell the watchers."""
        version, kind = _KINDS[plural]
        self._version += 1
        metadata = {"uid": str(uuid.uuid4()), "generation": 1, **raw["metadata"], "resourceVersion": str(self._version)}
        stored = {"apiVersion": version, "kind": kind, **raw, "metadata": metadata}
        key = (plural, metadata["namespace"], metadata["name"])
        self._tell(plural, "MODIFIED" if key in self.objects else "ADDED", stored)
        self.objects[key] = stored
        return stored

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """Delete an object and tell the watchers."""
        self._tell(plural, "DELETED", self.objects.pop((plural, namespace, name)))

    def history(self, plural: str) -> list[Object]:
        """Every state of every object of a kind, oldest first."""
        return [stored for of, _, stored in self._log if of == plural]

    def cut_watches(self) -> int:
        """End every watch in the middle. Returns how many there were."""
        watching = list(self._watching)
        for task in watching:
            task.cancel()
        return len(watching)

    @asynccontextmanager
    async def running(self, port: int) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts == ["api"]:
            return web.json_response({"versions": ["v1"]})
        if parts == ["apis"]:
            return web.json_response({"groups": [_group(name) for name in _GROUPS if "/" in name]})
        version, rest = ("v1", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
        if not rest:
            return web.json_response({"resources": [_resource(p, k) for p, k in _GROUPS[version].items()]})
        namespace = rest[1] if rest[0] == "namespaces" else ""
        plural, *name = rest[2:] if namespace else rest
        body = json.loads(await request.text() or "null")
        await asyncio.sleep(self.delay)
        code = self.spoil(request.method, plural)
        if code > 0:
            return _refusal(code)
        if request.method == "GET" and not name and "watch" in request.query:
            return await self._watch(request, plural)
        if request.method == "GET" and not name:
            return self._list(plural)
        answer = self._one(request.method, plural, namespace, name, body)
        return _refusal(-code) if code < 0 else answer

    def _one(self, verb: str, plural: str, namespace: str, name: list[str], body: Any) -> web.Response:
        key = (plural, namespace, name[0] if name else (body["metadata"].get("name") or str(uuid.uuid4())))
        held = self.objects.get(key)
        if verb == "GET":
            return web.json_response(held) if held else _refusal(404)
        if held is None and verb in ("PUT", "DELETE"):
            return _refusal(404)
        metadata = (body or {}).get("metadata", (body or {}).get("preconditions", {}))
        asked = metadata.get("resourceVersion")
        if (verb == "POST" and held) or (asked and held and asked != held["metadata"]["resourceVersion"]):
            self.refused += 1
            return _refusal(409)
        if verb == "DELETE":
            self._note(verb, plural, {})
            self.remove(*key)
            return web.json_response({})
        self._note(verb, plural, body)
        identity = {"namespace": namespace, "name": key[2]}
        if name[1:] == ["status"] and held:
            return web.json_response(self.put(plural, {**held, "status": body["status"]}))
        raw = copy.deepcopy(body)
        kept = (held or {}).get("metadata", {})
        raw["metadata"] = {**kept, **raw["metadata"], **identity}
        if "annotations" in kept and "annotations" in raw["metadata"]:
            raw["metadata"]["annotations"] = {**kept["annotations"], **raw["metadata"]["annotations"]}
        if held and request_is_merge(verb, body):
            raw = {**held, "metadata": raw["metadata"]}
        if held and raw.get("spec") != held.get("spec"):
            raw["metadata"]["generation"] = kept["generation"] + 1
        raw["metadata"]["resourceVersion"] = kept.get("resourceVersion")
        same = held and {**raw, "metadata": raw["metadata"]} == {key: held[key] for key in held if key in raw}
        return web.json_response(held if same else self.put(plural, raw))

    def _note(self, verb: str, plural: str, body: Object) -> None:
        mark = body.get("status", {}).get("operator", "") if plural == "modeldeployments" else ""
        mark = mark or body.get("metadata", {}).get("annotations", {}).get("serin.dev/operator", "")
        mark = mark or body.get("spec", {}).get("holderIdentity") or ""
        self.writes.append((verb, _KINDS[plural][1], mark))

    def _list(self, plural: str) -> web.Response:
        items = [stored for (of, _, _), stored in self.objects.items() if of == plural]
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self._version)}})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        task = asyncio.current_task()
        assert task
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        since, seen = int(request.query.get("resourceVersion", "0")), 0
        while True:
            if self.silent:
                await asyncio.sleep(3600)
            news, seen = self._log[seen:], len(self._log)
            for of, event, stored in news:
                if of == plural and int(stored["metadata"]["resourceVersion"]) > since:
                    await response.write(json.dumps({"type": event, "object": stored}).encode() + b"\n")
            changed = self._changed
            if seen == len(self._log):
                await changed.wait()

    def _tell(self, plural: str, event: str, stored: Object) -> None:
        if event == "DELETED":
            self._version += 1
            stored = {**stored, "metadata": {**stored["metadata"], "resourceVersion": str(self._version)}}
        self._log.append((plural, event, copy.deepcopy(stored)))
        self._changed.set()
        self._changed = asyncio.Event()


def request_is_merge(verb: str, body: Object) -> bool:
    """Whether a patch changes only the metadata."""
    return verb == "PATCH" and set(body) == {"metadata"}


def _group(name: str) -> Object:
    version = {"groupVersion": name, "version": name.partition("/")[2]}
    return {"name": name.partition("/")[0], "versions": [version], "preferredVersion": version}


def _resource(plural: str, kind: str) -> Object:
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
    return {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}


def _refusal(code: int) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": f"refused with {code}"}, status=code)
