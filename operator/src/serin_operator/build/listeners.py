"""Envoy's static file, as plain values: its listeners, and where the files are that change (see `envoy`).

A change here replaces the router pods, one after the other; none of `envoy`'s does.
"""

from typing import Any

from serin_operator.api.spec import Traffic
from serin_operator.build.callers import TYPE, caller_mutations
from serin_operator.build.envoy import ROUTES, address
from serin_operator.build.owner import PORT

FILES = "/etc/serin/router"
STATUS_PORT = 9902
ADMIN_PORT = 9901
_STATUS_PATHS = ("/ready", "/stats/prometheus", "/config_dump", "/clusters")


def bootstrap(traffic: Traffic) -> dict[str, Any]:
    """The static part: two listeners, and where the files are that change."""
    return {
        "node": {"id": "router", "cluster": "serin"},
        "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {"cds_config": _watched("cds.json")},
        "static_resources": {
            "listeners": [_inference_listener(traffic), _status_listener()],
            "clusters": [_admin_cluster()],
        },
    }


def _inference_listener(traffic: Traffic) -> dict[str, Any]:
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
            **_first_mutations(traffic),
        },
    )


def _first_mutations(traffic: Traffic) -> dict[str, Any]:
    """Changes of headers before a route is looked for."""
    mutations = caller_mutations(traffic.sticky)
    if not mutations:
        return {}
    kind = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return {
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {"@type": f"{TYPE}{kind}", "mutations": mutations},
            }
        ]
    }


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
        "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"},
    }
    return {
        "name": name,
        "address": address("0.0.0.0", port),  # noqa: S104 - a pod's own address
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {"@type": f"{TYPE}{kind}", **manager, "http_filters": [router]},
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
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address("127.0.0.1", ADMIN_PORT)}}]}],
        },
    }


def _watched(file: str) -> dict[str, Any]:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"{FILES}/{file}", "watched_directory": {"path": FILES}},
    }
