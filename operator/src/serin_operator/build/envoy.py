"""Envoy's three files as plain values: bootstrap (static), clusters (CDS) and routes (RDS).

Clusters are named by revision, never by role, so that a promotion changes routes only. The canary is reached
through a second cluster of its own, `canary-<revision>`, whose lower priority is the stable revision: what the
canary fails to answer is answered by stable, and no client sees a canary's error. Retries carry
`x-envoy-attempt-count`, by which the model servers keep them out of the evidence.

A canary may also be shown copies of requests that stable answers. They go through a third cluster, `mirror-<revision>`,
that holds few of them at once: what it can not take is not copied, and no client waits for it. Both copies carry the
mark SHADOW_MARK and one `x-request-id`, by which the model servers tell that they are answers to the same request.
"""

from typing import Any

from serin_operator.build.owner import PORT, Owner
from serin_operator.decide.observed import Route

FILES = "/etc/serin/router"
STATUS_PORT = 9902
ADMIN_PORT = 9901
ROUTES = "inference"
CANARY_ROUTE = "canary"
SHADOW_ROUTE = "shadow"
STABLE_ROUTE = "stable"
SHADOW_MARK = "x-serin-shadow"
_TYPE = "type.googleapis.com/"
_RETRY_BODY_LIMIT = 8 * 1024 * 1024  # what the model server takes; a larger body can not be sent twice
_STATUS_PATHS = ("/ready", "/stats/prometheus", "/config_dump", "/clusters")

# Copies that one router has under way at once: what a canary that hangs can cost it in memory and connections. One that
# answers within 10 ms gets 6,400 a second.
MIRRORED_AT_ONCE = 64
_INFER = "/v2/models/[^/]+(/versions/[^/]+)?/infer"

# A canary's 4xx also goes to stable: a model with another input schema answers 400 to what stable understands.
_CANARY_RETRIABLE = [400, 404, 408, 409, 413, 415, 422, 429]


def cluster_of(revision: str) -> str:
    """The cluster that reaches a revision's pods and nothing else."""
    return f"revision-{revision}"


def canary_cluster_of(revision: str) -> str:
    """The cluster that reaches a revision's pods first and falls back to stable."""
    return f"canary-{revision}"


def mirror_cluster_of(revision: str) -> str:
    """The cluster that takes copies of requests to a revision's pods, and few at once."""
    return f"mirror-{revision}"


def bootstrap() -> dict[str, Any]:
    """The static part: two listeners, and where the files are that change."""
    return {
        "node": {"id": "router", "cluster": "serin"},
        "admin": {"address": _address("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {"cds_config": _watched("cds.json")},
        "static_resources": {
            "listeners": [_inference_listener(), _status_listener()],
            "clusters": [_admin_cluster()],
        },
    }


def clusters(
    owner: Owner, revisions: list[str], fallbacks: dict[str, str], version: str, *, mirrored: str | None = None
) -> dict[str, Any]:
    """CDS: one cluster per revision, and one more for each revision in `fallbacks` (revision → its fallback).

    mirrored: the revision that gets copies of requests, if one does.
    """
    resources = [_cluster(cluster_of(revision), [owner.server(revision)]) for revision in revisions]
    resources += [
        _cluster(canary_cluster_of(revision), [owner.server(revision), owner.server(fallback)])
        for revision, fallback in sorted(fallbacks.items())
    ]
    if mirrored is not None:
        resources.append(_mirror_cluster(mirrored, owner.server(mirrored)))
    return {"version_info": version, "resources": resources}


def routes(route: Route, timeout: float, version: str) -> dict[str, Any]:
    """RDS: feedback to stable, `weight` per cent to the canary, the rest to stable. `timeout` in seconds.

    Of what goes to stable, `mirror` per cent of the inferences are copied to the canary.
    """
    table = [_closed_route(), _feedback_route(route, timeout)]
    if route.canary and route.weight:
        table.append(_canary_route(route.canary, route.weight, timeout))
    if route.canary and route.mirror:
        table.append(_shadow_route(route, route.canary, timeout))
    table.append(_stable_route(route, timeout))
    return {
        "version_info": version,
        "resources": [
            {
                "@type": f"{_TYPE}envoy.config.route.v3.RouteConfiguration",
                "name": ROUTES,
                "validate_clusters": False,
                "virtual_hosts": [
                    {
                        "name": ROUTES,
                        "domains": ["*"],
                        "include_request_attempt_count": True,
                        "request_body_buffer_limit": _RETRY_BODY_LIMIT,
                        "routes": table,
                    }
                ],
            }
        ],
    }


def _closed_route() -> dict[str, Any]:
    """What model servers tell each other of requests is no client's to read."""
    return {
        "name": "closed",
        "match": {"safe_regex": {"regex": "/v2/models/[^/]+/answers(/.*)?"}},
        "direct_response": {"status": 404},
    }


def _feedback_route(route: Route, timeout: float) -> dict[str, Any]:
    return {
        "name": "feedback",
        "match": {"safe_regex": {"regex": "/v2/models/[^/]+/feedback"}},
        # A reset may come after labels were counted, so only a request that no server took is sent again.
        "route": _forward(route.stable, timeout, "connect-failure,refused-stream"),
    }


def _stable_route(route: Route, timeout: float) -> dict[str, Any]:
    return {
        "name": STABLE_ROUTE,
        "match": {"prefix": "/"},
        "request_headers_to_remove": [SHADOW_MARK],
        "route": _forward(route.stable, timeout, "connect-failure,refused-stream,reset,retriable-status-codes"),
    }


def _shadow_route(route: Route, canary: str, timeout: float) -> dict[str, Any]:
    """What stable answers and the canary gets a copy of. A copy is never sent again, and its answer is dropped.

    A body that is larger than what may be held, or whose size is not told before, is not copied.
    """
    stable = _stable_route(route, timeout)
    policy = {"cluster": mirror_cluster_of(canary), "disable_shadow_host_suffix_append": True}
    return stable | {
        "name": SHADOW_ROUTE,
        "match": {
            "safe_regex": {"regex": _INFER},
            "headers": [
                {"name": ":method", "string_match": {"exact": "POST"}},
                {"name": "content-length", "range_match": {"start": 0, "end": _RETRY_BODY_LIMIT + 1}},
            ],
            "runtime_fraction": {"default_value": {"numerator": route.mirror, "denominator": "HUNDRED"}},
        },
        "request_headers_to_add": [
            {"header": {"key": SHADOW_MARK, "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
        "request_headers_to_remove": [],
        "route": stable["route"] | {"request_mirror_policies": [policy]},
    }


def _forward(revision: str, timeout: float, retry_on: str) -> dict[str, Any]:
    return {
        "cluster": cluster_of(revision),
        "timeout": _duration(timeout),
        "retry_policy": {
            "retry_on": retry_on,
            "retriable_status_codes": [503],
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{_TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
        },
    }


def _canary_route(canary: str, weight: int, timeout: float) -> dict[str, Any]:
    previous_priorities = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {
        "name": CANARY_ROUTE,
        "match": {
            "prefix": "/",
            "headers": [
                {
                    "name": "content-length",
                    "range_match": {"start": _RETRY_BODY_LIMIT + 1, "end": 2**62},
                    "invert_match": True,
                }
            ],
            "runtime_fraction": {"default_value": {"numerator": weight, "denominator": "HUNDRED"}},
        },
        "request_headers_to_remove": [SHADOW_MARK],
        "route": {
            "cluster": canary_cluster_of(canary),
            "timeout": _duration(timeout),
            "retry_policy": {
                "retry_on": "5xx,reset,connect-failure,refused-stream,retriable-status-codes",
                "retriable_status_codes": _CANARY_RETRIABLE,
                "num_retries": 1,
                "retry_priority": {
                    "name": "envoy.retry_priorities.previous_priorities",
                    "typed_config": {"@type": f"{_TYPE}{previous_priorities}", "update_frequency": 1},
                },
                "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.010s"},
                "per_try_timeout": _duration(timeout / 2),
            },
            # A canary that is slow but works may still answer: after half the time stable is asked as well.
            "hedge_policy": {"hedge_on_per_try_timeout": True},
        },
    }


def _cluster(name: str, hosts: list[str]) -> dict[str, Any]:
    dns = "envoy.extensions.clusters.dns.v3.DnsCluster"
    cares = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    return {
        "@type": f"{_TYPE}envoy.config.cluster.v3.Cluster",
        "name": name,
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "1s",
        "ignore_health_on_host_removal": True,
        "cluster_type": {
            "name": "envoy.cluster.dns",
            "typed_config": {
                "@type": f"{_TYPE}{dns}",
                "dns_refresh_rate": "1s",
                "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "1s"},
                "dns_lookup_family": "V4_PREFERRED",
                "typed_dns_resolver_config": {
                    "name": "envoy.network.dns_resolver.cares",
                    "typed_config": {
                        "@type": f"{_TYPE}{cares}",
                        "dns_resolver_options": {"no_default_search_domain": False},
                    },
                },
            },
        },
        "common_lb_config": {
            # The default holds health changes back for a second, in which requests find no healthy host.
            "update_merge_window": "0s",
            "healthy_panic_threshold": {"value": 50},
        },
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
                    "lb_endpoints": [{"endpoint": {"address": _address(host, PORT)}}],
                }
                for priority, host in enumerate(hosts)
            ],
        },
    }


def _mirror_cluster(revision: str, host: str) -> dict[str, Any]:
    few = {
        "max_connections": MIRRORED_AT_ONCE,
        "max_pending_requests": MIRRORED_AT_ONCE,
        "max_requests": MIRRORED_AT_ONCE,
        "max_retries": 0,
    }
    return _cluster(mirror_cluster_of(revision), [host]) | {
        "circuit_breakers": {"thresholds": [{"priority": "DEFAULT", **few}]},
        # Over the limit of what is held for a canary that does not read, the request itself would have to wait.
        "per_connection_buffer_limit_bytes": 2 * _RETRY_BODY_LIMIT,
        "health_checks": [],  # the name has the ready pods only, and nobody waits for a copy that fails
    }


def _inference_listener() -> dict[str, Any]:
    return _listener(
        "inference",
        PORT,
        {
            "stat_prefix": "ingress",
            "codec_type": "AUTO",
            "rds": {"config_source": _watched("rds.json"), "route_config_name": ROUTES},
            "use_remote_address": True,
            # No client is internal, so nobody's x-envoy-* headers are believed.
            "internal_address_config": {
                "unix_sockets": False,
                "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}],
            },
            "normalize_path": True,
            "merge_slashes": True,
            "stream_idle_timeout": "0s",
            "request_headers_timeout": "10s",
            "request_timeout": "0s",
            "drain_timeout": "5s",
            "common_http_protocol_options": {"idle_timeout": "300s"},
        },
    )


def _status_listener() -> dict[str, Any]:
    """A read-only window on the admin interface, which itself listens on loopback only."""
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    allowed: list[dict[str, Any]] = [
        {"match": {"path": path, "headers": get}, "route": {"cluster": "admin", "timeout": "10s"}}
        for path in _STATUS_PATHS
    ]
    refused = [{"match": {"prefix": "/"}, "direct_response": {"status": 404}}]
    return _listener(
        "status",
        STATUS_PORT,
        {
            "stat_prefix": "status",
            "codec_type": "HTTP1",
            "normalize_path": True,
            "route_config": {"virtual_hosts": [{"name": "status", "domains": ["*"], "routes": allowed + refused}]},
        },
    )


def _listener(name: str, port: int, manager: dict[str, Any]) -> dict[str, Any]:
    kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_TYPE}envoy.extensions.filters.http.router.v3.Router"},
    }
    return {
        "name": name,
        "address": _address("0.0.0.0", port),  # noqa: S104 - a pod's own address
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {"@type": f"{_TYPE}{kind}", **manager, "http_filters": [router]},
                    }
                ]
            }
        ],
    }


def _admin_cluster() -> dict[str, Any]:
    return {
        "name": "admin",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "admin",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address("127.0.0.1", ADMIN_PORT)}}]}],
        },
    }


def _duration(seconds: float) -> str:
    """As Envoy reads it: decimal, never with an exponent."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _watched(file: str) -> dict[str, Any]:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"{FILES}/{file}", "watched_directory": {"path": FILES}},
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
