"""Applying: only what differs is sent, in order, and only what is Serin's own is taken or deleted."""

from base64 import b64decode
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import CANARY, IMAGES, OWNER, ROLLING, STABLE
from tests.operator.definition import make_spec, merged
from tests.operator.json_patch import patched

from serin_operator.act.apply import KEY_CHECK_SECONDS, Applier, nudge_routers
from serin_operator.act.client import ApiError, NotLeadingError
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Routing, Status
from serin_operator.build.manifests import manifests
from serin_operator.build.owner import Existing, Key, Manifest, Owner

SERVING = replace(ROLLING, canary=None, previous=None, retiring=(), weight=0, rollout=None)


class FakeClient:
    """An API server that keeps what it is given and counts versions; `refuse` names objects that it does not take.

    With 0 it does not answer at all.
    """

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.forced: dict[Key, bool] = {}
        self.refuse: dict[str, int] = {}
        self.annotations: dict[str, str] = {}
        self.version = 100
        self.late: int | None = None  # how many writes its operator gets through before it learns that another leads

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        metadata = manifest["metadata"]
        self._take("apply", manifest["kind"], metadata["name"])
        key = (manifest["kind"], metadata["namespace"], metadata["name"])
        self._must_be_at(key, metadata.get("resourceVersion"))
        self.forced[key] = force
        self.version += 1
        stored = {
            **manifest,
            "metadata": {**metadata, "uid": "u", "resourceVersion": str(self.version), "generation": 1},
        }
        self.objects[key] = stored
        return stored

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        metadata = manifest["metadata"]
        key = (manifest["kind"], metadata["namespace"], metadata["name"])
        self._take("create", manifest["kind"], metadata["name"])
        if key in self.objects:
            raise ApiError(409, "already exists")
        self.objects[key] = dict(manifest)
        return self.objects[key]

    async def delete(self, kind: str, namespace: str, name: str, **preconditions: str) -> None:
        self._take("delete", kind, name)
        key = (kind, namespace, name)
        if key in self.objects:
            self._must_be_at(key, preconditions.get("resourceVersion"))
            assert preconditions["uid"] == self.objects[key]["metadata"]["uid"]
        self.objects.pop(key, None)

    async def annotate(self, kind: str, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        self._take("annotate", kind, name)
        self.annotations[name] = annotations["serin.dev/route"]

    def _must_be_at(self, key: Key, version: str | None) -> None:
        held = self.objects[key]["metadata"]["resourceVersion"] if key in self.objects else "0"
        if version is not None and version != held:
            raise ApiError(409, f"the object has been modified: {version} is not {held}")

    async def read(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, namespace, name))

    def _take(self, verb: str, kind: str, name: str) -> None:
        if self.late is not None:
            self.late -= 1
            if self.late < 0:
                raise NotLeadingError(name)
        self.calls.append((verb, kind, name))
        for named in {name, f"{kind} {name}"} & self.refuse.keys():
            raise ApiError(self.refuse[named], "refused") if self.refuse[named] else TimeoutError

    def existing(self, owner: Owner = OWNER) -> list[Existing]:
        """What the watch cache holds once it has seen everything; it does not watch Secrets."""
        return [
            replace(Existing.of(stored, kind), owner=owner.uid)
            for (kind, _, _), stored in self.objects.items()
            if kind != "Secret"
        ]

    def touched(self, item: Existing) -> Existing:
        """The same object after somebody has changed it."""
        self.version += 1
        self.objects[item.key]["metadata"]["resourceVersion"] = str(self.version)
        return replace(item, version=item.version + 1, resource_version=self.version)

    def took(self) -> list[tuple[str, str, str]]:
        """The calls since the last look."""
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def applier(client: FakeClient) -> Applier:
    return Applier(client, "operator-1")  # type: ignore[arg-type]


def wanted(status: Status = SERVING, **changes: Any) -> list[Manifest]:
    return manifests(OWNER, make_spec(**changes), status, False, IMAGES)


async def test_everything_is_applied_in_order_and_then_left_alone(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    assert client.took() == [
        ("apply", "Service", f"iris-{STABLE}"),
        ("create", "Secret", OWNER.prediction_key),
        ("apply", "Deployment", f"iris-{STABLE}"),
        ("apply", "ConfigMap", "iris-router"),
        ("apply", "Deployment", "iris-router"),
        ("apply", "Service", "iris"),
        ("apply", "PodDisruptionBudget", "iris-stable"),
    ]
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == []


async def test_what_another_model_deployment_has_under_a_name_stays_its_own(
    client: FakeClient, applier: Applier
) -> None:
    """The API server would see no conflict: Serin manages the fields of both."""
    other, mine = Owner(OWNER.namespace, "iris-blue", "other"), [owned_service("iris-blue", OWNER)]
    await applier.sync(other, [owned_service("iris-blue", other)], [])
    refusals = (await applier.sync(OWNER, mine, [])).refusals.values()
    assert [str(one) for one in refusals] == ["409: Service iris-blue: the ModelDeployment iris-blue has it"]
    held = client.objects["Service", OWNER.namespace, "iris-blue"]["metadata"]
    assert [reference["uid"] for reference in held["ownerReferences"]] == ["other"]
    await client.delete("Service", OWNER.namespace, "iris-blue", uid="u")
    await applier.sync(OWNER, mine, [])
    assert client.objects["Service", OWNER.namespace, "iris-blue"]["metadata"]["ownerReferences"][0]["uid"] == OWNER.uid


async def test_what_a_deleted_model_deployment_has_left_is_taken(client: FakeClient, applier: Applier) -> None:
    """As by --cascade=orphan: its labels stay, and no owner."""
    key = ("Service", OWNER.namespace, "iris-blue")
    other = Owner(OWNER.namespace, "iris-blue", "other")
    await applier.sync(other, [owned_service("iris-blue", other)], [])
    del client.objects[key]["metadata"]["ownerReferences"]
    assert (await applier.sync(OWNER, [owned_service("iris-blue", OWNER)], [])).refusals == {}
    assert client.objects[key]["metadata"]["ownerReferences"][0]["uid"] == OWNER.uid


@pytest.mark.parametrize("labelled", [False, True], ids=["with its own labels", "with this one's labels"])
async def test_a_name_that_another_has_keeps_nothing_that_has_to_go(
    labelled: bool, client: FakeClient, applier: Applier
) -> None:
    """It may be so for ever, and what Serin never made leads none of its requests."""
    other = Owner(OWNER.namespace, "iris-blue", "other")
    await applier.sync(OWNER, wanted(ROLLING), [])
    there = client.existing()
    await applier.sync(other, [owned_service("iris-blue", other)], [])
    if labelled:
        there.append(Existing("Service", OWNER.namespace, "iris-blue", 1, other.uid))
        client.refuse["iris-blue"] = 409
    client.took()
    done = await applier.sync(OWNER, [*wanted(), owned_service("iris-blue", OWNER)], there)
    assert [refusal.code for refusal in done.refusals.values()] == [409]
    assert ("delete", "Deployment", f"iris-{CANARY}") in client.took()


def owned_service(name: str, owner: Owner) -> Manifest:
    return {"apiVersion": "v1", "kind": "Service", "metadata": owner.metadata(name, owner.labels("router"))}


async def test_only_what_differs_is_sent(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    client.took()
    await applier.sync(OWNER, wanted(traffic={"router": {"replicas": 3}}), client.existing())
    assert client.took() == [("apply", "Deployment", "iris-router"), ("apply", "PodDisruptionBudget", "iris-router")]
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == [("apply", "Deployment", "iris-router"), ("delete", "PodDisruptionBudget", "iris-router")]


async def test_the_budget_follows_the_role_with_one_call_and_the_number_of_pods(
    client: FakeClient, applier: Applier
) -> None:
    await applier.sync(OWNER, wanted(ROLLING), [])
    client.took()
    promoted = replace(ROLLING, stable=ROLLING.canary, canary=None, previous=ROLLING.stable, weight=0, rollout=None)
    await applier.sync(OWNER, wanted(promoted), client.existing())
    calls = client.took()
    budget = ("apply", "PodDisruptionBudget", "iris-stable")
    assert [call for call in calls if call[1] == "PodDisruptionBudget"] == [budget]
    assert [call for call in calls if call[0] == "apply"][-1] == budget, "no route waits for it"

    budgets = []
    for replicas in (1, 1, 3, 3):
        assert promoted.stable
        sized = replace(promoted, stable=replace(promoted.stable, replicas=replicas))
        await applier.sync(OWNER, wanted(sized), client.existing())
        budgets.append([verb for verb, kind, _ in client.took() if kind == "PodDisruptionBudget"])
    assert budgets == [["delete"], [], ["apply"], []]


async def test_servers_exist_before_a_route_names_them(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    client.took()
    await applier.sync(OWNER, wanted(ROLLING), client.existing())
    calls = [(kind, name) for verb, kind, name in client.took() if verb == "apply"]
    assert calls.index(("Deployment", f"iris-{CANARY}")) < calls.index(("ConfigMap", "iris-router"))
    assert calls.index(("Service", f"iris-{CANARY}")) < calls.index(("ConfigMap", "iris-router"))


async def test_what_is_no_longer_wanted_goes_last(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(ROLLING), [])
    client.took()
    await applier.sync(OWNER, wanted(), client.existing())
    calls = client.took()
    deleted = {(kind, name) for verb, kind, name in calls if verb == "delete"}
    assert deleted == {
        (kind, f"iris-{name}") for kind in ("Service", "Deployment") for name in (CANARY, "0" * 10, "c" * 10)
    }
    verbs = [verb for verb, _, _ in calls]
    assert verbs == ["apply"] + ["delete"] * 6  # the route first
    assert ("Secret", "shop", OWNER.prediction_key) in client.objects


async def test_what_somebody_changed_is_put_right(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    client.took()
    changed = [
        client.touched(item) if item.key == ("ConfigMap", "shop", "iris-router") else item for item in client.existing()
    ]
    assert (await applier.sync(OWNER, wanted(), changed)).mended == [("ConfigMap", "shop", "iris-router")]
    assert client.took() == [("apply", "ConfigMap", "iris-router")]


async def test_only_routes_that_others_changed_are_told(client: FakeClient, applier: Applier) -> None:
    assert (await applier.sync(OWNER, wanted(), [])).mended == []
    later = [replace(item, version=item.version + 1) for item in client.existing()]
    done = await applier.sync(OWNER, wanted(ROLLING), later)
    assert done.mended == [], "Serin's own change, and Services that others touch"


async def test_a_service_that_somebody_leads_elsewhere_is_told(client: FakeClient, applier: Applier) -> None:
    """Others write to Services all the time, such as who gives them addresses."""
    await applier.sync(OWNER, wanted(), [])
    there = [client.touched(item) if item.kind == "Service" else item for item in client.existing()]
    assert (await applier.sync(OWNER, wanted(), there)).mended == []
    there = [
        replace(client.touched(item), selector={"app": "mine"}) if item.name == "iris" else item
        for item in client.existing()
    ]
    assert (await applier.sync(OWNER, wanted(), there)).mended == [("Service", "shop", "iris")]


class LenientClient(FakeClient):
    """An API server as it is: an apply leaves alone what somebody else has put in."""

    def __init__(self) -> None:
        super().__init__()
        self.added: dict[str, dict[str, Any]] = {}  # per kind, to its spec
        self.busy = False  # somebody else is always faster
        self.stubborn = False  # a webhook puts it in again

    async def apply(self, manifest: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        stored = await super().apply(manifest, force=force)
        stored["spec"] = merged(self.added.get(manifest["kind"], {}), stored["spec"])
        return stored

    async def edit(self, kind: str, namespace: str, name: str, patch: list[dict[str, Any]]) -> dict[str, Any]:
        self._take("edit", kind, name)
        if self.busy:
            raise ApiError(422, "testing value failed")
        if not self.stubborn:
            self.added.pop(kind)
        key = (kind, namespace, name)
        self.objects[key] = patched(self.objects[key], patch)
        self.objects[key]["spec"] = merged(self.added.get(kind, {}), self.objects[key]["spec"])
        self.version += 1
        self.objects[key]["metadata"]["resourceVersion"] = str(self.version)
        return self.objects[key]


ROUTES: dict[RouterType, dict[str, Any]] = {
    RouterType.GATEWAY_API: {"gatewayAPI": {"parentRefs": [{"name": "public"}], "grpc": {}}},
    RouterType.ISTIO: {},
}


@pytest.mark.parametrize(
    ("router", "kind", "added"),
    [
        (RouterType.GATEWAY_API, "HTTPRoute", {"hostnames": ["other.example.com"]}),
        (RouterType.GATEWAY_API, "GRPCRoute", {"hostnames": ["other.example.com"]}),
        (RouterType.ISTIO, "VirtualService", {"gateways": ["istio-system/other"], "tcp": [{"route": []}]}),
        (RouterType.ISTIO, "DestinationRule", {"trafficPolicy": {"connectionPool": {"http": {"maxRetries": 1}}}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("again", [False, True], ids=["while it runs", "while it was away"])
async def test_what_somebody_added_to_a_route_is_taken_away_and_told(
    router: RouterType, kind: str, added: dict[str, Any], again: bool
) -> None:
    client = LenientClient()
    status = replace(SERVING, routing=Routing(router))
    manifests = wanted(status, traffic={"router": {"type": router.value, **ROUTES[router]}})
    applier = Applier(client, "operator-1")  # type: ignore[arg-type]
    assert (await applier.sync(OWNER, manifests, [])).mended == []
    before = deepcopy(client.objects)
    client.added[kind] = added
    there = [client.touched(item) if item.kind == kind else item for item in client.existing()]
    if again:
        applier = Applier(client, "operator-2")  # type: ignore[arg-type]
    (key,) = (await applier.sync(OWNER, manifests, there)).mended
    assert key[0] == kind
    assert client.objects[key]["spec"] == before[key]["spec"]
    client.took()
    assert (await applier.sync(OWNER, manifests, client.existing())).mended == []
    assert client.took() == []


async def test_what_a_webhook_puts_into_a_route_again_is_not_told_to_be_put_right() -> None:
    client = LenientClient()
    status = replace(SERVING, routing=Routing(RouterType.GATEWAY_API))
    manifests = wanted(status, traffic={"router": {"type": "GatewayAPI", **ROUTES[RouterType.GATEWAY_API]}})
    applier = Applier(client, "operator-1")  # type: ignore[arg-type]
    client.added["HTTPRoute"] = {"hostnames": ["other.example.com"]}
    client.stubborn = True
    await applier.sync(OWNER, manifests, [])
    there = [client.touched(item) if item.kind == "HTTPRoute" else item for item in client.existing()]
    again = Applier(client, "operator-2")  # type: ignore[arg-type]
    assert (await again.sync(OWNER, manifests, there)).mended == []


async def test_an_edit_at_the_same_moment_is_looked_at_anew() -> None:
    """Nothing is taken away from what was not seen."""
    client = LenientClient()
    status = replace(SERVING, routing=Routing(RouterType.GATEWAY_API))
    manifests = wanted(status, traffic={"router": {"type": "GatewayAPI", **ROUTES[RouterType.GATEWAY_API]}})
    applier = Applier(client, "operator-1")  # type: ignore[arg-type]
    await applier.sync(OWNER, manifests, [])
    client.added["HTTPRoute"] = {"hostnames": ["other.example.com"]}
    there = [client.touched(item) if item.kind == "HTTPRoute" else item for item in client.existing()]
    client.busy = True
    refused = await applier.sync(OWNER, manifests, there)
    assert [key[0] for key in refused.refusals] == ["HTTPRoute"]
    client.busy = False
    assert [key[0] for key in (await applier.sync(OWNER, manifests, there)).mended] == ["HTTPRoute"]
    assert "hostnames" not in client.objects["HTTPRoute", "shop", "iris"]["spec"]


async def test_what_somebody_deleted_comes_back(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    client.took()
    left = [item for item in client.existing() if item.name != "iris"]
    await applier.sync(OWNER, wanted(), left)
    assert client.took() == [("apply", "Service", "iris")]


async def test_what_somebody_deleted_and_made_anew_is_put_right(client: FakeClient, applier: Applier) -> None:
    """It begins to count its versions from the start, as with `kubectl replace --force`."""
    budget = [manifest for manifest in wanted() if manifest["kind"] == "PodDisruptionBudget"]
    await applier.sync(OWNER, budget, [])
    client.took()
    (was,) = client.existing()
    await applier.sync(OWNER, budget, [replace(client.touched(was), version=was.version, uid="another")])
    assert client.took() == [("apply", "PodDisruptionBudget", "iris-stable")]


async def test_what_serin_itself_made_anew_is_not_taken_for_another_s(client: FakeClient, applier: Applier) -> None:
    """The watch cache may still hold the one before, which had counted further."""
    budget = [manifest for manifest in wanted() if manifest["kind"] == "PodDisruptionBudget"]
    await applier.sync(OWNER, budget, [])
    client.took()
    before = [replace(item, version=9, uid="before", resource_version=1) for item in client.existing()]
    await applier.sync(OWNER, budget, before)
    assert client.took() == []


async def test_a_cache_that_lags_is_no_reason_to_apply_again(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    before = client.existing()
    await applier.sync(OWNER, wanted(replace(SERVING, stable=SERVING.stable), traffic={"timeout": "7s"}), before)
    client.took()
    await applier.sync(OWNER, wanted(traffic={"timeout": "7s"}), before)
    assert client.took() == []


async def test_what_belongs_to_somebody_else_is_neither_taken_nor_deleted(client: FakeClient, applier: Applier) -> None:
    foreign = Existing("Service", "shop", "iris", 5, owner=None)
    other = Existing("ConfigMap", "shop", "notes", 5, owner="somebody")
    await applier.sync(OWNER, wanted(), [foreign, other])
    assert client.forced["Service", "shop", "iris"] is False
    assert "delete" not in [verb for verb, _, _ in client.took()]
    await applier.sync(OWNER, wanted(traffic={"router": {"replicas": 2}}), client.existing())
    assert client.forced["Deployment", "shop", "iris-router"] is True


async def test_a_restarted_operator_takes_over_what_is_its_own(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    restarted = Applier(client, "operator-2")  # type: ignore[arg-type]
    await restarted.sync(OWNER, wanted(), client.existing())
    assert all(client.forced.values())


async def test_whoever_takes_over_changes_every_object_first(client: FakeClient, applier: Applier) -> None:
    """So that nothing which its predecessor has prepared can still be written."""
    await applier.sync(OWNER, wanted(ROLLING), [])
    known = client.existing()
    await Applier(client, "operator-2").sync(OWNER, wanted(ROLLING), known)  # type: ignore[arg-type]
    marks = {
        key: stored["metadata"]["annotations"]["serin.dev/operator"]
        for key, stored in client.objects.items()
        if key[0] != "Secret"
    }
    assert len(marks) == len(known)
    assert set(marks.values()) == {"operator-2"}
    client.took()
    for late in (replace(ROLLING, weight=50), SERVING):
        client.late = 1  # on its way while the successor took over
        with pytest.raises(NotLeadingError):
            await applier.sync(OWNER, wanted(late), known)
    assert all(
        stored["metadata"]["annotations"]["serin.dev/operator"] == "operator-2"
        for key, stored in client.objects.items()
        if key[0] != "Secret"
    )


async def test_a_late_delete_does_not_take_what_a_successor_wants(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(ROLLING), [])
    known = [replace(item, uid="u") for item in client.existing()]
    late = Applier(client, "operator-1")  # type: ignore[arg-type]
    await Applier(client, "operator-2").sync(OWNER, wanted(ROLLING), known)  # type: ignore[arg-type]
    for item in known:
        assert (await late.sync(OWNER, [], [item])).refusals[item.key].code == 409
        assert item.key in client.objects


async def test_a_resolver_pod_whose_status_has_changed_is_deleted(client: FakeClient, applier: Applier) -> None:
    """The watch cache knows a pod's uid, and not its version, which rises with its status."""
    with_resolver = manifests(OWNER, make_spec(), SERVING, True, IMAGES)
    (manifest,) = [one for one in with_resolver if one["kind"] == "Pod"]
    await applier.sync(OWNER, with_resolver, [])
    key = ("Pod", OWNER.namespace, manifest["metadata"]["name"])
    client.objects[key]["metadata"]["resourceVersion"] = "99999"
    await applier.sync(OWNER, wanted(), [Existing(*key, 0, OWNER.uid, "u")])
    assert key not in client.objects


async def test_a_cache_that_lags_keeps_no_write_back(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    before = client.existing()
    for item in before:
        client.touched(item)
    successor = Applier(client, "operator-2")  # type: ignore[arg-type]
    await successor.sync(OWNER, wanted(ROLLING), before)
    marks = {stored["metadata"].get("annotations", {}).get("serin.dev/operator") for stored in client.objects.values()}
    assert marks <= {"operator-2", None}


async def test_fields_that_another_manager_has_are_a_conflict_and_no_lag(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    foreign = replace(client.existing()[-1], owner=None)
    client.refuse[foreign.name] = 409
    client.took()
    done = await Applier(client, "operator-2").sync(OWNER, wanted(), [foreign])  # type: ignore[arg-type]
    assert [refusal.code for refusal in done.refusals.values()] == [409]
    assert [call for call in client.took() if call[2] == foreign.name] == [("apply", foreign.kind, foreign.name)]


async def test_what_has_no_version_in_the_cache_is_deleted_whatever_others_did_to_it(
    client: FakeClient, applier: Applier
) -> None:
    """A resolver's pod, of which the kubelet writes the status."""
    resolver = {"kind": "Pod", "metadata": OWNER.metadata("iris-resolve", {}), "spec": {}}
    await applier.sync(OWNER, [resolver], [])
    [pod] = client.existing()
    client.touched(pod)
    await applier.sync(OWNER, [], [Existing("Pod", "shop", "iris-resolve", 0, OWNER.uid, "u")])
    assert pod.key not in client.objects


async def test_the_mark_is_not_among_what_is_compared(client: FakeClient, applier: Applier) -> None:
    manifest = next(one for one in wanted() if one["kind"] == "ConfigMap")
    await applier.sync(OWNER, [manifest], [])
    assert "serin.dev/operator" not in manifest["metadata"].get("annotations", {})
    assert "resourceVersion" not in manifest["metadata"]


async def test_what_is_applied_twice_in_a_row_needs_no_event_in_between(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    before = client.existing()
    for replicas in (2, 3, 4):
        await applier.sync(OWNER, wanted(traffic={"router": {"replicas": replicas}}), before)
    assert client.objects["Deployment", "shop", "iris-router"]["spec"]["replicas"] == 4


async def test_nothing_is_remembered_while_another_acts(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    applier.forget_all()
    client.took()
    await applier.sync(OWNER, wanted(), client.existing())
    assert len([verb for verb, _, _ in client.took() if verb == "apply"]) == len(wanted())


@pytest.mark.parametrize(
    ("code", "said"), [(403, "403: Deployment {}: refused"), (0, "504: Deployment {}: no answer in time")]
)
async def test_a_refusal_keeps_nothing_else_back(code: int, said: str, client: FakeClient, applier: Applier) -> None:
    """Least of all what has to go: it may take up the room that a quota leaves."""
    await applier.sync(OWNER, wanted(ROLLING), [])
    client.took()
    client.refuse[f"Deployment iris-{STABLE}"] = code
    changed = wanted(traffic={"timeout": "5m"})
    done = await applier.sync(OWNER, changed, client.existing())
    assert [str(refusal) for refusal in done.refusals.values()] == [said.format(f"iris-{STABLE}")]
    calls = client.took()
    assert ("apply", "ConfigMap", "iris-router") in calls
    assert ("delete", "Deployment", f"iris-{CANARY}") in calls


@pytest.mark.parametrize("seen", [True, False], ids=["in the cache", "not in the cache"])
@pytest.mark.parametrize("name", ["iris-router", "iris"], ids=["a route", "a Service"])
async def test_nothing_is_deleted_to_which_requests_may_still_be_led(
    name: str, seen: bool, client: FakeClient, applier: Applier
) -> None:
    await applier.sync(OWNER, wanted(ROLLING), [])
    client.took()
    client.refuse[name] = 422
    there = [client.touched(item) for item in client.existing() if seen or item.name != name]
    changed = wanted(traffic={"timeout": "5m"})
    assert name in str((await applier.sync(OWNER, changed, there)).refusals)
    calls = client.took()
    assert ("apply", "Deployment", f"iris-{STABLE}") in calls
    assert "delete" not in [verb for verb, _, _ in calls]
    client.refuse.clear()
    assert (await applier.sync(OWNER, changed, client.existing())).refusals == {}
    assert ("delete", "Deployment", f"iris-{CANARY}") in client.took()


async def test_what_can_not_be_deleted_keeps_nothing_else_there(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(ROLLING), [])
    client.took()
    client.refuse[f"iris-{CANARY}"] = 403
    done = await applier.sync(OWNER, wanted(), client.existing())
    assert {str(refusal) for refusal in done.refusals.values()} == {
        f"403: {kind} iris-{CANARY}: refused" for kind in ("Service", "Deployment")
    }
    left = {name for kind, _, name in client.objects if kind == "Deployment"}
    assert left == {f"iris-{STABLE}", f"iris-{CANARY}", "iris-router"}


AUTOSCALED = {"autoscaling": {"minReplicas": 1, "maxReplicas": 3, "requestsInFlight": {"averageValue": 4}}}


async def test_an_autoscaler_is_left_alone_while_it_only_measures(client: FakeClient, applier: Applier) -> None:
    """Its status changes every few seconds, and with it its resourceVersion."""
    await applier.sync(OWNER, wanted(server=AUTOSCALED), [])
    assert ("apply", "HorizontalPodAutoscaler", "iris") in client.took()
    stored = client.objects["HorizontalPodAutoscaler", "shop", "iris"]
    stored["status"] = {"currentReplicas": 2}
    stored["metadata"]["resourceVersion"] = "99999"
    await applier.sync(OWNER, wanted(server=AUTOSCALED), client.existing())
    assert client.took() == []


async def test_an_autoscaler_that_somebody_changed_is_applied_again(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(server=AUTOSCALED), [])
    client.took()
    key = ("HorizontalPodAutoscaler", "shop", "iris")
    client.objects[key] = {**client.objects[key], "spec": {**client.objects[key]["spec"], "maxReplicas": 50}}
    await applier.sync(OWNER, wanted(server=AUTOSCALED), client.existing())
    assert client.took() == [("apply", "HorizontalPodAutoscaler", "iris")]


async def test_an_autoscaler_goes_with_its_field(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(server=AUTOSCALED), [])
    client.took()
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == [("delete", "HorizontalPodAutoscaler", "iris")]


async def test_the_prediction_key_is_made_once_and_never_changed(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    key = ("Secret", "shop", OWNER.prediction_key)
    first = client.objects[key]["data"]["key"]
    assert len(b64decode(first)) == 32
    await applier.sync(OWNER, wanted(ROLLING), client.existing())
    assert client.objects[key]["data"]["key"] == first


async def test_a_key_that_was_deleted_is_made_again_when_it_is_next_looked_for(
    client: FakeClient, applier: Applier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("serin_operator.act.apply.time.monotonic", lambda: now)
    await applier.sync(OWNER, wanted(), [])
    del client.objects["Secret", "shop", OWNER.prediction_key]
    client.took()
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == []
    now += KEY_CHECK_SECONDS
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == [("create", "Secret", OWNER.prediction_key)]
    assert ("Secret", "shop", OWNER.prediction_key) in client.objects
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == []


async def test_a_key_is_there_before_new_pods_need_it(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    client.took()
    await applier.sync(OWNER, wanted(ROLLING), client.existing())
    calls = client.took()
    create, apply = ("create", "Secret", OWNER.prediction_key), ("apply", "Deployment", f"iris-{CANARY}")
    assert calls.index(create) < calls.index(apply)


async def test_a_key_that_can_not_be_made_is_told(client: FakeClient, applier: Applier) -> None:
    client.refuse[OWNER.prediction_key] = 403
    [refusal] = (await applier.sync(OWNER, wanted(), [])).refusals.values()
    assert refusal.code == 403
    assert ("apply", "Deployment", f"iris-{STABLE}") not in client.took()


async def test_what_is_forgotten_is_applied_again(client: FakeClient, applier: Applier) -> None:
    await applier.sync(OWNER, wanted(), [])
    client.took()
    applier.forget("shop", "other")
    applier.forget("elsewhere", "iris")
    await applier.sync(OWNER, wanted(), client.existing())
    assert client.took() == []
    applier.forget("shop", "iris")
    await applier.sync(OWNER, wanted(), client.existing())
    assert len(client.took()) == len(wanted()) + 1


@pytest.mark.parametrize(
    ("mark", "again", "expected"),
    [
        (None, None, "v2"),
        ("v1", None, "v2"),
        ("v1.7", None, "v2"),
        ("v2", None, None),
        ("v2.7", None, None),
        ("v2", 8, "v2.8"),
        ("v2.7", 8, "v2.8"),
        ("v2.8", 8, None),
    ],
)
async def test_routers_are_marked_with_their_files(
    mark: str | None, again: int | None, expected: str | None, client: FakeClient
) -> None:
    await nudge_routers(client, "shop", [("router-0", mark)], "v2", again)  # type: ignore[arg-type]
    assert client.annotations.get("router-0") == expected


async def test_a_router_that_has_just_gone_is_no_error(client: FakeClient) -> None:
    client.refuse["router-0"] = 404
    await nudge_routers(client, "shop", [("router-0", None), ("router-1", None)], "v2", None)  # type: ignore[arg-type]
    assert client.annotations == {"router-1": "v2"}
    client.refuse["router-0"] = 500
    with pytest.raises(ApiError):
        await nudge_routers(client, "shop", [("router-0", None)], "v2", None)  # type: ignore[arg-type]
