"""The port of routers: every kind that the definition knows can be written and seen."""

from tests.operator.definition import schema

from serin_operator.api.spec import RouterType
from serin_operator.build.routing import writer
from serin_operator.observe.routing import OBSERVERS


def test_every_kind_of_router_is_known_to_all() -> None:
    router = schema("spec")["properties"]["traffic"]["properties"]["router"]
    assert router["properties"]["type"]["enum"] == list(RouterType)
    assert set(OBSERVERS) == set(RouterType)
    for kind in RouterType:
        assert writer(kind)
