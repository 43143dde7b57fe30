"""Where faults strike, and what each may cost."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from demo.environment import Cluster
from tests.chaos.node import Node
from tests.e2e.cluster import Manifest, select
from tests.e2e.deployments import LABEL, ModelDeployment, eventually
from tests.e2e.installed import Operator

from serin_operator.build.listeners import STATUS_PORT
from serin_operator.observe.routers import healthy_hosts

SERVER = "server"  # the container in a model server's pod
ROUTER = "envoy"  # and in a router's
_HOSTS = "/clusters?format=json"
BACK_OFF_SECONDS = 150  # more than the kubelet waits before it starts a container that has died four times


@dataclass(frozen=True)
class Failover:
    """Who acted after whom, by the names on the status."""

    leader: str
    successor: str
    seconds: float


@dataclass(frozen=True)
class World:
    """Where faults strike."""

    cluster: Cluster
    node: Node
    operator: Operator
    mdep: ModelDeployment
    failovers: list[Failover] = field(default_factory=list)

    def pods(self, component: str, revision: str | None = None) -> list[Manifest]:
        """The ready pods of a component."""
        labels = f"{LABEL}={self.mdep.name},serin.dev/component={component}"
        labels += f",serin.dev/revision={revision}" if revision else ""
        return [pod for pod in select(self.cluster, "pods", self.mdep.namespace, labels) if _ready(pod)]

    def arm(self, name: str) -> list[Manifest]:
        """The ready pods of the stable or the canary revision; none where there is no such revision."""
        status = self.mdep.status
        return self.pods("server", status[name]["revision"]) if name in status else []

    def one_of(self, name: str, count: int, random: Random) -> Manifest:
        """A pod of an arm, as soon as so many are ready, and every router knows."""
        eventually(lambda: len(self.arm(name)) >= count and self._least_known(name) >= count, BACK_OFF_SECONDS)
        return random.choice(self.arm(name))

    def _least_known(self, name: str) -> int:
        """How many healthy pods of an arm each router has at least."""
        revision = self.mdep.status[name]["revision"]
        found = [self.node.get(f"http://{pod['status']['podIP']}:{STATUS_PORT}{_HOSTS}") for pod in self.pods("router")]
        return min((healthy_hosts(json.loads(each or "{}"))[revision] for each in found), default=0)


@dataclass(frozen=True)
class Fault:
    """`strike` once.

    exact: every answered request is evidence exactly once; else the last ones of a pod that died may be missing.
    cut_off: requests that a strike may break: they, or their connections, were inside what was killed, or no router was
        to be found.
    harms_canary: what the canary suffers is evidence against it, so that it may be rolled back.
    prometheus: the source of evidence.
    """

    name: str
    strike: Callable[[World, Random], None]
    exact: bool = True
    cut_off: int = 0
    harms_canary: bool = False
    prometheus: bool = False


def _ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
