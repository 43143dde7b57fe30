"""The loop's memory: which status holds, and what the watches missed."""

import time
from typing import Any, cast

import aiohttp
import pytest

from serin_operator.act.client import Client
from serin_operator.api.status import Phase
from serin_operator.build.owner import Existing, Images
from serin_operator.loop import CACHE_LAG_LIMIT_SECONDS, Loop
from serin_operator.observe.cache import Cache
from serin_operator.settings import Settings

PLACE = ("team", "iris")
SETTINGS = Settings(Images("server", "router", "Never"), (), None, "INFO")


class Listing:
    """An API server that only lists, and holds these uids whatever the kind."""

    def __init__(self, *uids: str) -> None:
        self._uids = set(uids)
        self.asked: list[tuple[str, str | None, str]] = []

    async def uids(self, kind: str, namespace: str | None, selector: str) -> set[str]:
        self.asked.append((kind, namespace, selector))
        return self._uids


def resource(uid: str, version: int, **status: Any) -> dict[str, Any]:
    metadata = {"namespace": PLACE[0], "name": PLACE[1], "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": status}


def loop(client: Any, cache: Cache) -> Loop:
    return Loop(SETTINGS, cast(Client, client), cast(aiohttp.ClientSession, None), cache)


async def test_what_the_api_server_no_longer_lists_is_a_ghost() -> None:
    here, gone = (Existing("Service", *PLACE, 1, "owner", uid) for uid in ("here", "gone"))
    cache = Cache(objects={"Service": {PLACE: [here, gone]}})
    client = Listing("here")
    await loop(client, cache)._exorcise("Service")
    assert cache.objects_of(PLACE) == [here]
    assert client.asked == [("Service", None, "serin.dev/model-deployment")]


async def test_a_ghost_does_not_stand_before_its_namesake() -> None:
    cache = Cache(resources={PLACE: [resource("old", 1), resource("new", 2)]})
    await loop(Listing("new"), cache)._exorcise("ModelDeployment")
    found = cache.resource(PLACE)
    assert found is not None
    assert found["metadata"]["uid"] == "new"


@pytest.mark.parametrize(
    ("second", "phase"),
    [
        pytest.param(resource("uid", 8, phase="Serving"), Phase.PROGRESSING, id="its own status, other fields changed"),
        pytest.param(resource("uid", 8, phase="RolledBack"), Phase.ROLLED_BACK, id="a status it does not know of"),
        pytest.param(resource("uid", 3, phase="Pending"), Phase.PROGRESSING, id="a cache that lags behind"),
        pytest.param(resource("other", 8, phase="Pending"), Phase.PENDING, id="a namesake"),
    ],
)
async def test_the_status_that_holds(second: dict[str, Any], phase: Phase) -> None:
    one = loop(Listing(), Cache())
    memory = one._remember(PLACE, resource("uid", 7, phase="Serving"))
    memory.status = memory.status.__class__(phase=Phase.PROGRESSING)  # decided, not written yet
    assert one._remember(PLACE, second).status.phase is phase


async def test_an_older_status_that_stays_comes_from_a_backup() -> None:
    one = loop(Listing(), Cache())
    one._remember(PLACE, resource("uid", 7, phase="Serving")).since = time.monotonic() - CACHE_LAG_LIMIT_SECONDS
    assert one._remember(PLACE, resource("uid", 3, phase="Pending")).status.phase is Phase.PENDING
