"""The loop and a user's own route: when its weights are edited, and what becomes of Services that can not be led."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import CANARY, OWNER, ROLLING, STABLE
from tests.operator.build.test_own_route import BOTH, SPEC, route, slot
from tests.operator.definition import raw_spec
from tests.operator.json_patch import patched
from tests.operator.test_loop import PLACE, Listing, Writes, loop, new_resource, until

from serin_operator.act.client import ApiError
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Routing
from serin_operator.build.owner import Existing
from serin_operator.observe.cache import Cache
from serin_operator.observe.routes import Routes

ROUTED = {"router": {"type": "GatewayAPI", "gatewayAPI": {"routeRef": {"name": "public"}}}}


class Editing(Listing):
    """Notes which routes are edited."""

    def __init__(self) -> None:
        super().__init__()
        self.edited: list[str] = []

    async def edit(self, kind: str, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        self.edited.append(name)
        return patched(route(BOTH), patch) | {"metadata": {**route(BOTH)["metadata"], "resourceVersion": "9"}}


class OneRoute(Routes):
    """The user's route, as the cache has it."""

    def get(self, kind: str, place: tuple[str, str]) -> Any:
        raw = route(BOTH)
        raw["metadata"]["resourceVersion"] = "8"
        return raw if (kind, place) == ("HTTPRoute", ("shop", "public")) else None


@pytest.mark.parametrize(
    ("routing", "edited"),
    [
        (Routing(RouterType.GATEWAY_API), ["public"]),
        (Routing(RouterType.EMBEDDED, next=RouterType.GATEWAY_API), ["public"]),
        (Routing(RouterType.EMBEDDED, leaving=RouterType.GATEWAY_API), []),
        (None, []),
    ],
    ids=["it serves", "it is to take over", "it has gone", "another router"],
)
async def test_weights_are_edited_while_gateways_serve_or_are_to(routing: Routing | None, edited: list[str]) -> None:
    client = Editing()
    placed = replace(routing, blue=slot(STABLE), green=slot(CANARY)) if routing else None
    status = replace(ROLLING, routing=placed)
    assert await loop(client, Cache(routes=OneRoute((), ())))._weigh(OWNER, SPEC, status) == []
    assert client.edited == edited


class Refusing(Writes):
    """An API server that lets nobody lead a Service. What is written, the cache knows at once."""

    def __init__(self, cache: Cache) -> None:
        super().__init__({**new_resource(), "spec": raw_spec(traffic=ROUTED)})
        self.cache = cache
        cache.resources = {PLACE: [self.held]}
        self.notes: list[str] = []
        self.refused = 0

    async def replace_status(self, resource: Mapping[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        self.held = await super().replace_status(resource, status)
        self.cache.resources = {PLACE: [self.held]}
        return self.held

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        if manifest["kind"] == "Service" and manifest["metadata"]["name"] == "iris-blue":
            self.refused += 1
            raise ApiError(403, "no")
        return await super().apply(manifest, force=force)

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.notes.append(manifest.get("note", ""))
        return await super().create(manifest)


class Hasty:
    """A clock on which seconds go by at each look."""

    def __init__(self) -> None:
        self.monotonic = time.monotonic
        self.now = time.time()

    def time(self) -> float:
        self.now += 2
        return self.now


async def test_a_service_that_can_not_be_led_is_told_once_and_no_reason_to_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serin_operator.loop.time", Hasty())
    monkeypatch.setattr("serin_operator.loop._FIRST_RETRY", 0.0)
    client = Refusing(Cache())
    one = loop(client, client.cache)
    one.lead()
    one.wake(PLACE)
    await until(lambda: client.refused > 20)
    await one.rest()
    assert len(client.statuses) == 2  # the second tells of the router
    told = [note for note in client.notes if "until this is mended" in note]
    assert told == ["All else goes on until this is mended: the API server says 403: Service iris-blue: no"]


def test_the_cache_knows_where_services_lead() -> None:
    blue, other = (Existing("Service", *PLACE, 1, "owner", uid) for uid in ("blue", "other"))
    found = [
        replace(blue, name="iris-blue", selector={"serin.dev/revision": STABLE}),
        replace(other, name="iris", selector={"serin.dev/component": "router"}),
        replace(other, name="ghost", uid="ghost", selector={"serin.dev/revision": CANARY}),
    ]
    cache = Cache(objects={"Service": {PLACE: found}}, ghosts={"ghost"})
    assert cache.leads(PLACE) == {"iris-blue": STABLE}
