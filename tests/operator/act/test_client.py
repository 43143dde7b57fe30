"""The calls as an API server sees them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client
from tests.loopback import free_port

from serin_operator.act.client import TIMEOUT, ApiError, Client, NotLeadingError


@dataclass
class Call:
    """One request as it came."""

    verb: str
    path: str
    query: dict[str, str]
    content_type: str
    body: Any


@dataclass
class ApiServer:
    """Notes every call and answers all of them alike, after some seconds."""

    status: int = 200
    answer: Any = field(default_factory=lambda: {"metadata": {"resourceVersion": "8"}})
    seconds: float = 0.0
    calls: list[Call] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        body = json.loads(text) if text else None
        query = {key: str(value) for key, value in request.query.items()}
        self.calls.append(Call(request.method, request.path, query, request.content_type, body))
        await asyncio.sleep(self.seconds)
        if isinstance(self.answer, str):
            return web.Response(text=self.answer, status=self.status)
        return web.json_response(self.answer, status=self.status)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        configuration = kubernetes_client.Configuration(host=f"http://127.0.0.1:{self.port}")
        client = Client(kubernetes_client.ApiClient(configuration))
        try:
            yield client
        finally:
            await client.close()
            await runner.cleanup()


@contextmanager
def refused(code: int) -> Iterator[pytest.ExceptionInfo[ApiError]]:
    with pytest.raises(ApiError) as caught:
        yield caught
    assert caught.value.code == code


async def test_half_an_answer_is_as_good_as_a_broken_connection() -> None:
    async with ApiServer(answer='{"metadata": {"resource').running() as client:
        with pytest.raises(aiohttp.ClientError, match="GET /api/v1/namespaces/shop/pods/iris"):
            await client.read("Pod", "shop", "iris")


def manifest(kind: str, name: str = "iris") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, "namespace": "shop"}}


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Pod", "/api/v1/namespaces/shop/pods/iris"),
        ("Service", "/api/v1/namespaces/shop/services/iris"),
        ("ConfigMap", "/api/v1/namespaces/shop/configmaps/iris"),
        ("Secret", "/api/v1/namespaces/shop/secrets/iris"),
        ("Deployment", "/apis/apps/v1/namespaces/shop/deployments/iris"),
        ("Event", "/apis/events.k8s.io/v1/namespaces/shop/events/iris"),
        ("Lease", "/apis/coordination.k8s.io/v1/namespaces/shop/leases/iris"),
        ("HTTPRoute", "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/iris"),
        ("GRPCRoute", "/apis/gateway.networking.k8s.io/v1/namespaces/shop/grpcroutes/iris"),
        ("VirtualService", "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/iris"),
        ("DestinationRule", "/apis/networking.istio.io/v1/namespaces/shop/destinationrules/iris"),
        ("ModelDeployment", "/apis/serin.dev/v1alpha1/namespaces/shop/modeldeployments/iris"),
    ],
)
async def test_every_kind_has_its_path(kind: str, path: str) -> None:
    server = ApiServer()
    async with server.running() as client:
        await client.apply(manifest(kind), force=True)
        await client.delete(kind, "shop", "iris")
        await client.create(manifest(kind))
    assert [(call.verb, call.path) for call in server.calls] == [
        ("PATCH", path),
        ("DELETE", path),
        ("POST", path.removesuffix("/iris")),
    ]


@pytest.mark.parametrize(("force", "said"), [(True, "true"), (False, "false")])
async def test_apply_is_server_side(force: bool, said: str) -> None:
    server = ApiServer()
    async with server.running() as client:
        answer = await client.apply(manifest("Service"), force=force)
    (call,) = server.calls
    assert call.content_type == "application/apply-patch+yaml"
    assert call.query == {"fieldManager": "serin", "force": said}
    assert call.body == manifest("Service")
    assert answer == {"metadata": {"resourceVersion": "8"}}


async def test_an_edit_is_a_json_patch() -> None:
    server = ApiServer()
    patch = [{"op": "test", "path": "/metadata/uid", "value": "u"}]
    async with server.running() as client:
        await client.edit("HTTPRoute", "shop", "public", patch)
    (call,) = server.calls
    assert (call.verb, call.content_type, call.body) == ("PATCH", "application/json-patch+json", patch)
    assert call.path == "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/public"


async def test_annotations_are_merged() -> None:
    server = ApiServer()
    async with server.running() as client:
        await client.annotate("Pod", "shop", "router-0", {"serin.dev/route": "abc"})
    (call,) = server.calls
    assert (call.verb, call.path) == ("PATCH", "/api/v1/namespaces/shop/pods/router-0")
    assert call.content_type == "application/merge-patch+json"
    assert call.body == {"metadata": {"annotations": {"serin.dev/route": "abc"}}}


async def test_status_is_replaced_at_the_version_that_was_read() -> None:
    resource = {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "iris", "namespace": "shop", "resourceVersion": "7", "managedFields": []},
        "spec": {"model": {}},
        "status": {"weight": 1},
    }
    server = ApiServer()
    async with server.running() as client:
        await client.replace_status(resource, {"weight": 5})
    (call,) = server.calls
    assert (call.verb, call.path) == ("PUT", "/apis/serin.dev/v1alpha1/namespaces/shop/modeldeployments/iris/status")
    assert call.body["metadata"] == {"name": "iris", "namespace": "shop", "resourceVersion": "7"}
    assert call.body["status"] == {"weight": 5}


async def test_a_delete_leaves_nothing_behind_and_takes_gone_for_done() -> None:
    server = ApiServer(status=404, answer={"kind": "Status", "message": "not found"})
    async with server.running() as client:
        await client.delete("Deployment", "shop", "iris")
    (call,) = server.calls
    assert call.body == {"propagationPolicy": "Background"}


async def test_a_delete_can_ask_for_the_very_object() -> None:
    server = ApiServer()
    async with server.running() as client:
        await client.delete("Deployment", "shop", "iris", uid="u", resourceVersion="7")
    (call,) = server.calls
    assert call.body == {
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u", "resourceVersion": "7"},
    }


async def test_an_object_is_read_and_replaced_whole() -> None:
    server = ApiServer(answer={"metadata": {"resourceVersion": "8"}, "spec": {}})
    async with server.running() as client:
        found = await client.read("Lease", "shop", "iris")
        assert found == server.answer
        await client.replace({**manifest("Lease"), "spec": {"holderIdentity": "me"}})
        server.status = 404
        assert await client.read("Lease", "shop", "iris") is None
        server.status = 403
        with refused(403):
            await client.read("Lease", "shop", "iris")
    path = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/iris"
    assert [(call.verb, call.path) for call in server.calls[:2]] == [("GET", path), ("PUT", path)]
    assert server.calls[1].body["spec"] == {"holderIdentity": "me"}


async def test_whoever_may_not_act_sends_no_write_but_may_read() -> None:
    server = ApiServer(answer={"items": [], "metadata": {"resourceVersion": "8"}, "status": {}})
    left = 30.0
    async with server.running() as client:
        mine = client.within(lambda: left)
        await mine.create(manifest("Secret"))
        left = 0.0
        resource = {**manifest("ModelDeployment"), "apiVersion": "serin.dev/v1alpha1", "spec": {}}
        resource["metadata"]["resourceVersion"] = "7"
        for write in (
            mine.create(manifest("Secret")),
            mine.apply(manifest("Service"), force=True),
            mine.delete("Service", "shop", "iris"),
            mine.annotate("Pod", "shop", "iris", {}),
            mine.replace(manifest("Lease")),
            mine.replace_status(resource, {}),
        ):
            with pytest.raises(NotLeadingError):
                await write
        await mine.read("Lease", "shop", "iris")
        await mine.uids("Pod", None, "")
    assert [call.verb for call in server.calls] == ["POST", "GET", "GET"]


async def test_a_write_is_given_up_when_the_time_to_act_is_over() -> None:
    assert TIMEOUT > 1
    server = ApiServer(seconds=5.0)
    async with server.running() as client:
        with pytest.raises(TimeoutError):
            await client.within(lambda: 0.2).create(manifest("Secret"))


async def test_other_refusals_of_a_delete_are_errors() -> None:
    server = ApiServer(status=403, answer={"kind": "Status", "message": "forbidden"})
    async with server.running() as client:
        with refused(403):
            await client.delete("Deployment", "shop", "iris")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"kind": "Status", "message": "the object has been modified"}, "409: the object has been modified"),
        ("upstream connect error", "409: upstream connect error"),
        ({"kind": "Status"}, '409: {"kind": "Status"}'),
        ("x" * 2000, f"409: {'x' * 1000}…"),
        ({"message": "x" * 2000}, f"409: {'x' * 1000}…"),
        ([1], "409: [1]"),
    ],
    ids=["a Status", "a proxy's words", "without a message", "long", "a long Status", "a list"],
)
async def test_a_refusal_has_the_servers_own_words(answer: Any, text: str) -> None:
    server = ApiServer(status=409, answer=answer)
    async with server.running() as client:
        with refused(409) as caught:
            await client.create(manifest("Secret"))
    assert str(caught.value) == text


async def test_the_uids_of_what_is_there() -> None:
    server = ApiServer(answer={"items": [{"metadata": {"uid": "a"}}, {"metadata": {"uid": "b"}}]})
    async with server.running() as client:
        assert await client.uids("Pod", "shop", "serin.dev/model-deployment") == {"a", "b"}
        assert await client.uids("Deployment", None, "x=y") == {"a", "b"}
    assert [(call.verb, call.path, call.query) for call in server.calls] == [
        ("GET", "/api/v1/namespaces/shop/pods", {"labelSelector": "serin.dev/model-deployment"}),
        ("GET", "/apis/apps/v1/deployments", {"labelSelector": "x=y"}),
    ]


async def test_a_list_comes_with_its_version() -> None:
    server = ApiServer(answer={"metadata": {"resourceVersion": "7"}, "items": [{"kind": "HTTPRoute"}]})
    async with server.running() as client:
        assert await client.listed("HTTPRoute", None, "a=b") == ([{"kind": "HTTPRoute"}], "7")
    (call,) = server.calls
    assert (call.verb, call.path) == ("GET", "/apis/gateway.networking.k8s.io/v1/httproutes")
    assert call.query == {"labelSelector": "a=b"}


async def test_changes_come_line_by_line() -> None:
    lines = [{"type": "ADDED", "object": {"a": 1}}, {"type": "DELETED", "object": {"b": 2}}]
    server = ApiServer(answer="".join(json.dumps(line) + "\n" for line in lines))
    async with server.running() as client:
        found = [change async for change in client.changes("HTTPRoute", "shop", "a=b", "7", 60)]
    assert found == [("ADDED", {"a": 1}), ("DELETED", {"b": 2})]
    (call,) = server.calls
    assert call.path == "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes"
    wanted = {"watch": "true", "labelSelector": "a=b", "resourceVersion": "7", "timeoutSeconds": "60"}
    assert call.query == wanted


async def test_a_kind_that_is_not_there_can_not_be_watched() -> None:
    server = ApiServer(status=404, answer={"message": "the server could not find the requested resource"})
    async with server.running() as client:
        with refused(404):
            await client.listed("HTTPRoute", None, "")
        with refused(404):
            await anext(client.changes("HTTPRoute", None, "", "7", 60))


async def test_a_server_that_hangs_up_is_an_error() -> None:
    server = ApiServer()
    async with server.running():
        pass
    late = Client(kubernetes_client.ApiClient(kubernetes_client.Configuration(host=f"http://127.0.0.1:{server.port}")))
    with pytest.raises(OSError, match="connect"):
        await late.create(manifest("Secret"))
    await late.close()
