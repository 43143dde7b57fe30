"""What the chaos suite shares: the end-to-end tests' cluster and operator, the node itself, the seed and the ledger."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from random import Random, SystemRandom
from typing import Any

import pytest
from demo.environment import Cluster
from tests.chaos.ledger import Ledger
from tests.chaos.node import Node
from tests.chaos.trial import METRICS, Trial
from tests.chaos.world import Fault, World
from tests.e2e import prometheus_server
from tests.e2e.conftest import NewModelDeployment, cluster, namespace, new_model_deployment, operator, vouched, watch
from tests.e2e.figures import Figures
from tests.e2e.installed import Operator
from tests.e2e.traffic import Traffic

RPS = 200
MOST_UNDER_WAY = 4000  # requests: a router that stands still for seconds is waited for, not spared
Serve = Callable[[Fault], AbstractContextManager[Trial]]
_LEDGER = pytest.StashKey[Ledger]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They are end-to-end tests that nobody runs by chance."""
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.cluster_chaos)


def pytest_configure(config: pytest.Config) -> None:
    seed = int(os.environ.get("SERIN_CHAOS_SEED") or SystemRandom().randrange(10**6))
    config.stash[_LEDGER] = Ledger(seed)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table, whatever became of the tests."""
    ledger = config.stash[_LEDGER]
    if ledger.entries:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(ledger.table()))


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Ledger:
    return pytestconfig.stash[_LEDGER]


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Iterator[Node]:
    try:
        node = Node.of_environment(cluster.kubeconfig)
    except RuntimeError as error:
        pytest.exit(str(error), returncode=1)
    yield node
    node.wake_all()


@pytest.fixture(scope="session")
def prometheus(cluster: Cluster, namespace: str) -> str:
    """The address of a Prometheus server that is ready."""
    return prometheus_server.install(cluster, namespace)


@pytest.fixture(scope="session")
def serve(
    cluster: Cluster,
    node: Node,
    operator: Operator,
    new_model_deployment: NewModelDeployment,
    ledger: Ledger,
    request: pytest.FixtureRequest,
) -> Serve:
    """A context: two pods of the first model and two routers under steady traffic, for a fault to strike at."""

    @contextmanager
    def serve(fault: Fault) -> Iterator[Trial]:
        name = re.sub("[^a-z0-9]+", "-", fault.name.lower()).strip("-")
        source = request.getfixturevalue("prometheus") if fault.prometheus else None
        mdep = new_model_deployment(name, prometheus=source)
        mdep.spec["server"] = {"replicas": 2, "resources": {"limits": {"memory": "512Mi"}}}
        mdep.spec["traffic"]["router"] = {"replicas": 2}
        # What else runs on a small machine slows a canary's one pod more than two of stable, and is no fault here.
        mdep.spec["analysis"]["metrics"] = [one for one in mdep.spec["analysis"]["metrics"] if one["name"] in METRICS]
        traffic = Traffic(cluster, mdep.namespace, name, Figures())
        random = Random(f"{ledger.seed} {fault.name}")
        # For minutes after an outage of the API server the node, and with it every pod, may count as not ready.
        cluster.kubectl("wait", "node", "--all", "--for=condition=Ready", "--timeout=300s", timeout=310)
        try:
            mdep.wait_serving(mdep.serve("first"))
            traffic.start(RPS, most_under_way=MOST_UNDER_WAY)
            yield Trial(World(cluster, node, operator, mdep), traffic, RPS, fault, random, ledger.entry(fault.name))
        finally:
            mdep.delete(wait=False)
            traffic.remove()

    return serve
