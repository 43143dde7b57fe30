"""The model server's pods are replaced again and again under load: each lets its requests end before it goes."""

from collections.abc import Callable
from typing import Any

RPS = 200
RESTARTS = 20
MOST_SECONDS = 120  # for one restart


def test_no_request_is_lost_over_rolling_restarts(serving: Callable[..., Any]) -> None:
    with serving("restarted", RPS, model="better") as (mdep, traffic):
        deployment = f"deployment/{mdep.name}-{mdep.status['stable']['revision']}"
        for _ in range(RESTARTS):
            mdep.cluster.kubectl("rollout", "restart", deployment, "-n", mdep.namespace)
            mdep.cluster.kubectl("rollout", "status", deployment, "-n", mdep.namespace, f"--timeout={MOST_SECONDS}s")
        stats = traffic.stats()
        assert stats["failed"] == 0, stats["errors"]
