"""What a pass does when the API server shows or takes only a part of it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import STABLE, revision
from tests.operator.build.test_routes import built
from tests.operator.definition import raw_spec
from tests.operator.observe.test_routes import Following, Source
from tests.operator.test_loop import PLACE, Writes, loop, new_resource, until

from serin_operator.act.client import ApiError
from serin_operator.act.refusals import RefusedError
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Phase, Routing, Status, dump_status
from serin_operator.build.owner import Existing
from serin_operator.loop import RESYNC_SECONDS
from serin_operator.observe import routes as module
from serin_operator.observe.cache import Cache
from serin_operator.observe.pods import read_pod
from serin_operator.observe.routes import State

GATEWAY = {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}}
BEHIND_GATEWAYS = Status(phase=Phase.SERVING, stable=revision(STABLE), routing=Routing(RouterType.GATEWAY_API))


class Deletes(Writes):
    """Notes what is deleted, too: by the uid that it was seen with, as its name may be another's by now."""

    def __init__(self, held: dict[str, Any]) -> None:
        super().__init__(held)
        self.deleted: list[str] = []

    async def delete(self, kind: str, *_: str, uid: str, **__: str) -> None:
        self.writes.append(f"delete {kind}")
        self.deleted.append(uid)


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


class Refusing(Deletes):
    """Takes all objects but those of some kinds, and keeps the Events. `silent`: it does not answer instead."""

    silent = False
    code = 403
    words = "exceeded quota"
    refusals = 0

    def __init__(self, held: dict[str, Any], *kinds: str) -> None:
        super().__init__(held)
        self.kinds = kinds
        self.events: list[dict[str, Any]] = []

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        self._admit(manifest["kind"])
        return await super().apply(manifest, force=force)

    async def annotate(self, kind: str, *_: Any) -> None:
        self._admit(kind)
        self.writes.append(f"annotate {kind}")

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if manifest["kind"] == "Event":
            self.events.append(dict(manifest))
        return await super().create(manifest)

    def _admit(self, kind: str) -> None:
        if kind in self.kinds:
            self.refusals += 1
            raise TimeoutError if self.silent else ApiError(self.code, self.words.format(self.refusals))


SERVING = Status(phase=Phase.SERVING, stable=revision(STABLE))
ROUTER = read_pod({"metadata": {"name": "iris-router-0", "labels": {"serin.dev/component": "router"}}})
UNWANTED = Existing("Deployment", PLACE[0], "iris-old", 3, "uid", "old", 40)


@pytest.mark.parametrize(
    ("silent", "said"), [(False, "^403: .+: exceeded quota"), (True, "^504: .+: no answer in time")]
)
@pytest.mark.parametrize(
    "kind", ["Deployment", "PodDisruptionBudget", "Pod"], ids=["an object", "the budget", "the mark of a router"]
)
async def test_what_is_refused_puts_off_nothing_else(kind: str, silent: bool, said: str) -> None:
    client = Refusing({**new_resource(**dump_status(SERVING)), "spec": raw_spec(server={"replicas": 2})}, kind)
    client.silent = silent
    failed = read_pod({"metadata": {"name": "iris-resolve", "uid": "failed"}, "status": {"phase": "Failed"}})
    failed = replace(failed, component="resolver")
    objects = {"Deployment": {PLACE: [UNWANTED]}}
    one = loop(client, Cache({PLACE: [client.held]}, {PLACE: [ROUTER, failed]}, objects))
    with pytest.raises(RefusedError, match=said) as caught:
        await one._pass(PLACE)
    assert 0 < caught.value.wait <= RESYNC_SECONDS
    assert {"status", "ConfigMap", "Service", "delete Deployment", "delete Pod"} <= set(client.writes)
    assert client.deleted == ["old", "failed"]
    assert ("annotate Pod" in client.writes) is (kind != "Pod")
    assert [event["reason"] for event in client.events] == ["Started"]


class Patient:
    """A loop and what its watch cache holds: what was written is there at the next pass."""

    def __init__(self, client: Refusing) -> None:
        self.client = client
        self.cache = Cache({PLACE: [client.held]})
        self._loop = loop(client, self.cache)

    async def told(self) -> tuple[str, str, bool]:
        """Makes a pass. The first condition's reason and message after it, and whether the next pass comes at once."""
        try:
            wait = await self._loop._pass(PLACE)
        except RefusedError:
            wait = RESYNC_SECONDS
        held = self.client.held
        assert held is not None
        version = str(self._loop._memories[PLACE].resource_version)
        status = self.client.statuses[-1]
        self.client.held = {**held, "metadata": {**held["metadata"], "resourceVersion": version}, "status": status}
        self.cache.resources = {PLACE: [self.client.held]}
        condition = status["conditions"][0]
        return condition["reason"], condition["message"], wait < 1


async def test_what_is_refused_is_told_by_the_next_pass_and_no_longer_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serin_operator.loop.EVIDENCE_WRITE_SECONDS", 0.0)
    client = Refusing(new_resource(), "PodDisruptionBudget", "Deployment")
    one = Patient(client)
    _, plain, _ = await one.told()
    assert plain.startswith("Waiting for a ready pod of ")
    _, refused, _ = await one.told()
    assert refused.startswith(f"{plain} The API server says 403: Deployment iris-")
    assert refused.endswith(": exceeded quota.")
    client.kinds = ()
    assert await one.told() == ("StartingServer", refused, True)
    assert (await one.told())[1] == plain


async def test_a_refusal_whose_words_always_change_makes_no_storm_of_writes() -> None:
    """As of a webhook that tells the request's id."""
    client = Refusing(new_resource(), "Deployment")
    client.words = "denied, see request {}"
    one = Patient(client)
    told = [await one.told() for _ in range(20)]
    assert len({message for _, message, _ in told}) == 2
    assert len(client.statuses) <= 3


@pytest.mark.parametrize(
    ("code", "told"),
    [
        pytest.param(403, True, id="a quota"),
        pytest.param(409, True, id="another has the name"),
        pytest.param(429, False, id="it is busy"),
        pytest.param(500, False, id="a webhook does not answer"),
    ],
)
async def test_only_what_somebody_has_to_see_to_is_told_of(code: int, told: bool) -> None:
    client = Refusing(new_resource(), "Deployment")
    client.code = code
    one = Patient(client)
    plain = (await one.told())[1]
    assert ((await one.told())[1] != plain) is told


async def test_why_a_deployment_can_make_no_pods_is_told() -> None:
    one = Patient(Refusing(new_resource()))
    await one.told()
    revision = one.client.statuses[-1]["stable"]
    name = f"iris-{revision['revision']}"
    unmade = Existing("Deployment", PLACE[0], name, 1, "uid", "d", 50, unmade="exceeded quota")
    one.cache.objects = {"Deployment": {PLACE: [unmade]}}
    reason, message, _ = await one.told()
    assert (reason, message) == ("FailedCreate", f"{revision['version']} does not start: exceeded quota")


@pytest.mark.parametrize(
    ("replicas", "there", "written"),
    [
        pytest.param(2, False, ["PodDisruptionBudget"], id="two pods"),
        pytest.param(1, False, [], id="one pod"),
        pytest.param(1, True, ["delete PodDisruptionBudget"], id="one pod of two"),
    ],
)
async def test_evictions_are_bounded_while_stable_has_several_pods(
    replicas: int, there: bool, written: list[str]
) -> None:
    spec = raw_spec(server={"replicas": replicas})
    client = Deletes({**new_resource(**dump_status(SERVING)), "spec": spec})
    budget = Existing("PodDisruptionBudget", PLACE[0], f"{PLACE[1]}-stable", 1, "uid", "budget", 41)
    objects = {"PodDisruptionBudget": {PLACE: [budget] if there else []}}
    await loop(client, Cache({PLACE: [client.held]}, objects=objects))._pass(PLACE)
    assert [write for write in client.writes if "PodDisruptionBudget" in write] == written


@pytest.mark.parametrize("step", ["_weigh", "_nudge", "_replace_failed_resolvers"])
async def test_what_the_status_says_is_told_whatever_fails_after_it(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next pass finds it written, and would not tell."""
    client = Refusing(new_resource(**dump_status(SERVING)))
    one = loop(client, Cache({PLACE: [client.held]}))

    async def fail(*_: Any) -> None:
        raise ConnectionError("cut")

    monkeypatch.setattr(one, step, fail)
    with pytest.raises(ConnectionError):
        await one._pass(PLACE)
    assert [event["reason"] for event in client.events] == ["Started"]


async def test_the_next_look_does_not_wait_for_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serin_operator.loop._REFUSED_RETRY", 0.01)
    client = Refusing(new_resource())
    one = loop(client, Cache({PLACE: [client.held]}))
    passes = 0

    async def refused(_: Any) -> float:
        nonlocal passes
        passes += 1
        raise RefusedError(ApiError(403, "Deployment iris-a: exceeded quota"), 0.01)

    monkeypatch.setattr(one, "_pass", refused)
    one.lead()
    one.wake(PLACE)
    await until(lambda: passes > 10)  # half a second, one, two, four and so on would take minutes
    await one.rest()
    [event] = client.events
    assert event["reason"] == "PassesFail"
    assert (
        event["note"]
        == "All else goes on until this is mended: the API server says 403: Deployment iris-a: exceeded quota"
    )
