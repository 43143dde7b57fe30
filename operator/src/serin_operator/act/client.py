"""The few verbs that Serin sends to the API server, over kubernetes.aio.

Paths come from a table instead of API discovery: Serin writes a few kinds that never change, and a client that
asks for the whole API first starts slower and needs more rights.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config
from prometheus_client import Counter

from serin_operator.api import GROUP, PLURAL, VERSION

FIELD_MANAGER = "serin"
TIMEOUT = 15.0  # seconds for one call
_JSON = "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_EDIT = "application/json-patch+json"

_COLLECTIONS = {
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Secret": ("/api/v1", "secrets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Event": ("/apis/events.k8s.io/v1", "events"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "HTTPRoute": ("/apis/gateway.networking.k8s.io/v1", "httproutes"),
    "GRPCRoute": ("/apis/gateway.networking.k8s.io/v1", "grpcroutes"),
    "VirtualService": ("/apis/networking.istio.io/v1", "virtualservices"),
    "DestinationRule": ("/apis/networking.istio.io/v1", "destinationrules"),
    "ModelDeployment": (f"/apis/{GROUP}/{VERSION}", PLURAL),
}

_MOST_WORDS = 1000  # of what is told on: a webhook may say more than a status or an Event can hold

_CALLS = Counter("serin_operator_api_calls_total", "Calls to the API server", ["verb", "kind", "code"])


class ApiError(Exception):
    """The API server said no: HTTP `code` and its own words.

    raced: whether it may be that somebody else wrote at the same moment.
    """

    def __init__(self, code: int, message: str, *, raced: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.raced = raced

    @property
    def lasts(self) -> bool:
        """Whether it stays so until somebody sees to it: a quota, a policy, a wrong value, a name that another has."""
        passing = self.raced or self.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
        return self.code < HTTPStatus.INTERNAL_SERVER_ERROR and not passing


class NotLeadingError(Exception):
    """A write that was not sent, because another operator may act by now."""


def _for_ever() -> float:
    return float("inf")


class Client:
    """A connection to the API server; make it with `connect`, close it when done."""

    def __init__(self, api: Any, seconds_left: Callable[[], float] = _for_ever) -> None:
        self._api = api
        self._seconds_left = seconds_left

    @classmethod
    async def connect(cls) -> "Client":
        """Uses the pod's service account, or KUBECONFIG outside a cluster."""
        try:
            kubernetes_config.load_incluster_config()  # type: ignore[no-untyped-call]
        except kubernetes_config.ConfigException:
            await kubernetes_config.load_kube_config()  # type: ignore[no-untyped-call]
        return cls(kubernetes_client.ApiClient())

    def within(self, seconds_left: Callable[[], float]) -> "Client":
        """The same connection for somebody who may write for so many more seconds, and then gets NotLeadingError."""
        return Client(self._api, seconds_left)

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Server-side apply as the one field manager.

        force: take over fields that others have changed; without it that is an ApiError 409. So is another version of
        the object than the manifest's `metadata.resourceVersion`, where it has one.
        """
        metadata = manifest["metadata"]
        query = [("fieldManager", FIELD_MANAGER), ("force", "true" if force else "false")]
        path = _path(manifest["kind"], metadata["namespace"], metadata["name"])
        races = {HTTPStatus.CONFLICT} if force else frozenset()
        return await self._call("PATCH", manifest["kind"], path, manifest, query, _APPLY, races=races)

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Creates an object. Raises ApiError 409 when it is there."""
        path = _path(manifest["kind"], manifest["metadata"]["namespace"])
        return await self._call("POST", manifest["kind"], path, manifest, [("fieldManager", FIELD_MANAGER)])

    async def annotate(self, kind: str, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Sets annotations of an object that something else owns."""
        body = {"metadata": {"annotations": dict(annotations)}}
        await self._call("PATCH", kind, _path(kind, namespace, name), body, [], _MERGE)

    async def edit(self, kind: str, namespace: str, name: str, patch: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Does a JSON patch as a whole, or not at all: then a test in it has failed, and that is an ApiError 422."""
        path = _path(kind, namespace, name)
        query, races = [("fieldManager", FIELD_MANAGER)], {HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY}
        return await self._call("PATCH", kind, path, patch, query, _EDIT, races=races)

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object as the API server holds it now; None when it is not there."""
        try:
            return await self._call("GET", kind, _path(kind, namespace, name), None, [])
        except ApiError as error:
            if error.code != 404:
                raise
            return None

    async def replace(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a whole object, if it is still at the version that the manifest names (else ApiError 409)."""
        path = _path(manifest["kind"], manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        return await self._call("PUT", manifest["kind"], path, manifest, [("fieldManager", FIELD_MANAGER)])

    async def delete(self, kind: str, namespace: str, name: str, **preconditions: str) -> None:
        """Deletes an object and, in the background, what it owns; one that is gone already is fine.

        preconditions: the uid, the resourceVersion that it must have (else ApiError 409).
        """
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if preconditions:
            body["preconditions"] = preconditions
        try:
            await self._call("DELETE", kind, _path(kind, namespace, name), body, [], races={HTTPStatus.CONFLICT})
        except ApiError as error:
            if error.code != 404:
                raise

    async def uids(self, kind: str, namespace: str | None, selector: str) -> set[str]:
        """The uids of all objects of a kind that bear these labels, in one namespace or (None) in all."""
        return {metadata["uid"] for metadata in await self._metadata(kind, namespace, selector)}

    async def names(self, kind: str, namespace: str, selector: str) -> frozenset[str]:
        """The names of all objects of a kind in a namespace that bear these labels."""
        return frozenset(metadata["name"] for metadata in await self._metadata(kind, namespace, selector))

    async def listed(self, kind: str, namespace: str | None, selector: str) -> tuple[list[dict[str, Any]], str]:
        """All objects of a kind that bear these labels, in one namespace or (None) in all, and the list's version.

        Raises ApiError 404 when the cluster does not know the kind.
        """
        answer = await self._call("GET", kind, _collection(kind, namespace), None, [("labelSelector", selector)])
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def changes(
        self, kind: str, namespace: str | None, selector: str, version: str, seconds: int
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """(ADDED, MODIFIED, DELETED or ERROR, object) for each change since that version, for so many seconds."""
        query = [
            ("watch", "true"),
            ("labelSelector", selector),
            ("resourceVersion", version),
            ("timeoutSeconds", str(seconds)),
        ]
        limit = seconds + TIMEOUT
        response = await self._send("GET", _collection(kind, namespace), None, query, _JSON, _JSON, limit)
        async with response.response as stream:
            _CALLS.labels("WATCH", kind, response.status).inc()
            if response.status != HTTPStatus.OK:
                raise ApiError(response.status, _message(await response.read()))
            async for line in stream.content:
                change = json.loads(line)
                yield change["type"], change["object"]

    async def replace_status(self, resource: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the whole status, if the resource is still at the version that was read (else ApiError 409)."""
        metadata = resource["metadata"]
        body = {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "metadata": {key: metadata[key] for key in ("name", "namespace", "resourceVersion")},
            "spec": resource["spec"],
            "status": status,
        }
        path = _path(resource["kind"], metadata["namespace"], metadata["name"]) + "/status"
        return await self._call("PUT", resource["kind"], path, body, [("fieldManager", FIELD_MANAGER)])

    async def _metadata(self, kind: str, namespace: str | None, selector: str) -> list[dict[str, Any]]:
        answer = await self._call(
            "GET", kind, _collection(kind, namespace), None, [("labelSelector", selector)], accept=_METADATA
        )
        return [item["metadata"] for item in answer["items"]]

    async def _call(
        self,
        verb: str,
        kind: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
        query: list[tuple[str, str]],
        content_type: str = _JSON,
        accept: str = _JSON,
        *,
        races: Set[int] = frozenset(),
    ) -> dict[str, Any]:
        """races: the codes by which this call is refused when somebody else writes at the same moment."""
        response = await self._send(verb, path, body, query, content_type, accept, TIMEOUT)
        data = await response.read()
        _CALLS.labels(verb, kind, response.status).inc()
        if not 200 <= response.status <= 299:
            raise ApiError(response.status, _message(data), raced=response.status in races)
        try:
            answer: dict[str, Any] = json.loads(data)
        except ValueError as error:
            raise aiohttp.ClientPayloadError(f"half an answer to {verb} {path}") from error
        return answer

    async def _send(
        self,
        verb: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
        query: list[tuple[str, str]],
        content_type: str,
        accept: str,
        seconds: float,
    ) -> Any:
        """The response, its body not read yet."""
        request = await self._api.param_serialize(
            verb,
            path,
            query_params=query,
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        if verb != "GET":
            seconds = min(seconds, self._seconds_left())
            if seconds <= 0:
                raise NotLeadingError(f"{verb} {path} was not sent")
        return await self._api.call_api(*request, _request_timeout=seconds)


def _collection(kind: str, namespace: str | None) -> str:
    prefix, plural = _COLLECTIONS[kind]
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def _path(kind: str, namespace: str, name: str | None = None) -> str:
    path = _collection(kind, namespace)
    return f"{path}/{name}" if name else path


def _message(data: bytes) -> str:
    try:
        text = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        text = data.decode(errors="replace")
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}…"
