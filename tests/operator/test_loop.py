"""The loop's memory: which status holds, and what the watches missed."""

import time
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest

from serin_operator.act.client import Client
from serin_operator.api.status import Condition, Drift, Forecast, Phase, Remark, Rollout, Status, Watch
from serin_operator.build.owner import Existing, Images
from serin_operator.loop import (
    CACHE_LAG_LIMIT_SECONDS,
    EVIDENCE_WRITE_SECONDS,
    QUIET_WRITE_SECONDS,
    Loop,
    worth_writing,
)
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


def on_trial(**changes: Any) -> Status:
    """A rollout at its first step."""
    return Status(rollout=Rollout(**{"started_at": 0.0, "step": 0, **changes}))


STARTING = Status(rollout=Rollout(0.0))
WATCHED = Status(watch=Watch("b" * 10, "a" * 10, 600.0))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(on_trial(), on_trial(step=1), id="a step"),
        pytest.param(on_trial(), on_trial(paused_at=1.0), id="a pause"),
        pytest.param(on_trial(), on_trial(remarks=(Remark("NewClasses", "a"),)), id="a remark"),
        pytest.param(WATCHED, Status(), id="the end of a watch"),
        pytest.param(
            Status(drift=Drift("a" * 10, 0.0, 60.0)),
            Status(drift=Drift("a" * 10, 60.0, 60.0, periods=1)),
            id="the end of a period",
        ),
        pytest.param(Status(), Status(weight=5), id="a weight"),
    ],
)
def test_news_is_written_at_once(before: Status, after: Status) -> None:
    assert worth_writing(before, after, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "patience"),
    [
        pytest.param(on_trial(), on_trial(evidence="1", exposed=7), EVIDENCE_WRITE_SECONDS, id="evidence"),
        pytest.param(on_trial(), on_trial(forecast=Forecast(1.0)), EVIDENCE_WRITE_SECONDS, id="a forecast"),
        pytest.param(
            on_trial(remarks=(Remark("NewClasses", "a"),)),
            on_trial(remarks=(Remark("NewClasses", "a, b"),)),
            EVIDENCE_WRITE_SECONDS,
            id="a remark in other words",
        ),
        pytest.param(
            replace(on_trial(), conditions=(Condition("Ready", "True", "Serving", "1", 0.0),)),
            replace(on_trial(), conditions=(Condition("Ready", "True", "Serving", "2", 0.0),)),
            EVIDENCE_WRITE_SECONDS,
            id="a sentence",
        ),
        pytest.param(
            STARTING, Status(rollout=Rollout(0.0, evidence="1")), QUIET_WRITE_SECONDS, id="before the first step"
        ),
        pytest.param(
            WATCHED,
            Status(watch=Watch("b" * 10, "a" * 10, 600.0, evidence="1")),
            QUIET_WRITE_SECONDS,
            id="in the watch",
        ),
        pytest.param(
            Status(drift=Drift("a" * 10, 0.0, 60.0, rows=5, evidence="1")),
            Status(drift=Drift("a" * 10, 0.0, 120.0, rows=9, evidence="2")),
            QUIET_WRITE_SECONDS,
            id="rows of a period",
        ),
    ],
)
def test_evidence_alone_is_written_now_and_then(before: Status, after: Status, patience: float) -> None:
    assert not worth_writing(before, after, patience - 0.1)
    assert worth_writing(before, after, patience)
    assert not worth_writing(after, after, 1e9)
