"""The loop's memory: which status holds, and what the watches missed. And when it acts at all."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import aiohttp
import pytest
from tests.operator.definition import raw_spec

from serin_operator.act.client import ApiError, Client, NotLeadingError
from serin_operator.api.spec import parse_spec
from serin_operator.api.status import Condition, Drift, Forecast, Phase, Remark, Revision, Rollout, Status, Watch
from serin_operator.build.owner import Existing, Images
from serin_operator.decide.observed import Route, Trouble, Workload
from serin_operator.loop import CACHE_LAG_LIMIT_SECONDS, CACHE_LAG_SECONDS, Loop
from serin_operator.memory import EVIDENCE_WRITE_SECONDS, QUIET_WRITE_SECONDS, Memory, worth_writing
from serin_operator.observe.cache import Cache
from serin_operator.settings import Candidacy, Settings

PLACE = ("team", "iris")
REVISION = "a" * 10
SETTINGS = Settings(Images("server", "router", "Never"), (), None, "INFO", Candidacy("serin-system", "serin", "pod"))


class Listing:
    """An API server that only lists and reads: it holds these uids whatever the kind, and perhaps one resource."""

    def __init__(self, *uids: str, held: dict[str, Any] | None = None) -> None:
        self._uids = set(uids)
        self.held = held
        self.asked: list[tuple[str, str | None, str]] = []
        self.reads = 0

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        if kind != "ModelDeployment":
            return None
        assert (namespace, name) == PLACE
        self.reads += 1
        return self.held

    async def uids(self, kind: str, namespace: str | None, selector: str) -> set[str]:
        self.asked.append((kind, namespace, selector))
        return self._uids


def resource(uid: str, version: int, **status: Any) -> dict[str, Any]:
    metadata = {"namespace": PLACE[0], "name": PLACE[1], "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "status": status}


def loop(client: Any, cache: Cache) -> Loop:
    return Loop(SETTINGS, cast(Client, client), cast(aiohttp.ClientSession, None), cache, "operator-1")


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


async def test_a_pass_sees_why_a_revision_gets_no_pods() -> None:
    """As a quota refuses them: there is no pod to tell it, only the Deployment does."""
    failing = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    metadata = {"namespace": PLACE[0], "name": f"{PLACE[1]}-{REVISION}", "uid": "d", "resourceVersion": "1"}
    deployment = {"metadata": metadata, "spec": {}, "status": {"conditions": [failing]}}
    cache = Cache(objects={"Deployment": {PLACE: [Existing.of(deployment, "Deployment")]}})
    stable = Revision(REVISION, "v1", "https://models/v1", "joblib", REVISION * 6, "server:1")
    status = Status(phase=Phase.SERVING, stable=stable)
    memory = Memory("uid", status, {}, 1, 0.0, served=Route(REVISION))
    metadata = resource("uid", 1)["metadata"] | {"generation": 1}
    observed, _ = await loop(Listing(), cache)._observe(PLACE, metadata, parse_spec(raw_spec()), memory, [])
    assert observed.workloads == {REVISION: Workload(0, Trouble("FailedCreate", "exceeded quota"))}

    failing["status"] = "False"
    cache.objects = {"Deployment": {PLACE: [Existing.of(deployment, "Deployment")]}}
    observed, _ = await loop(Listing(), cache)._observe(PLACE, metadata, parse_spec(raw_spec()), memory, [])
    assert observed.workloads == {REVISION: Workload()}


@pytest.mark.parametrize(
    ("trouble", "traceback"), [(ApiError(500, "etcd"), False), (TimeoutError(), False), (LookupError("a bug"), True)]
)
async def test_no_trouble_ends_the_search_for_ghosts(
    trouble: Exception, traceback: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serin_operator.loop.RESYNC_SECONDS", 0.01)
    gone = Existing("Service", *PLACE, 1, "owner", "gone")
    cache = Cache(objects={"Service": {PLACE: [gone]}})
    client = Listing()
    answers, troubles = client.uids, iter([trouble] * 4)

    async def uids(kind: str, namespace: str | None, selector: str) -> set[str]:
        if (error := next(troubles, None)) is not None:
            raise error
        return await answers(kind, namespace, selector)

    monkeypatch.setattr(client, "uids", uids)
    search = asyncio.create_task(loop(client, cache).exorcise())
    await until(lambda: search.done() or cache.ghosts == {"gone"})
    search.cancel()
    assert cache.ghosts == {"gone"}
    assert ("Traceback" in caplog.text) is traceback
    assert "listing Pod failed" in caplog.text


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
    client = Listing(held=resource("uid", 7, phase="Serving"))
    one = loop(client, Cache())
    memory = await remembered(one, client.held)
    memory.status = memory.status.__class__(phase=Phase.PROGRESSING)  # decided, not written yet
    client.held = second
    assert (await remembered(one, second)).status.phase is phase
    assert client.reads == (2 if second["metadata"]["uid"] == "other" else 1)


async def remembered(one: Loop, seen: Mapping[str, Any] | None) -> Memory:
    assert seen is not None
    memory = await one._remember(PLACE, seen)
    assert memory is not None
    return memory


async def test_what_the_api_server_holds_counts_at_first_and_not_what_the_cache_still_shows() -> None:
    """Whoever takes over may have missed what its predecessor wrote last."""
    one = loop(Listing(held=resource("uid", 9, phase="RolledBack")), Cache())
    memory = await remembered(one, resource("uid", 7, phase="Progressing"))
    assert (memory.status.phase, memory.resource_version) == (Phase.ROLLED_BACK, 9)


@pytest.mark.parametrize("held", [None, resource("other", 9)], ids=["gone", "a namesake"])
async def test_what_is_gone_is_waited_for(held: dict[str, Any] | None) -> None:
    client = Listing(held=held)
    one = loop(client, Cache(resources={PLACE: [resource("uid", 7)]}))
    assert await one._remember(PLACE, resource("uid", 7)) is None
    assert await one._pass(PLACE) == CACHE_LAG_SECONDS


async def test_an_older_status_that_the_api_server_holds_comes_from_a_backup() -> None:
    client = Listing(held=resource("uid", 7, phase="Serving"))
    one = loop(client, Cache())
    (await remembered(one, client.held)).since = time.monotonic() - CACHE_LAG_LIMIT_SECONDS
    client.held = resource("uid", 3, phase="Pending")
    assert (await remembered(one, client.held)).status.phase is Phase.PENDING


async def test_a_watch_that_hangs_does_not_bring_an_old_status_back() -> None:
    client = Listing(held=resource("uid", 7, phase="RolledBack"))
    one = loop(client, Cache())
    (await remembered(one, client.held)).since = time.monotonic() - CACHE_LAG_LIMIT_SECONDS
    memory = await remembered(one, resource("uid", 3, phase="Progressing"))
    assert (memory.status.phase, memory.resource_version) == (Phase.ROLLED_BACK, 7)


class Writes(Listing):
    """An API server that holds one ModelDeployment, and notes what is written in which order."""

    def __init__(self, held: dict[str, Any]) -> None:
        super().__init__(held=held)
        self.later = False  # whether somebody has written it since
        self.writes: list[str] = []
        self.statuses: list[dict[str, Any]] = []

    async def replace_status(self, resource: Mapping[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        if self.later:
            raise ApiError(409, "it is at another version")
        self.writes.append("status")
        self.statuses.append(status)
        metadata = {**resource["metadata"], "resourceVersion": str(int(resource["metadata"]["resourceVersion"]) + 1)}
        return {**resource, "metadata": metadata, "status": status}

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        self.writes.append(manifest["kind"])
        more = {"uid": "u", "resourceVersion": "50", "generation": 1}
        return {**manifest, "metadata": {**manifest["metadata"], **more}}

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        self.writes.append(manifest["kind"])
        return dict(manifest)


def new_resource(version: int = 7, **status: Any) -> dict[str, Any]:
    """As a user made it."""
    kind = {"apiVersion": "serin.dev/v1alpha1", "kind": "ModelDeployment"}
    found = {**kind, **resource("uid", version, **status), "spec": raw_spec()}
    found["metadata"]["generation"] = 1
    return found


async def test_who_stands_by_runs_no_pass_and_who_leads_begins_with_all_that_it_was_told_of() -> None:
    client = Writes(new_resource())
    one = loop(client, Cache(resources={PLACE: [client.held]}))
    one.wake(PLACE)
    await asyncio.sleep(0.05)
    assert client.writes == []
    one.lead()
    await until(lambda: client.writes)
    await one.rest()
    assert one.stuck() == []
    done = list(client.writes)
    one.wake(PLACE)
    await asyncio.sleep(0.05)
    assert client.writes == done
    one.lead()
    await until(lambda: len(client.writes) > len(done))
    await one.rest()


async def test_who_takes_over_leaves_its_mark_before_it_does_anything_even_when_nothing_is_to_be_done() -> None:
    client = Writes(new_resource())
    one = loop(client, Cache(resources={PLACE: [client.held]}))
    one.lead()
    one.wake(PLACE)
    await until(lambda: client.writes)
    await one.rest()
    assert client.writes[0] == "status"
    assert client.statuses[0]["operator"] == "operator-1"

    settled = {**client.statuses[0], "operator": "operator-0"}
    successor = Writes(new_resource(8, **settled))
    two = loop(successor, Cache(resources={PLACE: [successor.held]}))
    two.lead()
    two.wake(PLACE)
    await until(lambda: successor.writes)
    await two.rest()
    assert successor.writes[0] == "status"
    assert successor.statuses[0] == client.statuses[0]


async def test_who_takes_over_acts_though_its_watch_hangs() -> None:
    """It acts on what the API server holds, and again a while after each write of its own."""
    client = Writes(new_resource(9))
    one = loop(client, Cache(resources={PLACE: [new_resource(7)]}))
    await one._pass(PLACE)
    assert client.writes[0] == "status"
    memory = one._memories[PLACE]
    assert memory.resource_version == 10
    assert await one._pass(PLACE) == CACHE_LAG_SECONDS
    held = new_resource(11, **memory.stored)
    held["spec"], held["metadata"]["generation"] = raw_spec(model={"sha256": "2" * 64, "version": "v2"}), 2
    client.held, memory.since = held, time.monotonic() - CACHE_LAG_LIMIT_SECONDS
    memory.carried = {"pod": "place"}
    await one._pass(PLACE)
    assert client.statuses[-1]["observedGeneration"] == 2
    assert one._memories[PLACE] is memory, "what it knows beyond the status is not lost"


async def test_what_somebody_wrote_is_asked_for_when_its_event_does_not_come() -> None:
    """A write of the status that is refused for its version tells that there is a later one."""
    client = Writes(new_resource(7))
    one = loop(client, Cache(resources={PLACE: [new_resource(7)]}))
    client.later = True
    with pytest.raises(ApiError, match="409"):
        await one._pass(PLACE)
    assert await one._pass(PLACE) == CACHE_LAG_SECONDS
    client.held, client.later = new_resource(8), False
    one._memories[PLACE].since = time.monotonic() - CACHE_LAG_LIMIT_SECONDS
    await one._pass(PLACE)
    assert "status" in client.writes


async def test_a_pass_under_way_may_end_when_the_operator_does(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Writes(new_resource())
    slow = asyncio.Event()

    async def read(*_: str) -> dict[str, Any] | None:
        await slow.wait()
        return client.held

    monkeypatch.setattr(client, "read", read)
    one = loop(client, Cache(resources={PLACE: [client.held]}))
    one.lead()
    one.wake(PLACE)
    await asyncio.sleep(0.05)
    resting = asyncio.create_task(one.rest(5.0))
    await asyncio.sleep(0.05)
    slow.set()
    await asyncio.wait_for(resting, 2.0)
    assert "status" in client.writes


async def test_a_pass_under_way_is_cut_off_when_another_operator_may_act(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Writes(new_resource())

    async def read(*_: str) -> dict[str, Any] | None:
        await asyncio.sleep(3600)
        return None

    monkeypatch.setattr(client, "read", read)
    one = loop(client, Cache(resources={PLACE: [client.held]}))
    one.lead()
    one.wake(PLACE)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(one.rest(), 1.0)
    assert client.writes == []


async def test_a_write_that_may_no_longer_be_sent_is_no_failure_to_tell_people_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Writes(new_resource())

    async def refuse(*_: Any) -> dict[str, Any]:
        raise NotLeadingError("PUT")

    monkeypatch.setattr(client, "replace_status", refuse)
    one = loop(client, Cache(resources={PLACE: [client.held]}))
    one.lead()
    one.wake(PLACE)
    await until(lambda: "another operator may act" in caplog.text)
    assert client.writes == []
    await one.rest()


async def until(holds: Callable[[], Any]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")


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
