"""Envoy's static file, as plain values: its listeners, and where the files are that change (see `envoy`).

A change here replaces the router pods, one after the other; none of `envoy`'s does.
"""

from typing import Any

from serin_operator.api.spec import Traffic
from serin_operator.build.callers import TYPE, caller_mutations
from serin_operator.build.envoy import ROUTES, address
from serin_operator.build.owner import PORT
from serin_operator.build.quantity import number_of

FILES = "/etc/serin/router"
STATUS_PORT = 9902
ADMIN_PORT = 9901
TLS_PORT = 8443
TLS_FILES = "/etc/serin/tls"  # where the Secret is mounted
_CERTIFICATE = "clients"
_MOST_CONNECTIONS = 10_000  # of clients, to one router
_MOST_STREAMS = 256  # requests at once on one HTTP/2 connection
# Of a router that has no limit: room for 170 of the largest requests at once, or for some 20,000 small ones.
_MOST_MEMORY = "2Gi"
# Above this part of it a new request is refused. The rest is for those under way, and for what memory is wasted.
_FULL = 0.7
_HEAP = "envoy.resource_monitors.fixed_heap"
# What a line of the log says, by Envoy's names. Requests' ids and traces are those of the servers' logs.
_LOGGED = {
    "time": "%START_TIME%",
    "message": "request",
    "method": "%REQ(:method)%",
    "path": "%REQ(x-envoy-original-path?:path)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "milliseconds": "%DURATION%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "host": "%UPSTREAM_HOST%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "request_id": "%REQ(x-request-id)%",
    "traceparent": "%REQ(traceparent)%",
}
_GRPC_FAILED = ["UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"]
_STATUS_PATHS = ("/ready", "/stats/prometheus", "/config_dump", "/clusters", "/certs")


def bootstrap(traffic: Traffic) -> dict[str, Any]:
    """The static part: the listeners, and where the files are that change."""
    tls = [_inference_listener(traffic, TLS_PORT, _tls())] if traffic.tls_secret else []
    return {
        "node": {"id": "router", "cluster": "serin"},
        "admin": {"address": address("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {"cds_config": _watched("cds.json")},
        "static_resources": {
            "listeners": [_inference_listener(traffic), *tls, _status_listener()],
            "clusters": [_admin_cluster()],
        },
        "overload_manager": _limits(traffic),
    }


def certificate() -> dict[str, Any]:
    """SDS: where Envoy finds the certificate. It reads the files again when the kubelet replaces them."""
    files = {"certificate_chain": "tls.crt", "private_key": "tls.key"}
    return {
        "resources": [
            {
                "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": _CERTIFICATE,
                "tls_certificate": {
                    # Through the link that the kubelet replaces: the files' own links come after it.
                    **{name: {"filename": f"{TLS_FILES}/..data/{file}"} for name, file in files.items()},
                    "watched_directory": {"path": TLS_FILES},
                },
            }
        ]
    }


def _inference_listener(traffic: Traffic, port: int = PORT, tls: dict[str, Any] | None = None) -> dict[str, Any]:
    return _listener(
        "inference-tls" if tls else "inference",
        port,
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
            "http2_protocol_options": {"max_concurrent_streams": _MOST_STREAMS},
            **_first_mutations(traffic),
            **_access_log(traffic.access_log),
        },
        tls,
    )


def _tls() -> dict[str, Any]:
    """TLS to clients, who may choose HTTP/2 by ALPN."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [
                    # A Secret that comes after the router makes Envoy look again.
                    {"name": _CERTIFICATE, "sds_config": _watched("sds.json", TLS_FILES)}
                ],
            },
        },
    }


def _limits(traffic: Traffic) -> dict[str, Any]:
    """A router that ran out of memory would be killed, and every request in it lost: before that it refuses new ones.

    How many requests an arm has is not limited: see `envoy`'s clusters.
    """
    kind = "envoy.extensions.resource_monitors"
    most = number_of(traffic.router_resources.get("limits", {}).get("memory", 0))
    return {
        "refresh_interval": "0.050s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{TYPE}{kind}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": _MOST_CONNECTIONS,
                },
            },
            {
                "name": _HEAP,
                "typed_config": {
                    "@type": f"{TYPE}{kind}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": most or number_of(_MOST_MEMORY),  # Kubernetes takes 0 for no limit, too
                },
            },
        ],
        "actions": [
            _action("shrink_heap", _FULL / 2),  # what is free goes back to the node
            _action("stop_accepting_requests", _FULL),
        ],
    }


def _action(name: str, threshold: float) -> dict[str, Any]:
    triggers = [{"name": _HEAP, "threshold": {"value": threshold}}]
    return {"name": f"envoy.overload_actions.{name}", "triggers": triggers}


def _access_log(sample: float | None) -> dict[str, Any]:
    """JSON lines on stdout: of all that failed and a sample of the rest."""
    if sample is None:
        return {}
    percent = {"numerator": round(sample * 1_000_000), "denominator": "MILLION"}
    drawn = {"runtime_key": "serin.access_log", "percent_sampled": percent, "use_independent_randomness": True}
    failed = {"op": "GE", "value": {"default_value": 500, "runtime_key": "serin.access_log.failed"}}
    # What is not gRPC has no such status, which Envoy takes for UNKNOWN.
    grpc = {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}}
    return {
        "access_log": [
            {
                "name": "envoy.access_loggers.stdout",
                "filter": {
                    "or_filter": {
                        "filters": [
                            {"status_code_filter": {"comparison": failed}},
                            {"and_filter": {"filters": [grpc, {"grpc_status_filter": {"statuses": _GRPC_FAILED}}]}},
                            {"runtime_filter": drawn},
                        ]
                    }
                },
                "typed_config": {
                    "@type": f"{TYPE}envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                    "log_format": {"json_format": dict(_LOGGED), "omit_empty_values": True},
                },
            }
        ]
    }


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
    status = _listener(
        "status",
        STATUS_PORT,
        {
            "stat_prefix": "status",
            "codec_type": "HTTP1",
            "normalize_path": True,
            "route_config": {"virtual_hosts": [{"name": "status", "domains": ["*"], "routes": allowed + refused}]},
        },
    )
    # Probes and scrapes go on when clients have all connections and all memory.
    return status | {"ignore_global_conn_limit": True, "bypass_overload_manager": True}


def _listener(name: str, port: int, manager: dict[str, Any], tls: dict[str, Any] | None = None) -> dict[str, Any]:
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
                ],
                **({"transport_socket": tls} if tls else {}),
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


def _watched(file: str, directory: str = FILES) -> dict[str, Any]:
    """A file that Envoy reads again when something in a directory is replaced."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": f"{FILES}/{file}", "watched_directory": {"path": directory}},
    }
