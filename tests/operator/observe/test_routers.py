"""What Envoy says of itself, as it says it, and what Serin makes of silence and nonsense."""

import json
import re
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from tests.operator.definition import make_spec
from tests.operator.observe.http import answering, pod

from serin_operator.build import envoy
from serin_operator.decide.observed import Route, Router
from serin_operator.observe.routers import ask_routers, expiry, healthy_hosts, live_route

STABLE, CANARY = "a" * 10, "b" * 10


def of_grpc(routes: Any) -> list[dict[str, Any]]:
    """The same for gRPC, whose routes and clusters have names of their own."""
    renamed: list[dict[str, Any]] = json.loads(re.sub(r'"(name|cluster)": "', r'"\1": "grpc-', json.dumps(routes)))
    return renamed


def dump(*routes: dict[str, Any], grpc: tuple[dict[str, Any], ...] | None = None) -> dict[str, Any]:
    """`/config_dump?resource=dynamic_route_configs` of a router with these routes, and the same or others for gRPC."""
    table = [*of_grpc(routes if grpc is None else grpc), *routes]
    return {
        "configs": [
            {
                "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump.DynamicRouteConfig",
                "version_info": "5d41402abc4b",
                "route_config": {
                    "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                    "name": "inference",
                    "virtual_hosts": [{"name": "inference", "domains": ["*"], "routes": table}],
                    "validate_clusters": False,
                },
                "last_updated": "2025-06-15T15:06:40.123Z",
            }
        ]
    }


def canary(fraction: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "canary",
        "match": {"prefix": "/", "runtime_fraction": {"default_value": fraction}},
        "route": {"cluster": f"canary-{CANARY}", "timeout": "30s"},
    }


def shadow(fraction: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "shadow",
        "match": {"safe_regex": {}, "runtime_fraction": {"default_value": fraction}},
        "route": {"cluster": f"revision-{STABLE}", "request_mirror_policies": [{"cluster": f"mirror-{CANARY}"}]},
    }


FEEDBACK = {"name": "feedback", "match": {}, "route": {"cluster": f"revision-{STABLE}"}}
REST = {"name": "stable", "match": {"prefix": "/"}, "route": {"cluster": f"revision-{STABLE}"}}


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ((FEEDBACK, REST), Route(STABLE)),
        ((FEEDBACK, canary({"numerator": 25}), REST), Route(STABLE, CANARY, 25)),
        ((FEEDBACK, canary({"numerator": 1, "denominator": "HUNDRED"}), REST), Route(STABLE, CANARY, 1)),
        ((FEEDBACK, canary({}), REST), Route(STABLE, CANARY, 0)),
        ((FEEDBACK, shadow({"numerator": 20}), REST), Route(STABLE, CANARY, mirror=20)),
        ((FEEDBACK, canary({"numerator": 5}), shadow({"numerator": 20}), REST), Route(STABLE, CANARY, 5, 20)),
    ],
)
def test_the_live_route_is_read(routes: tuple[dict[str, Any], ...], expected: Route) -> None:
    assert live_route(dump(*routes)) == expected


@pytest.mark.parametrize(
    "grpc",
    [(REST,), (canary({"numerator": 5}), REST), (shadow({"numerator": 7}), REST)],
    ids=["not copied", "split", "another share"],
)
def test_a_router_that_treats_grpc_otherwise_tells_no_route(grpc: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(ValueError, match=r"mirror=20.* for HTTP, .* for gRPC"):
        live_route(dump(shadow({"numerator": 20}), REST, grpc=grpc))


def test_what_is_built_is_what_is_read() -> None:
    for route in (
        Route(STABLE),
        Route(STABLE, CANARY, 7),
        Route(STABLE, CANARY, mirror=7),
        Route(STABLE, CANARY, 7, 9),
    ):
        for more in ({}, {"sticky": {"header": "x-user"}}):
            (table,) = envoy.routes(route, make_spec(traffic=more).traffic, "")["resources"]
            assert live_route({"configs": [{"route_config": table}]}) == route


@pytest.mark.parametrize("said", [{}, {"configs": []}])
def test_a_router_without_a_route_says_so(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no route yet"):
        live_route(said)


def chain(*expirations: str) -> dict[str, Any]:
    return {"ca_cert": [], "cert_chain": [{"path": "x.crt", "expiration_time": time} for time in expirations]}


@pytest.mark.parametrize(
    ("certificates", "expected"),
    [
        ({}, None),
        ({"certificates": []}, None),
        ({"certificates": [chain()]}, None),
        ({"certificates": [chain("1970-01-01T00:01:00Z")]}, 60.0),
        ({"certificates": [chain("1970-01-02T00:00:00Z", "1970-01-01T00:01:00Z")]}, 60.0),
    ],
)
def test_the_first_certificate_to_expire_is_told(certificates: dict[str, Any], expected: float | None) -> None:
    assert expiry(certificates) == expected


def cluster(name: str, *hosts: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "added_via_api": True, "host_statuses": list(hosts)}


def host(address: str, priority: int = 0, **flags: Any) -> dict[str, Any]:
    told = {"priority": priority} if priority else {}
    return {
        "address": {"socket_address": {"address": address, "port_value": 8080}},
        "health_status": {"eds_health_status": "HEALTHY", **flags},
        "hostname": "iris",
        **told,
    }


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ([], {}),
        ([cluster(f"revision-{STABLE}")], {STABLE: 0}),
        ([{"name": f"revision-{STABLE}"}], {STABLE: 0}),
        ([cluster(f"revision-{STABLE}", host("10.0.0.1"), host("10.0.0.2"))], {STABLE: 2}),
        (
            [cluster(f"revision-{STABLE}", host("10.0.0.1"), host("10.0.0.2", failed_active_health_check=True))],
            {STABLE: 1},
        ),
        ([cluster(f"revision-{STABLE}", host("10.0.0.1", failed_outlier_check=True))], {STABLE: 0}),
        ([cluster(f"revision-{STABLE}", host("10.0.0.1")), cluster(f"grpc-revision-{STABLE}")], {STABLE: 0}),
        ([cluster(f"revision-{STABLE}", host("10.0.0.1", pending_dynamic_removal=True))], {STABLE: 0}),
        ([cluster(f"revision-{STABLE}", host("10.0.0.1", eds_health_status="UNHEALTHY"))], {STABLE: 0}),
        # The canary's own pods are priority 0; stable, its fallback, does not make it reachable.
        ([cluster(f"canary-{CANARY}", host("10.0.0.9", priority=1))], {CANARY: 0}),
        (
            [
                cluster(f"revision-{CANARY}", host("10.0.0.5")),
                cluster(f"canary-{CANARY}", host("10.0.0.9", priority=1)),
            ],
            {CANARY: 0},
        ),
        (
            [
                cluster("admin", host("127.0.0.1")),
                cluster(f"revision-{CANARY}", host("10.0.0.5")),
                cluster(f"canary-{CANARY}", host("10.0.0.5"), host("10.0.0.9", priority=1)),
            ],
            {CANARY: 1},
        ),
    ],
)
def test_healthy_hosts_are_counted(clusters: list[dict[str, Any]], expected: dict[str, int]) -> None:
    assert dict(healthy_hosts({"cluster_statuses": clusters})) == expected


def well(path: str) -> Any:
    if path == "/clusters":
        return {"cluster_statuses": [cluster(f"revision-{STABLE}", host("10.0.0.1"))]}
    return dump(FEEDBACK, REST)


def router(name: str, address: str, ready: bool = True) -> Any:
    return pod(name, address, component="router", ready=ready)


async def test_every_ready_router_is_asked(port: int, session: aiohttp.ClientSession) -> None:
    pods = [
        router("r0", "127.0.0.2"),
        router("r1", "127.0.0.3"),
        router("r2", "127.0.0.4", ready=False),
        pod("server", "127.0.0.5"),
    ]
    async with answering("127.0.0.2", port, well) as asked, answering("127.0.0.3", port, well):
        found = await ask_routers(session, pods)
    assert found == Router(2, (Route(STABLE),) * 2, ({STABLE: 1},) * 2, (None, None))
    assert found.serves(Route(STABLE)) and found.reaches(STABLE)
    assert sorted(asked) == [
        "GET /certs",
        "GET /clusters?format=json",
        "GET /config_dump?resource=dynamic_route_configs",
    ]


NUMBERS = {
    "configs": [{"route_config": {"virtual_hosts": [{"routes": [{"name": "stable", "route": {"cluster": 7}}]}]}}]
}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(None, 200, id="hangs"),
        pytest.param("upstream connect error", 503, id="503"),
        pytest.param("<html>", 200, id="no JSON"),
        pytest.param([], 200, id="a list"),
        pytest.param(0, 200, id="a number"),
        pytest.param({"configs": [{}]}, 200, id="no route table"),
        pytest.param({"configs": [{"route_config": {"virtual_hosts": []}}]}, 200, id="no virtual host"),
        pytest.param({"configs": []}, 200, id="no route yet"),
        pytest.param({"configs": [{"route_config": {"virtual_hosts": [7]}}]}, 200, id="something else"),
        pytest.param(NUMBERS, 200, id="a number for a name"),
        pytest.param("[" * 100_000, 200, id="nested without end"),
    ],
)
async def test_a_router_that_does_not_tell_leaves_nothing_verified(
    answer: Any, status: int, port: int, session: aiohttp.ClientSession
) -> None:
    async with AsyncExitStack() as servers:
        await servers.enter_async_context(answering("127.0.0.2", port, well))
        await servers.enter_async_context(answering("127.0.0.3", port, answer, status=status))
        found = await ask_routers(session, [router("r0", "127.0.0.2"), router("r1", "127.0.0.3")])
    assert (found.ready, len(found.routes), len(found.healthy)) == (2, 1, 1)
    assert not found.serves(Route(STABLE))
    assert not found.reaches(STABLE)
    assert found.problem and found.problem.startswith("router r1 does not tell its route: ")


async def test_a_router_that_refuses_connections_is_a_problem(port: int, session: aiohttp.ClientSession) -> None:
    found = await ask_routers(session, [router("r0", "127.0.0.2")])
    assert (found.ready, found.routes) == (1, ())
    assert found.problem and "r0" in found.problem


async def test_without_a_ready_router_nothing_serves(session: aiohttp.ClientSession) -> None:
    found = await ask_routers(session, [router("r0", "127.0.0.2", ready=False)])
    assert found == Router(problem="no router pod is ready")
    assert not found.serves(Route(STABLE))


def test_one_router_that_differs_is_enough_to_wait() -> None:
    both = Router(2, (Route(STABLE), Route(STABLE, CANARY, 5)), ({STABLE: 1}, {STABLE: 1, CANARY: 1}))
    assert not both.serves(Route(STABLE))
    assert not both.serves(Route(STABLE, CANARY, 5))
    assert both.reaches(STABLE)
    assert not both.reaches(CANARY)
