"""What is seen of Gateways, meshes and Services over pods: only what all of them have accepted counts as served."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import CANARY, OWNER, ROLLING, STABLE
from tests.operator.build.test_own_route import BOTH as OWN_BOTH
from tests.operator.build.test_own_route import route as own_route
from tests.operator.build.test_routes import SERVING, SHADOW, built
from tests.operator.observe.holes import Path, holes

from serin_operator.api.spec import RouterType
from serin_operator.api.status import Routing
from serin_operator.decide.observed import Route, Router
from serin_operator.observe.gateways import of_gateway, of_mesh, of_own_route
from serin_operator.observe.ratio import of_pods
from serin_operator.observe.routes import KINDS, Raw, Routes, State

PLACE = (OWNER.namespace, OWNER.name)
READY = {STABLE: 2, CANARY: 1}
ROUTE = Route(STABLE, CANARY, 25)
BOTH = [{"name": "public"}, {"name": "private", "namespace": "gateways"}]


class Cached(Routes):
    """Routes that were read already."""

    def __init__(self, *raws: Any, state: State = State.KNOWN) -> None:
        super().__init__(tuple(KINDS), ())
        self._raws = {raw["kind"]: raw for raw in raws}
        self._state = state

    def state(self, kind: str, namespace: str) -> State:
        return self._state

    def get(self, kind: str, place: tuple[str, str]) -> Raw | None:
        names = {"GRPCRoute": f"{PLACE[1]}-grpc"}
        return self._raws.get(kind) if place == (PLACE[0], names.get(kind, PLACE[1])) else None


def condition(kind: str, status: str = "True", generation: int = 3, reason: str = "Fine") -> dict[str, Any]:
    return {"type": kind, "status": status, "observedGeneration": generation, "reason": reason, "message": "because"}


ACCEPTED = [condition("Accepted"), condition("ResolvedRefs")]


def http_route(*answers: tuple[dict[str, Any], list[dict[str, Any]]], parents: Any = None) -> dict[str, Any]:
    """The route at weight 25 in its third generation, with what each parent's controller says."""
    raw = deepcopy(built(RouterType.GATEWAY_API, gatewayAPI={"parentRefs": parents or BOTH})["HTTPRoute", "iris"])
    raw["metadata"]["generation"] = 3
    parents_said = [{"parentRef": ref, "controllerName": "c", "conditions": said} for ref, said in answers]
    return {**raw, "status": {"parents": parents_said}}


def full(ref: dict[str, Any]) -> dict[str, Any]:
    """A parentRef as a controller writes it, with every default."""
    return {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": OWNER.namespace, **ref}


def test_a_route_that_every_gateway_has_accepted_serves() -> None:
    raw = http_route((full(BOTH[0]), ACCEPTED), (BOTH[1], ACCEPTED))
    router = of_gateway(PLACE, Cached(raw), False, READY)
    assert router == Router(2, (ROUTE, ROUTE), (READY, READY))
    assert router.serves(ROUTE)
    assert router.reaches(CANARY)


@pytest.mark.parametrize(
    ("said", "words", "reason"),
    [
        pytest.param(None, "no controller has answered", "RouteNotAccepted", id="silence"),
        pytest.param([condition("Accepted")], "ResolvedRefs is not told", "", id="half an answer"),
        pytest.param(
            [condition("Accepted", generation=2), condition("ResolvedRefs")],
            "Accepted is not told",
            "",
            id="an old one",
        ),
        pytest.param(
            [condition("Accepted", "False", reason="NotAllowedByListeners"), condition("ResolvedRefs")],
            "Accepted is False, NotAllowedByListeners: because",
            "RouteNotAccepted",
            id="a refusal",
        ),
        pytest.param(
            [condition("Accepted"), condition("ResolvedRefs", "False", reason="BackendNotFound")],
            "ResolvedRefs is False, BackendNotFound: because",
            "RouteNotAccepted",
            id="a backend that is not found",
        ),
        pytest.param(
            [*ACCEPTED, condition("PartiallyInvalid", reason="RuleMatchPartiallyConflict")],
            "PartiallyInvalid is True, RuleMatchPartiallyConflict: because",
            "RouteNotAccepted",
            id="a rule that was dropped",
        ),
        pytest.param(
            [condition("Accepted", generation=2), condition("ResolvedRefs"), condition("PartiallyInvalid")],
            "PartiallyInvalid is True",
            "RouteNotAccepted",
            id="a fall back to an old one",
        ),
    ],
)
def test_one_gateway_that_has_not_is_enough_to_wait(said: Any, words: str, reason: str) -> None:
    answers = [(BOTH[0], ACCEPTED), *([(BOTH[1], said)] if said else [])]
    router = of_gateway(PLACE, Cached(http_route(*answers)), False, READY)
    assert not router.serves(ROUTE)
    assert router.problem is not None
    assert "Gateway private" in router.problem
    assert words in router.problem
    assert router.reason == reason


def test_a_second_controller_that_refuses_counts() -> None:
    refusal = [condition("Accepted", "False"), condition("ResolvedRefs")]
    raw = http_route((BOTH[0], ACCEPTED), (BOTH[0], refusal), parents=BOTH[:1])
    assert not of_gateway(PLACE, Cached(raw), False, READY).serves(ROUTE)


def test_what_a_controller_of_policies_says_is_not_waited_for() -> None:
    """It has an entry of its own for the same Gateway, and accepts no routes."""
    raw = http_route((BOTH[0], ACCEPTED), (BOTH[0], [condition("PolicyAffected")]), parents=BOTH[:1])
    assert of_gateway(PLACE, Cached(raw), False, READY).serves(ROUTE)
    alone = http_route((BOTH[0], [condition("PolicyAffected")]), parents=BOTH[:1])
    assert not of_gateway(PLACE, Cached(alone), False, READY).serves(ROUTE)


def test_what_was_partly_invalid_before_is_fine_now() -> None:
    raw = http_route((BOTH[0], [*ACCEPTED, condition("PartiallyInvalid", generation=2)]), parents=BOTH[:1])
    assert of_gateway(PLACE, Cached(raw), False, READY).serves(ROUTE)


@pytest.mark.parametrize("left", [condition("Accepted", generation=2), condition("Accepted", "False", generation=1)])
def test_a_controller_that_has_left_its_word_behind_is_not_waited_for(left: dict[str, Any]) -> None:
    """Others keep what it said, and nobody takes it away when the Gateway gets another class."""
    of_old = [left, condition("ResolvedRefs", generation=left["observedGeneration"])]
    raw = http_route((BOTH[0], of_old), (BOTH[0], ACCEPTED), parents=BOTH[:1])
    assert of_gateway(PLACE, Cached(raw), False, READY).serves(ROUTE)
    alone = http_route((BOTH[0], of_old), parents=BOTH[:1])
    assert not of_gateway(PLACE, Cached(alone), False, READY).serves(ROUTE)


def test_listeners_of_one_gateway_are_parents_of_their_own() -> None:
    parents = [{"name": "public", "sectionName": "http"}, {"name": "public", "sectionName": "https"}]
    raw = http_route((parents[0], ACCEPTED), parents=parents)
    assert not of_gateway(PLACE, Cached(raw), False, READY).serves(ROUTE)


def test_with_grpc_its_route_has_to_serve_too() -> None:
    http = http_route((BOTH[0], ACCEPTED), parents=BOTH[:1])
    grpc = {**http, "kind": "GRPCRoute"}
    assert of_gateway(PLACE, Cached(http), True, READY) == Router(problem="GRPCRoute iris-grpc is not there yet.")
    assert of_gateway(PLACE, Cached(http, grpc), True, READY).serves(ROUTE)
    refused = {**grpc, "status": {"parents": []}}
    assert not of_gateway(PLACE, Cached(http, refused), True, READY).serves(ROUTE)


OWN = {
    **own_route(OWN_BOTH),
    "kind": "HTTPRoute",
    "status": {"parents": [{"parentRef": {"name": "public"}, "conditions": ACCEPTED}]},
}
OWN["metadata"]["generation"] = 3
LEADS = {"iris-blue": STABLE, "iris-green": CANARY, "iris": STABLE}


class CachedOwn(Cached):
    """A user's route, under its own name."""

    def get(self, kind: str, place: tuple[str, str]) -> Raw | None:
        return self._raws.get(kind) if place == (OWNER.namespace, "public") else None


def seen_own(*weights: int, raw: Any = OWN, leads: dict[str, str] | None = None) -> Router:
    raw = deepcopy(raw)
    for backend, weight in zip(raw["spec"]["rules"][0]["backendRefs"], weights, strict=False):
        backend["weight"] = weight
    return of_own_route(PLACE, CachedOwn(raw), "public", ROLLING, LEADS if leads is None else leads, READY)


def test_a_route_of_one_s_own_serves_what_its_services_lead_to() -> None:
    assert seen_own(75, 25).serves(ROUTE)
    assert seen_own(75, 25).reaches(CANARY)
    assert seen_own(100, 0).serves(Route(STABLE))
    assert seen_own(25, 75, leads={"iris-blue": CANARY, "iris-green": STABLE}).serves(ROUTE)


def test_a_revision_is_reached_once_a_service_leads_to_it() -> None:
    router = seen_own(100, 0, leads={"iris-blue": STABLE, "iris": STABLE})
    assert router.serves(Route(STABLE))
    assert not router.reaches(CANARY)


def test_every_rule_of_a_route_of_one_s_own_has_to_serve() -> None:
    raw = deepcopy(OWN)
    raw["spec"]["rules"].append(deepcopy(raw["spec"]["rules"][0]))
    assert not seen_own(75, 25, raw=raw).serves(ROUTE)


def test_a_route_of_one_s_own_is_read_as_its_gateway_accepts_it() -> None:
    refused = {**OWN, "status": {"parents": [{"parentRef": {"name": "public"}, "conditions": [condition("Accepted")]}]}}
    router = seen_own(75, 25, raw=refused)
    assert not router.serves(ROUTE)
    assert "HTTPRoute public, Gateway public: ResolvedRefs is not told" in (router.problem or "")


def test_other_weights_than_serin_s_are_not_served_and_nobody_has_to_act() -> None:
    router = seen_own(1, 0)
    assert (router.routes, router.reason) == ((), "")
    assert "it has other weights" in (router.problem or "")
    assert router.reaches(STABLE)


def test_a_route_of_one_s_own_that_is_missing_or_unfit_says_so() -> None:
    missing = of_own_route(PLACE, CachedOwn(), "public", ROLLING, LEADS, READY)
    assert missing.reason == "RouteNotFound"
    assert "label serin.dev/model-deployment: iris" in (missing.problem or "")
    unfit = deepcopy(OWN)
    del unfit["spec"]["rules"][0]["backendRefs"][1]
    assert seen_own(raw=unfit).reason == "RouteNotUsable"
    gone = of_own_route(PLACE, CachedOwn(state=State.MISSING), "public", ROLLING, LEADS, READY)
    assert gone.reason == "RouterNotInstalled"


def test_copies_are_served_once_both_routes_make_them() -> None:
    found = built(RouterType.GATEWAY_API, SHADOW, gatewayAPI={"parentRefs": BOTH[:1], "grpc": {}})
    stable = replace(SHADOW, canary=None, rollout=None)
    without = built(RouterType.GATEWAY_API, stable, gatewayAPI={"parentRefs": BOTH[:1], "grpc": {}})

    def accepted(raw: Any) -> Any:
        status = {"parents": [{"parentRef": BOTH[0], "conditions": ACCEPTED}]}
        return {**raw, "metadata": {**raw["metadata"], "generation": 3}, "status": status}

    http, grpc = ("HTTPRoute", "iris"), ("GRPCRoute", "iris-grpc")
    both = of_gateway(PLACE, Cached(accepted(found[http]), accepted(found[grpc])), True, READY)
    assert both.serves(Route(STABLE, CANARY, 0, 100))
    for one in (
        Cached(accepted(found[http]), accepted(without[grpc])),
        Cached(accepted(without[http]), accepted(found[grpc])),
    ):
        assert not of_gateway(PLACE, one, True, READY).serves(Route(STABLE, CANARY, 0, 100))


def test_a_route_that_somebody_changed_serves_nothing_that_is_known() -> None:
    raw = http_route((BOTH[0], ACCEPTED), parents=BOTH[:1])
    raw["spec"]["rules"][-1]["backendRefs"][0]["name"] = "mine"
    router = of_gateway(PLACE, Cached(raw), False, READY)
    assert (router.routes, router.problem) == ((), "HTTPRoute iris is not as Serin writes it.")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (State.DISABLED, "RouterNotEnabled"),
        (State.MISSING, "RouterNotInstalled"),
        (State.FORBIDDEN, "RouterForbidden"),
        (State.UNKNOWN, ""),
    ],
)
def test_a_router_that_is_not_there_says_what_to_do(state: State, reason: str) -> None:
    for router in (of_gateway(PLACE, Cached(state=state), False, READY), of_mesh(PLACE, Cached(state=state), READY)):
        assert (router.ready, router.reason) == (0, reason)
        assert router.problem


def test_a_cluster_without_grpc_routes_needs_none_until_they_are_asked_for() -> None:
    """Some have only a part of the Gateway API."""

    class WithoutGrpc(Cached):
        def state(self, kind: str, namespace: str) -> State:
            return State.MISSING if kind == "GRPCRoute" else State.KNOWN

    raw = http_route((BOTH[0], ACCEPTED), parents=BOTH[:1])
    assert of_gateway(PLACE, WithoutGrpc(raw), False, READY).serves(ROUTE)
    asked = of_gateway(PLACE, WithoutGrpc(raw), True, READY)
    assert (asked.ready, asked.reason) == (0, "RouterNotInstalled")
    assert "GRPCRoute" in (asked.problem or "")

    class WithoutGrpcOwn(WithoutGrpc, CachedOwn):
        pass

    own = deepcopy(OWN)
    for backend, weight in zip(own["spec"]["rules"][0]["backendRefs"], (75, 25), strict=True):
        backend["weight"] = weight
    assert of_own_route(PLACE, WithoutGrpcOwn(own), "public", ROLLING, LEADS, READY).serves(ROUTE)


def virtual_service(**status: Any) -> dict[str, Any]:
    return {**built(RouterType.ISTIO)["VirtualService", "iris"], "status": status}


def test_a_virtual_service_serves_as_it_is_read() -> None:
    assert of_mesh(PLACE, Cached(virtual_service()), READY) == Router(1, (ROUTE,), (READY,))
    warned = virtual_service(validationMessages=[{"level": "WARNING", "documentationUrl": "https://istio.io/IST0132"}])
    assert of_mesh(PLACE, Cached(warned), READY).serves(ROUTE)


def test_an_error_that_istio_finds_in_it_is_told() -> None:
    raw = virtual_service(validationMessages=[{"level": "ERROR", "documentationUrl": "https://istio.io/IST0101"}])
    router = of_mesh(PLACE, Cached(raw), READY)
    assert not router.serves(ROUTE)
    assert router.problem == "VirtualService iris: https://istio.io/IST0101"
    assert router.reason == "RouteNotAccepted"


@pytest.mark.parametrize(
    ("generation", "told"),
    [(None, True), ("3", True), (3, True), ("2", False), (2, False)],
    ids=["of none", "of the newest", "the same as a number", "of an older", "the same as a number"],
)
def test_an_error_counts_in_the_version_in_which_istio_found_it(generation: str | int | None, told: bool) -> None:
    """Istio's JSON has whole numbers of 64 bits as strings."""
    found = {} if generation is None else {"observedGeneration": generation}
    raw = virtual_service(validationMessages=[{"level": "ERROR", "documentationUrl": "https://istio.io/IST0101"}])
    raw = {**raw, "metadata": {**raw["metadata"], "generation": 3}, "status": {**raw["status"], **found}}
    assert of_mesh(PLACE, Cached(raw), READY).serves(ROUTE) is not told


# --- fields that are not there


def parts(raw: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The holes in what an API server does not add by itself."""
    for where, holed in holes({part: raw[part] for part in ("spec", "status")}):
        yield where, {"kind": raw["kind"], "metadata": raw["metadata"], **holed}


# Without these the weights are what they were, and so is who has accepted them.
_BESIDE = {"matches", "filters", "timeouts", "timeout", "headers", "match", "hosts", "controllerName", "port"}
_BESIDE |= {"group", "kind", "reason", "message", "hostnames"}


def matters(where: Path) -> bool:
    if "filters" in where and where[-1] == "type":
        return True  # it may have been one that copies
    default = where == ("status", "parents", 0, "parentRef", "namespace")
    feedback = where[:3] in {("spec", "rules", 0), ("spec", "http", 0)}
    return not (default or feedback or _BESIDE.intersection(where))


@pytest.mark.parametrize("missing_from", ["HTTPRoute", "GRPCRoute"])
def test_whatever_a_route_lacks_it_is_read_and_serves_only_if_that_does_not_matter(missing_from: str) -> None:
    http = http_route((full(BOTH[0]), ACCEPTED), (BOTH[1], ACCEPTED))
    grpc = {**http, "kind": "GRPCRoute"}
    holed = http if missing_from == "HTTPRoute" else grpc
    for where, raw in parts(holed):
        router = of_gateway(PLACE, Cached(http, grpc, raw), True, READY)
        assert router.serves(ROUTE) is not matters(where), where
        assert router.serves(ROUTE) or router.problem, where


def test_whatever_a_route_of_one_s_own_lacks_it_is_read_and_serves_only_if_that_does_not_matter() -> None:
    own = deepcopy(OWN)
    for backend, weight in zip(own["spec"]["rules"][0]["backendRefs"], (75, 25), strict=True):
        backend["weight"] = weight
    required = {("spec",), *(("spec", "rules", 0, "backendRefs", place, "name") for place in (0, 1))}
    for where, raw in parts(own):
        if where not in required:
            router = of_own_route(PLACE, CachedOwn(raw), "public", ROLLING, LEADS, READY)
            assert router.serves(ROUTE) is bool(_BESIDE.intersection(where)), where
            assert router.serves(ROUTE) or router.problem, where


def test_whatever_a_virtual_service_lacks_it_is_read_and_serves_only_if_that_does_not_matter() -> None:
    told = {"level": "WARNING", "type": {"code": "IST0132"}, "documentationUrl": "https://istio.io/IST0132"}
    for where, raw in parts(virtual_service(validationMessages=[told], observedGeneration="3")):
        router = of_mesh(PLACE, Cached(raw), READY)
        assert router.serves(ROUTE) is not (where[0] == "spec" and matters(where)), where
        assert router.serves(ROUTE) or router.problem, where


# --- pods


BY_PODS = replace(ROLLING, routing=Routing(RouterType.REPLICA_RATIO))
ALL = {"serin.dev/component": "server"}
ONE = {**ALL, "serin.dev/revision": STABLE}


def test_pods_serve_a_weight_when_only_the_arms_are_behind_the_service() -> None:
    assert of_pods(BY_PODS, ALL, READY) == Router(1, (ROUTE,), (READY,))
    assert not of_pods(BY_PODS, ONE, READY).serves(ROUTE)
    assert not of_pods(BY_PODS, {"serin.dev/component": "router"}, READY).serves(ROUTE)
    assert not of_pods(BY_PODS, None, READY).serves(ROUTE)
    assert not of_pods(BY_PODS, ALL, READY | {"0" * 10: 1}).serves(ROUTE)


def test_a_canary_is_reached_once_no_other_pods_are_left() -> None:
    starting = replace(BY_PODS, weight=0)
    router = of_pods(starting, ONE, READY | {"0" * 10: 1})
    assert router.serves(Route(STABLE))
    assert router.reaches(STABLE)
    assert not router.reaches(CANARY)
    assert of_pods(starting, ONE, READY).reaches(CANARY)


def test_before_the_service_leads_to_pods_those_that_are_ready_count() -> None:
    coming = replace(SERVING, routing=Routing(RouterType.EMBEDDED, next=RouterType.REPLICA_RATIO))
    router = of_pods(coming, {"serin.dev/component": "router"}, {STABLE: 1})
    assert router.serves(Route(STABLE))
    assert router.reaches(STABLE)
    assert not of_pods(coming, None, {}).reaches(STABLE)
