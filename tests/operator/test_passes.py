"""What a pass does when the API server shows or takes only a part of it."""

from typing import Any

import pytest
from tests.operator.build.test_manifests import STABLE, revision
from tests.operator.build.test_routes import built
from tests.operator.definition import raw_spec
from tests.operator.observe.test_routes import Following, Source
from tests.operator.test_loop import PLACE, Writes, loop, new_resource

from serin_operator.act.client import ApiError
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase, Routing, Status, dump_status
from serin_operator.observe import routes as module
from serin_operator.observe.cache import Cache
from serin_operator.observe.routes import State

GATEWAY = {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}}
BEHIND_GATEWAYS = Status(phase=Phase.SERVING, stable=revision(STABLE), routing=Routing(RouterType.GATEWAY_API))


class Deletes(Writes):
    """Notes what is deleted, too."""

    async def delete(self, kind: str, *_: str, **__: str) -> None:
        self.writes.append(f"delete {kind}")


def behind_gateways() -> dict[str, Any]:
    """A ModelDeployment whose route is an HTTPRoute."""
    return {**new_resource(**dump_status(BEHIND_GATEWAYS)), "spec": raw_spec(traffic={"router": GATEWAY})}


def written() -> dict[str, Any]:
    """Its route, as an earlier pass left it."""
    raw = built(RouterType.GATEWAY_API, BEHIND_GATEWAYS, gatewayAPI=GATEWAY["gatewayAPI"])["HTTPRoute", PLACE[1]]
    metadata = {**raw["metadata"], "namespace": PLACE[0], "uid": "route", "generation": 3, "resourceVersion": "40"}
    metadata["ownerReferences"] = [{**metadata["ownerReferences"][0], "uid": "uid"}]
    return {**raw, "metadata": metadata}


@pytest.mark.parametrize(
    ("unreadable", "applied"),
    [pytest.param("elsewhere", True, id="in another namespace"), pytest.param(PLACE[0], False, id="in its own")],
)
async def test_a_route_stays_while_its_kind_is_not_readable(
    unreadable: str, applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.02)
    client = Deletes(behind_gateways())
    source = Source({"HTTPRoute": [written()]}, {"elsewhere": []})
    async with Following(source, PLACE[0], "elsewhere", router=RouterType.GATEWAY_API) as following:
        routes = following.routes

        def refused() -> bool:
            source.feeds["HTTPRoute"].put_nowait(None)  # one of the watches ends, and begins with a list
            return routes.state("HTTPRoute", unreadable) is State.FORBIDDEN

        await following.until(lambda: routes.state("HTTPRoute", "elsewhere") is State.KNOWN)
        await following.until(lambda: routes.get("HTTPRoute", PLACE) is not None)
        source.in_namespaces[unreadable] = ApiError(403, "forbidden")
        await following.until(refused)
        one = loop(client, Cache(resources={PLACE: [client.held]}, routes=routes))
        await one._pass(PLACE)
    assert ("HTTPRoute" in client.writes) is applied
    assert "delete HTTPRoute" not in client.writes
