"""Editing the weights of a user's route: only what differs, on what was last seen, and told when it was undone."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import pytest
from tests.operator.build.test_manifests import CANARY, OWNER, ROLLING, STABLE
from tests.operator.build.test_own_route import BOTH, SPEC, route, routed, slot
from tests.operator.json_patch import patched

from serin_operator.act.client import ApiError, Client
from serin_operator.act.weights import Weigher
from serin_operator.build.own_route import Weights, weights


class FakeApi:
    """Holds one route and does JSON patches to it."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.patches: list[Sequence[Mapping[str, Any]]] = []
        self.raw = raw
        self.touch()

    def touch(self) -> None:
        version = int(self.raw["metadata"].get("resourceVersion", 7)) + 1
        self.raw = deepcopy(self.raw)
        self.raw["metadata"]["resourceVersion"] = str(version)

    async def edit(self, kind: str, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        assert (kind, namespace, name) == ("HTTPRoute", "shop", "public")
        try:
            self.raw = patched(self.raw, patch)
        except AssertionError:
            raise ApiError(422, "testing value failed") from None
        self.patches.append(patch)
        self.touch()
        return self.raw

    def given(self) -> list[int]:
        return [backend["weight"] for backend in self.raw["spec"]["rules"][0]["backendRefs"]]

    def set(self, *given: int) -> None:
        for backend, weight in zip(self.raw["spec"]["rules"][0]["backendRefs"], given, strict=True):
            backend["weight"] = weight
        self.touch()


def wanted(blue: int = 75, green: int = 25) -> Weights:
    found = weights(OWNER, SPEC, routed(ROLLING, slot(STABLE), slot(CANARY)))
    assert found
    return Weights(found.owner, found.key, {"iris-blue": blue, "iris-green": green})


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(route(BOTH))


@pytest.fixture
def weigher(api: FakeApi) -> Weigher:
    return Weigher(cast(Client, api))


async def test_a_route_gets_its_weights_once(api: FakeApi, weigher: Weigher) -> None:
    stale = api.raw
    assert not await weigher.give(wanted(), stale)
    assert api.given() == [75, 25]
    assert not await weigher.give(wanted(), stale), "the watch cache lags behind"
    assert not await weigher.give(wanted(), api.raw)
    assert len(api.patches) == 1


async def test_what_somebody_changes_is_put_right_and_told(api: FakeApi, weigher: Weigher) -> None:
    await weigher.give(wanted(), api.raw)
    api.set(0, 100)
    assert await weigher.give(wanted(), api.raw)
    assert api.given() == [75, 25]
    assert not await weigher.give(wanted(50, 50), api.raw), "a new weight is no repair"


async def test_a_change_of_something_else_is_left_alone(api: FakeApi, weigher: Weigher) -> None:
    await weigher.give(wanted(), api.raw)
    api.raw["spec"]["hostnames"] = ["other.example.com"]
    api.touch()
    assert not await weigher.give(wanted(), api.raw)
    assert api.raw["spec"]["hostnames"] == ["other.example.com"]


async def test_an_edit_of_the_rule_that_was_not_seen_is_not_overwritten(api: FakeApi, weigher: Weigher) -> None:
    stale = api.raw
    api.raw["spec"]["rules"][0]["backendRefs"].append({"name": "other", "port": 80, "weight": 1})
    api.touch()
    stale = {**stale, "spec": route(BOTH)["spec"]}
    with pytest.raises(ApiError, match="422"):
        await weigher.give(wanted(), stale)
    assert [backend["name"] for backend in api.raw["spec"]["rules"][0]["backendRefs"]][-1] == "other"


async def test_a_route_that_can_not_be_used_is_left_alone(api: FakeApi, weigher: Weigher) -> None:
    api.raw["metadata"]["labels"] = {}
    assert not await weigher.give(wanted(), api.raw)
    assert api.patches == []
