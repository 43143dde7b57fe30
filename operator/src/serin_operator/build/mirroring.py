"""Copies of requests for a canary that no client gets an answer of, as plain values for Envoy.

They go through clusters of their own, `mirror-<revision>`, that hold few of them at once: what one can not take is not
copied, and no client waits for it. A copy is never sent again, and its answer is dropped.

Both copies carry a mark and one `x-request-id`, by which the model servers tell that they answer the same request.
"""

from dataclasses import dataclass
from typing import Any

from serin_operator.build.owner import LARGEST_BODY

# Copies that one router has under way at once, of each protocol: what a canary that hangs can cost it in memory and
# connections. One that answers within 10 ms gets 6,400 a second.
MIRRORED_AT_ONCE = 64
# Over the limit of what is held for a canary that does not read, the request itself would have to wait.
_HELD = 2 * LARGEST_BODY
GRPC_SERVICE, GRPC_METHOD = "inference.GRPCInferenceService", "ModelInfer"


@dataclass(frozen=True, slots=True)
class Copies:
    """Which requests of a protocol may be copied, and how a connection takes them."""

    match: dict[str, Any]
    connection: dict[str, Any]


# A body that is larger than what may be held, or whose size is not told before, is not copied.
OF_HTTP = Copies(
    match={
        "safe_regex": {"regex": "/v2/models/[^/]+(/versions/[^/]+)?/infer"},
        "headers": [
            {"name": ":method", "string_match": {"exact": "POST"}},
            {"name": "content-length", "range_match": {"start": 0, "end": LARGEST_BODY + 1}},
        ],
    },
    connection={},
)
# gRPC tells no size before. A message begins with its length, by which stable refuses a larger one: then no more comes.
OF_GRPC = Copies(
    match={"path": f"/{GRPC_SERVICE}/{GRPC_METHOD}"},
    # One at a time, as in HTTP/1.1: what is on a connection for a canary that promised to read it, and does not, would
    # hold up other requests. The window is also the limit of what is held of a request that it did not promise to read.
    connection={"max_concurrent_streams": 1, "initial_stream_window_size": _HELD},
)


def mirror_cluster_of(revision: str) -> str:
    """The cluster that takes copies of requests to a revision's pods, and few at once."""
    return f"mirror-{revision}"


def few(cluster: dict[str, Any]) -> dict[str, Any]:
    """The cluster with room for few requests, each held whole."""
    limits = {
        "max_connections": MIRRORED_AT_ONCE,
        "max_pending_requests": MIRRORED_AT_ONCE,
        "max_requests": MIRRORED_AT_ONCE,
        "max_retries": 0,
    }
    return cluster | {
        "circuit_breakers": {"thresholds": [{"priority": "DEFAULT", **limits}]},
        "per_connection_buffer_limit_bytes": _HELD,
        "health_checks": [],  # the name has the ready pods only, and nobody waits for a copy that fails
    }
