"""Asks the router pods what they really serve: the live route table and the hosts that pass health checks."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp

from serin_operator.build import envoy, listeners
from serin_operator.build.mirroring import mirror_cluster_of
from serin_operator.decide.observed import Route, Router
from serin_operator.observe.pods import Pod

_TIMEOUT = aiohttp.ClientTimeout(total=2)
# What a router that is starting, going or not Serin's own can answer with.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
_UNHEALTHY = ("failed_active_health_check", "failed_outlier_check", "failed_degraded_check", "pending_dynamic_removal")


async def ask_routers(session: aiohttp.ClientSession, pods: Iterable[Pod]) -> Router:
    """Asks every ready router pod. One that does not answer leaves `routes` short, so nothing counts as served."""
    ready = [pod for pod in pods if pod.component == "router" and pod.serving]
    answers = await asyncio.gather(*(_ask(session, pod) for pod in ready), return_exceptions=True)
    problems = []
    seen: list[_Answer] = []
    for pod, answer in zip(ready, answers, strict=True):
        if isinstance(answer, _NO_ANSWER):
            problems.append(f"router {pod.name} does not tell its route: {type(answer).__name__} {answer}")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            seen.append(answer)
    problem = "no router pod is ready" if not ready else "; ".join(problems) or None
    return Router(
        ready=len(ready),
        routes=tuple(answer.route for answer in seen),
        healthy=tuple(answer.healthy for answer in seen),
        certificates=tuple(answer.certificate for answer in seen),
        problem=problem,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    route: Route
    healthy: Mapping[str, int]
    certificate: float | None


async def _ask(session: aiohttp.ClientSession, pod: Pod) -> _Answer:
    base = f"http://{pod.ip}:{listeners.STATUS_PORT}"
    table, clusters, certificates = await asyncio.gather(
        _get(session, f"{base}/config_dump?resource=dynamic_route_configs"),
        _get(session, f"{base}/clusters?format=json"),
        _get(session, f"{base}/certs"),
    )
    return _Answer(live_route(table), healthy_hosts(clusters), expiry(certificates))


async def _get(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    async with session.get(url, timeout=_TIMEOUT) as response:
        response.raise_for_status()
        answer = await response.json(content_type=None)
    if not isinstance(answer, dict):
        raise ValueError(f"no JSON object at {url}")
    return answer


def live_route(dump: Mapping[str, Any]) -> Route:
    """The route in Envoy's `config_dump`. Raises ValueError when there is none yet, or not one for all protocols."""
    for config in dump.get("configs", []):
        table = {route["name"]: route for route in _drawn(config["route_config"]["virtual_hosts"][0])}
        http, grpc = _route_of("", table), _route_of(envoy.GRPC, table)
        if http != grpc:
            raise ValueError(f"its routes differ: {http} for HTTP, {grpc} for gRPC")
        return http
    raise ValueError("it has no route yet")


def _route_of(protocol: str, table: Mapping[str, Any]) -> Route:
    """The route in the table of a protocol, whose names begin with this."""

    def revision(cluster: str, cluster_of: Callable[[str], str]) -> str:
        return cluster.removeprefix(f"{protocol}{cluster_of('')}")

    stable = revision(table[f"{protocol}{envoy.STABLE_ROUTE}"]["route"]["cluster"], envoy.cluster_of)
    canary, shadow = table.get(f"{protocol}{envoy.CANARY_ROUTE}"), table.get(f"{protocol}{envoy.SHADOW_ROUTE}")
    if canary is not None:
        other = revision(canary["route"]["cluster"], envoy.canary_cluster_of)
        return Route(stable, other, weight=_per_cent(canary), mirror=_per_cent(shadow))
    if shadow is not None:
        (policy,) = shadow["route"]["request_mirror_policies"]
        return Route(stable, revision(policy["cluster"], mirror_cluster_of), mirror=_per_cent(shadow))
    return Route(stable)


def _per_cent(route: Mapping[str, Any] | None) -> int:
    """The share of the requests that a route takes; 0 without one."""
    if route is None:
        return 0
    share: int = route["match"]["runtime_fraction"]["default_value"].get("numerator", 0)
    return share


def _drawn(host: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The routes of requests that are drawn one by one; where callers are drawn, what is left has them too."""
    if "matcher" in host:
        host = host["matcher"]["on_no_match"]["action"]["typed_config"]
    found: list[Mapping[str, Any]] = host["routes"]
    return found


def expiry(certificates: Mapping[str, Any]) -> float | None:
    """When the first certificate of the chain for clients expires, from Envoy's `certs`; None when it has none."""
    chains = [one for found in certificates.get("certificates", []) for one in found.get("cert_chain", [])]
    return min((datetime.fromisoformat(one["expiration_time"]).timestamp() for one in chains), default=None)


def healthy_hosts(clusters: Mapping[str, Any]) -> Counter[str]:
    """Per revision, the hosts that pass this router's health checks, from Envoy's `clusters?format=json`.

    A revision that has several clusters, its own and as a canary, counts by the worst of them.
    """
    counts: Counter[str] = Counter()
    for cluster in clusters.get("cluster_statuses", []):
        name = cluster["name"].removeprefix(envoy.GRPC)
        for prefix in (envoy.cluster_of(""), envoy.canary_cluster_of("")):
            if name.startswith(prefix):
                hosts = [host for host in cluster.get("host_statuses", []) if host.get("priority", 0) == 0]
                healthy = sum(_is_healthy(host["health_status"]) for host in hosts)
                revision = name.removeprefix(prefix)
                counts[revision] = min(counts.get(revision, healthy), healthy)
    return counts


def _is_healthy(health: Mapping[str, Any]) -> bool:
    return health.get("eds_health_status") == "HEALTHY" and not any(health.get(flag) for flag in _UNHEALTHY)
