"""Faults of the metrics source, which only the operators suffer: the pods' own metrics, and Prometheus.

What is counted goes on being counted, so all of it is evidence in the end.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from random import Random

from tests.chaos.between import Way
from tests.chaos.world import SERVER, World
from tests.e2e import prometheus_server
from tests.e2e.cluster import Manifest, select
from tests.e2e.deployments import Status, condition

AWAY_SECONDS = 15.0
SERVER_PORT = 8080
PROMETHEUS_PORT = 9090
LATE_SECONDS = 5.0  # too late for a scrape, not for an answer of Prometheus


def refused(world: World, _: Random) -> None:
    """No model server can be asked for its metrics; each goes on answering requests."""
    _scrapes(world, lambda way: way.refused())


def late(world: World, _: Random) -> None:
    _scrapes(world, lambda way: way.late(LATE_SECONDS))


def nonsense(world: World, _: Random) -> None:
    _scrapes(world, lambda way: way.nonsense())


def prometheus_down(world: World, _: Random) -> None:
    """It goes, with all that it had counted, and comes back empty."""
    prometheus_server.scale(world.cluster, world.mdep.namespace, 0)
    try:
        _out_of_sight(world)
    finally:
        prometheus_server.scale(world.cluster, world.mdep.namespace, 1)


def prometheus_late(world: World, _: Random) -> None:
    with _to_prometheus(world).late(LATE_SECONDS):
        time.sleep(AWAY_SECONDS)


def prometheus_nonsense(world: World, _: Random) -> None:
    with _to_prometheus(world).nonsense():
        _out_of_sight(world)


def _scrapes(world: World, trouble: Callable[[Way], AbstractContextManager[None]]) -> None:
    """The operators have this trouble with every model server that there is."""
    with ExitStack() as troubles:
        for pod in world.pods("server"):
            troubles.enter_context(trouble(_way(world, pod, SERVER, SERVER_PORT)))
        _out_of_sight(world)


def _out_of_sight(world: World) -> None:
    """For a while, from when Serin says that it cannot see. A canary that it has just rolled back is not looked at."""

    def noticed(status: Status) -> bool:
        return condition(status, "MetricsAvailable").get("status") == "False" or "canary" not in status

    world.mdep.wait("it cannot see", noticed, 30)
    time.sleep(AWAY_SECONDS)


def _to_prometheus(world: World) -> Way:
    labels = f"app.kubernetes.io/name={prometheus_server.NAME}"
    [pod] = select(world.cluster, "pods", world.mdep.namespace, labels)
    return _way(world, pod, prometheus_server.NAME, PROMETHEUS_PORT)


def _way(world: World, pod: Manifest, container: str, port: int) -> Way:
    operators = [pod["status"]["podIP"] for pod in world.operator.wait_replicas(2)]
    return Way(world.node.network_of(pod, container), operators, called=port, listening=("127.0.0.1", port))
