"""Envoy's files that change, as plain values: clusters (CDS) and routes (RDS). `listeners` has the static part.

Clusters are named by revision, never by role, so that a promotion changes routes only. The canary is reached
through a second cluster of its own, `canary-<revision>`, whose lower priority is the stable revision: what the
canary fails to answer is answered by stable, and no client sees a canary's error. Retries carry
`x-envoy-attempt-count`, by which the model servers keep them out of the evidence.

HTTP and gRPC come in on one port and reach different ports of the servers, so each has clusters and routes of its own.
Testers' requests carry `x-serin-tester`, from the router only.

A canary may also be shown copies of requests that stable answers: see `mirroring`.
"""

from dataclasses import dataclass, field
from typing import Any

from serin_operator.api.callers import Testers
from serin_operator.api.spec import Traffic
from serin_operator.build.callers import TYPE, by_caller
from serin_operator.build.mirroring import OF_GRPC, OF_HTTP, Copies, few, mirror_cluster_of
from serin_operator.build.owner import GRPC_PORT, LARGEST_BODY, PORT, Owner
from serin_operator.decide.observed import Route

ROUTES = "inference"
CANARY_ROUTE = "canary"
SHADOW_ROUTE = "shadow"
STABLE_ROUTE = "stable"
TESTERS_ROUTE = "testers"
GRPC = "grpc-"  # what the names of its clusters and routes begin with
TESTER_MARK = "x-serin-tester"
SHADOW_MARK = "x-serin-shadow"
ATTEMPT_COUNT = "x-envoy-attempt-count"  # Envoy overwrites what clients send, where it counts
FEEDBACK_SERVICE, FEEDBACK_METHOD = "serin.FeedbackService", "Feedback"  # gRPC's, for labels

# A canary's 4xx also goes to stable: a model with another input schema answers 400 to what stable understands.
_CANARY_RETRIABLE = [400, 404, 408, 409, 413, 415, 422, 429]
# The same for gRPC: UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED,
# INTERNAL, UNAVAILABLE, DATA_LOSS. Envoy names only some of them, and cannot retry after an answer has begun.
_CANARY_RETRIABLE_GRPC = "2|3|4|5|8|12|13|14|15"
_UNANSWERED = "connect-failure,refused-stream"
_EJECTING_FAILURES = 5
# Hosts are drawn two at a time, and the less busy one is taken: of two pods, the one that has just failed three times
# in four. After so many draws in vain it gets the request again: once in five thousand.
_ANOTHER_HOST = {
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"{TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
        }
    ],
    "host_selection_retry_max_attempts": 30,
}
# Stable first. Should that fail as well, for its pod was on the same node, Envoy begins anew with the canary, and then
# another pod of stable's is asked.
_CANARY_RETRIES = 3
# What hangs keeps the requests that it has, and what is slow but works may still answer: after half the time another
# pod is asked as well, and the first answer is heard.
_HEDGED = {"hedge_on_per_try_timeout": True}


@dataclass(frozen=True, slots=True)
class _Protocol:
    """What clients speak: how its clusters and routes are named, the servers' port, and which requests are its own."""

    name: str
    port: int
    upstream: str
    feedback: dict[str, Any]
    unavailable: dict[str, Any]  # what stable is asked again for, if another of its pods may answer
    failed: dict[str, Any]  # what a canary has failed to answer
    copies: Copies  # for a shadow
    match: dict[str, Any] = field(default_factory=dict)


_GRPC = _Protocol(
    GRPC,
    GRPC_PORT,
    "http2_protocol_options",
    feedback={"prefix": f"/{FEEDBACK_SERVICE}/"},
    unavailable={"retry_on": f"{_UNANSWERED},reset,unavailable"},
    failed={
        "retry_on": f"{_UNANSWERED},reset,5xx,retriable-headers",
        "retriable_headers": [
            {"name": "grpc-status", "string_match": {"safe_regex": {"regex": _CANARY_RETRIABLE_GRPC}}}
        ],
    },
    copies=OF_GRPC,
    match={"grpc": {}},
)
_HTTP = _Protocol(
    "",
    PORT,
    "http_protocol_options",
    feedback={"safe_regex": {"regex": "/v2/models/[^/]+/feedback"}},
    unavailable={
        "retry_on": f"{_UNANSWERED},reset,retriable-status-codes",
        "retriable_status_codes": [503],
    },
    failed={
        "retry_on": f"{_UNANSWERED},reset,5xx,retriable-status-codes",
        "retriable_status_codes": _CANARY_RETRIABLE,
    },
    copies=OF_HTTP,
)
_PROTOCOLS = (_GRPC, _HTTP)  # what is HTTP's also matches gRPC


def cluster_of(revision: str) -> str:
    """The cluster that reaches a revision's pods and nothing else."""
    return f"revision-{revision}"


def canary_cluster_of(revision: str) -> str:
    """The cluster that reaches a revision's pods first and falls back to stable."""
    return f"canary-{revision}"


def clusters(
    owner: Owner, revisions: list[str], fallbacks: dict[str, str], version: str, *, mirrored: str | None = None
) -> dict[str, Any]:
    """CDS: one cluster per revision, and one more for each revision in `fallbacks` (revision → its fallback).

    And the same again for gRPC. mirrored: the revision that gets copies of requests, if one does.
    """
    resources = []
    for protocol in _PROTOCOLS:
        for revision in revisions:
            resources.append(_cluster(protocol, cluster_of(revision), [owner.server(revision)]))
        for revision, fallback in sorted(fallbacks.items()):
            hosts = [owner.server(revision), owner.server(fallback)]
            resources.append(_cluster(protocol, canary_cluster_of(revision), hosts))
        if mirrored is not None:
            hosts, connection = [owner.server(mirrored)], protocol.copies.connection
            resources.append(few(_cluster(protocol, mirror_cluster_of(mirrored), hosts, connection)))
    return {"version_info": version, "resources": resources}


def routes(route: Route, traffic: Traffic, version: str, *, candidate: str | None = None) -> dict[str, Any]:
    """RDS: feedback to stable, testers to the candidate, `weight` per cent to the canary, the rest to stable.

    Of what goes to stable, `mirror` per cent of the inferences are copied to the canary.
    candidate: the revision that testers reach; None while there is none, when stable answers them too.
    """
    host = {
        "name": ROUTES,
        "domains": ["*"],
        "include_request_attempt_count": True,
        "request_body_buffer_limit": LARGEST_BODY,  # a larger one can not be sent twice
        "request_headers_to_remove": [TESTER_MARK, SHADOW_MARK],
    }
    drawn = _table(route, route.weight, traffic, candidate)
    if traffic.sticky and route.canary and route.weight:
        ours, others = (_table(route, weight, traffic, candidate) for weight in (100, 0))
        host["matcher"] = by_caller(traffic.sticky, route.canary, route.weight, ours, others, drawn)
    else:
        host["routes"] = drawn
    return {
        "version_info": version,
        "resources": [
            {
                "@type": f"{TYPE}envoy.config.route.v3.RouteConfiguration",
                "name": ROUTES,
                "validate_clusters": False,
                # Only routes here set the marks: what clients send is removed before that.
                "most_specific_header_mutations_wins": True,
                "virtual_hosts": [host],
            }
        ],
    }


def _table(route: Route, weight: int, traffic: Traffic, candidate: str | None) -> list[dict[str, Any]]:
    """The routes in the order in which they are tried, with `weight` per cent for the canary."""
    table = [_closed_route()]
    for protocol in _PROTOCOLS:
        table.append(_feedback_route(protocol, route, traffic))
        if traffic.testers:
            # The canary's cluster: a router may see a pod ready a moment later than the operator, or never again.
            cluster = canary_cluster_of(candidate) if candidate else cluster_of(route.stable)
            table += _testers_routes(protocol, cluster, traffic.testers, traffic)
        if route.canary and weight:
            table.append(_canary_route(protocol, route.canary, weight, traffic))
        stable = _stable_route(protocol, route, traffic)
        if route.canary and route.mirror:
            table.append(_shadow_route(protocol, stable, route.canary, route.mirror))
        table.append(stable)
    return table


def _closed_route() -> dict[str, Any]:
    """What model servers tell each other of requests is no client's to read."""
    return {
        "name": "closed",
        "match": {"safe_regex": {"regex": "/v2/models/[^/]+/answers(/.*)?"}},
        "direct_response": {"status": 404},
    }


def _feedback_route(protocol: _Protocol, route: Route, traffic: Traffic) -> dict[str, Any]:
    return {
        "name": f"{protocol.name}feedback",
        "match": {**protocol.feedback, **protocol.match},
        # A reset may come after labels were counted, so only a request that no server took is sent again.
        "route": _forward(protocol, cluster_of(route.stable), traffic, {"retry_on": _UNANSWERED}),
    }


def _testers_routes(protocol: _Protocol, cluster: str, testers: Testers, traffic: Traffic) -> list[dict[str, Any]]:
    """To the candidate, whose errors testers want to see. A route for each way to say that one is a tester."""
    matches: list[dict[str, Any]] = []
    if testers.header:
        name, value = testers.header
        matches.append({"headers": [{"name": name, "string_match": {"exact": value}}]})
    if testers.cookie:
        name, value = testers.cookie
        matches.append({"cookies": [{"name": name, "string_match": {"exact": value}}]})
    return [
        {
            "name": f"{protocol.name}{TESTERS_ROUTE}",
            "match": {"prefix": "/", **match, **protocol.match},
            "request_headers_to_add": [_mark(TESTER_MARK)],
            "route": _forward(protocol, cluster, traffic, {"retry_on": _UNANSWERED}),
        }
        for match in matches
    ]


def _stable_route(protocol: _Protocol, route: Route, traffic: Traffic) -> dict[str, Any]:
    return {
        "name": f"{protocol.name}{STABLE_ROUTE}",
        "match": {"prefix": "/", **protocol.match},
        "route": _forward(protocol, cluster_of(route.stable), traffic, protocol.unavailable | _half_a_try(traffic))
        | {"hedge_policy": _HEDGED},
    }


def _shadow_route(protocol: _Protocol, stable: dict[str, Any], canary: str, percent: int) -> dict[str, Any]:
    """What stable answers and the canary gets a copy of."""
    policy = {
        "cluster": f"{protocol.name}{mirror_cluster_of(canary)}",
        "disable_shadow_host_suffix_append": True,
    }
    return stable | {
        "name": f"{protocol.name}{SHADOW_ROUTE}",
        "match": {
            **protocol.copies.match,
            **protocol.match,
            "runtime_fraction": {"default_value": {"numerator": percent, "denominator": "HUNDRED"}},
        },
        "request_headers_to_add": [_mark(SHADOW_MARK)],
        "route": stable["route"] | {"request_mirror_policies": [policy]},
    }


def _half_a_try(traffic: Traffic) -> dict[str, str]:
    return {"per_try_timeout": _duration(traffic.timeout / 2)}


def _mark(name: str) -> dict[str, Any]:
    return {"header": {"key": name, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _forward(protocol: _Protocol, cluster: str, traffic: Traffic, retries: dict[str, Any]) -> dict[str, Any]:
    return {
        "cluster": f"{protocol.name}{cluster}",
        "timeout": _duration(traffic.timeout),
        "retry_policy": {
            **retries,
            "num_retries": 2,
            **_ANOTHER_HOST,
        },
    }


def _canary_route(protocol: _Protocol, canary: str, weight: int, traffic: Traffic) -> dict[str, Any]:
    """A share of the requests, drawn one by one; 100 per cent for callers that have been drawn already."""
    previous_priorities = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {
        "name": f"{protocol.name}{CANARY_ROUTE}",
        "match": {
            "prefix": "/",
            "headers": [
                {
                    "name": "content-length",
                    "range_match": {"start": LARGEST_BODY + 1, "end": 2**62},
                    # A body of unknown size is sent; one that turns out too large no server takes.
                    "treat_missing_header_as_empty": True,
                    "invert_match": True,
                }
            ],
            "runtime_fraction": {"default_value": {"numerator": weight, "denominator": "HUNDRED"}},
            **protocol.match,
        },
        "route": {
            "cluster": f"{protocol.name}{canary_cluster_of(canary)}",
            "timeout": _duration(traffic.timeout),
            "retry_policy": {
                **protocol.failed,
                **_ANOTHER_HOST,
                "num_retries": _CANARY_RETRIES,
                "retry_priority": {
                    "name": "envoy.retry_priorities.previous_priorities",
                    "typed_config": {"@type": f"{TYPE}{previous_priorities}", "update_frequency": 1},
                },
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.010s"},
                **_half_a_try(traffic),
            },
            "hedge_policy": _HEDGED,
        },
    }


def _cluster(
    protocol: _Protocol, name: str, hosts: list[str], connection: dict[str, Any] | None = None
) -> dict[str, Any]:
    dns = "envoy.extensions.clusters.dns.v3.DnsCluster"
    cares = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "@type": f"{TYPE}envoy.config.cluster.v3.Cluster",
        "name": f"{protocol.name}{name}",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "1s",
        "ignore_health_on_host_removal": True,
        "cluster_type": {
            "name": "envoy.cluster.dns",
            "typed_config": {
                "@type": f"{TYPE}{dns}",
                "dns_refresh_rate": "1s",
                "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "1s"},
                "dns_lookup_family": "V4_PREFERRED",
                "typed_dns_resolver_config": {
                    "name": "envoy.network.dns_resolver.cares",
                    "typed_config": {
                        "@type": f"{TYPE}{cares}",
                        "dns_resolver_options": {"no_default_search_domain": False},
                    },
                },
            },
        },
        "typed_extension_protocol_options": {
            http: {"@type": f"{TYPE}{http}", "explicit_http_config": {protocol.upstream: connection or {}}}
        },
        "common_lb_config": {
            # The default holds health changes back for a second, in which requests find no healthy host.
            "update_merge_window": "0s",
            "healthy_panic_threshold": {"value": 50},
        },
        # Never reached: Envoy does not ask another cluster when one is full, so a limit would be a canary's error that
        # clients see. The servers refuse what is too much for them, and that fails over.
        "circuit_breakers": {
            "thresholds": [
                {
                    "priority": "DEFAULT",
                    "max_connections": 100000,
                    "max_pending_requests": 100000,
                    "max_requests": 100000,
                    "retry_budget": {"budget_percent": {"value": 100}, "min_retry_concurrency": 100},
                }
            ]
        },
        **({} if len(hosts) > 1 else {"outlier_detection": _outliers()}),
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "1s",
                "unhealthy_edge_interval": "1s",
                "healthy_edge_interval": "1s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/v2/health/ready"},
            }
        ],
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "priority": priority,
                    "lb_endpoints": [{"endpoint": _endpoint(protocol, host)}],
                }
                for priority, host in enumerate(hosts)
            ],
        },
    }


def _outliers() -> dict[str, Any]:
    """A pod that passes its health checks and yet hangs or breaks connections is spared for a while.

    What a model answers, errors too, is evidence and never a reason. At most half of a revision's pods are spared, so
    one that has one pod only keeps it. A canary's cluster has stable's pods in it, which would count for the half; what
    a canary breaks, stable answers.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": _EJECTING_FAILURES,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "10s",
        "max_ejection_time": "60s",
        "max_ejection_percent": 50,
        "always_eject_one_host": False,
        "successful_active_health_check_uneject_host": False,
    }


def _endpoint(protocol: _Protocol, host: str) -> dict[str, Any]:
    """A server's port; its health is always asked over HTTP."""
    return {"address": address(host, protocol.port), "health_check_config": {"port_value": PORT}}


def _duration(seconds: float) -> str:
    """As Envoy reads it: decimal, never with an exponent."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def address(host: str, port: int) -> dict[str, Any]:
    """A socket, as Envoy's configuration has it."""
    return {"socket_address": {"address": host, "port_value": port}}
