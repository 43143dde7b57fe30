"""The port of routers: every kind that the definition knows can be written and seen."""

from dataclasses import replace
from typing import Any, cast

import pytest
from tests.operator.build.test_manifests import ROLLING
from tests.operator.definition import make_spec, schema

from serin_operator.api.spec import RouterType
from serin_operator.build.routing import writer
from serin_operator.observe.routes import Routes
from serin_operator.observe.routing import OBSERVERS, Sight, verify


@pytest.mark.parametrize(
    ("kind", "percent", "cannot"),
    [
        pytest.param(RouterType.ISTIO, 100, True, id="a mesh"),
        pytest.param(RouterType.REPLICA_RATIO, 100, True, id="pods"),
        pytest.param(RouterType.GATEWAY_API, 10, True, id="a share at Gateways"),
        pytest.param(RouterType.GATEWAY_API, 100, False, id="everything at Gateways"),
    ],
)
async def test_a_router_that_cannot_copy_requests_says_so(kind: RouterType, percent: int, cannot: bool) -> None:
    """A shadow gets copies, and no requests of its own."""
    assert ROLLING.rollout
    shadow = replace(ROLLING, weight=0, rollout=replace(ROLLING.rollout, mirror=percent))
    sight = Sight(cast(Any, None), ("shop", "iris"), (), make_spec(), shadow, Routes((), ()), None)
    assert ((await verify(kind, sight)).reason == "RouterCannotMirror") is cannot


def test_every_kind_of_router_is_known_to_all() -> None:
    router = schema("spec")["properties"]["traffic"]["properties"]["router"]
    assert router["properties"]["type"]["enum"] == list(RouterType)
    assert set(OBSERVERS) == set(RouterType)
    for kind in RouterType:
        assert writer(kind)
