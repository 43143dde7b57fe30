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


@pytest.mark.parametrize("kind", [kind for kind in RouterType if kind is not RouterType.EMBEDDED])
async def test_a_router_that_cannot_copy_requests_says_so(kind: RouterType) -> None:
    """A shadow gets copies of 10 %, and no requests of its own."""
    assert ROLLING.rollout
    shadow = replace(ROLLING, weight=0, rollout=replace(ROLLING.rollout, mirror=10))
    sight = Sight(cast(Any, None), ("shop", "iris"), (), make_spec(), shadow, Routes((), ()), None)
    assert (await verify(kind, sight)).reason == "RouterCannotMirror"


def test_every_kind_of_router_is_known_to_all() -> None:
    router = schema("spec")["properties"]["traffic"]["properties"]["router"]
    assert router["properties"]["type"]["enum"] == list(RouterType)
    assert set(OBSERVERS) == set(RouterType)
    for kind in RouterType:
        assert writer(kind)
