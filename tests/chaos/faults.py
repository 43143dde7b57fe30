"""The faults: each is a strike at something in a running cluster, and what it may cost.

A strike returns when the fault is over; what it broke may still be mending itself.
"""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from demo.environment import SERIN_NAMESPACE, Cluster
from demo.manifests import KIND
from tests.chaos.node import Node
from tests.e2e.cluster import Manifest, select
from tests.e2e.deployments import LABEL, ModelDeployment, eventually
from tests.e2e.installed import Operator

FAILOVER_SECONDS = 15.0
API_SERVER_PORT = 6443
API_SERVER_AWAY_SECONDS = 60.0
HUNG_SECONDS = 25.0  # longer than the longest request
SERVER = "server"  # the container in a model server's pod
ROUTER = "envoy"  # and in a router's


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
        """A pod of an arm, as soon as so many are ready."""
        eventually(lambda: len(self.arm(name)) >= count, 90)
        return random.choice(self.arm(name))


@dataclass(frozen=True)
class Fault:
    """`strike` once.

    exact: every answered request is evidence exactly once; else the last ones of a pod that died may be missing.
    cut_off: requests that a strike may break because they, or their connections, were inside what was killed.
    harms_canary: what the canary suffers is evidence against it, so that it may be rolled back.
    """

    name: str
    strike: Callable[[World, Random], None]
    exact: bool = True
    cut_off: int = 0
    harms_canary: bool = False


def nothing(world: World, _: Random) -> None:
    """Without a fault all of this holds as well."""


# --- operators ---


def kill_operator(world: World, _: Random) -> None:
    """The process that leads dies by SIGKILL; the other one is next, or a new one in the same pod."""
    leader, pod = _leader(world)
    world.node.send(pod, "operator", signal.SIGKILL)
    successor = _succeeds(world, leader)
    name = pod["metadata"]["name"]
    if not successor.startswith(name):
        # A new pod takes its place: the kubelet would wait longer after each death.
        world.cluster.kubectl("delete", "pod", name, "-n", SERIN_NAMESPACE, "--grace-period=0", "--force")


def stop_operator(world: World, _: Random) -> None:
    """The process that leads stands still until another leads, and wakes up."""
    leader, pod = _leader(world)
    with world.node.hung(pod, "operator"):
        _succeeds(world, leader)


def _leader(world: World) -> tuple[str, Manifest]:
    """Who leads, while there is another who could, and its pod."""
    pods = {pod["metadata"]["name"]: pod for pod in world.operator.wait_replicas(2)}
    leader = world.operator.wait_leader()
    world.mdep.wait("the one that leads acts", lambda s: s.get("operator") == leader)
    return leader, pods[leader.rpartition("_")[0]]


def _succeeds(world: World, leader: str) -> str:
    """Who acts next, by its name on the status; that takes so many seconds at most."""
    at = time.monotonic()
    status = world.mdep.wait("another operator acts", lambda s: s["operator"] != leader, 2 * FAILOVER_SECONDS)
    took = time.monotonic() - at
    world.failovers.append(Failover(leader, status["operator"], took))
    assert took < FAILOVER_SECONDS, f"another operator acted after {took:.1f} s"
    return str(status["operator"])


# --- the control plane and the node ---


def api_server_down(world: World, _: Random) -> None:
    with world.node.without("kube-apiserver"):
        time.sleep(API_SERVER_AWAY_SECONDS)


def restart_etcd(world: World, _: Random) -> None:
    with world.node.without("etcd"):
        pass


def restart_kubelet(world: World, _: Random) -> None:
    with world.node.without("kubelet"):
        pass


def cut_watches(world: World, _: Random) -> None:
    """Every connection to the API server breaks, whoever's it is."""
    assert str(API_SERVER_PORT) in world.node.cut_connections(API_SERVER_PORT)


# --- what others write ---


def corrupt_route(world: World, _: Random) -> None:
    """Somebody breaks the router's files by hand."""
    mdep, nonsense = world.mdep, "{ this: is no route"
    name = ("configmap", f"{mdep.name}-router")
    broken = dict.fromkeys(world.cluster.get(*name, mdep.namespace)["data"], nonsense)
    patch = json.dumps({"data": broken})
    world.cluster.kubectl("patch", *name, "-n", mdep.namespace, "--type=merge", "-p", patch)
    eventually(lambda: nonsense not in str(world.cluster.get(*name, mdep.namespace)["data"]))


def upgrade_definition(world: World, random: Random) -> None:
    """A newer definition comes, with a field that the operator does not know, and after a while the old one again."""
    old = json.loads(world.cluster.kubectl("get", "crd", KIND, "-o", "json"))
    del old["metadata"]["resourceVersion"]
    new = json.loads(json.dumps(old))
    [version] = new["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    fields["later"] = {"type": "string", "description": "Of a version to come."}
    world.cluster.kubectl("replace", "-f", "-", stdin=json.dumps(new))
    try:
        time.sleep(random.uniform(1, 4))
    finally:
        world.cluster.kubectl("replace", "-f", "-", stdin=json.dumps(old))


# --- routers and model servers ---


def kill_router(world: World, random: Random) -> None:
    eventually(lambda: len(world.pods("router")) >= 2, 90)
    world.node.send(random.choice(world.pods("router")), ROUTER, signal.SIGKILL)


def kill_stable(world: World, random: Random) -> None:
    world.node.send(world.one_of("stable", 2, random), SERVER, signal.SIGKILL)


def exhaust_stable(world: World, random: Random) -> None:
    _exhaust(world, world.one_of("stable", 2, random))


def exhaust_canary(world: World, random: Random) -> None:
    _exhaust(world, world.one_of("canary", 1, random))


def hang_stable(world: World, random: Random) -> None:
    """It accepts connections and never answers."""
    with world.node.hung(world.one_of("stable", 2, random), SERVER):
        time.sleep(HUNG_SECONDS)


def hang_canary(world: World, random: Random) -> None:
    with world.node.hung(world.one_of("canary", 1, random), SERVER):
        time.sleep(HUNG_SECONDS)


def _exhaust(world: World, pod: Manifest) -> None:
    world.node.exhaust_memory(pod, SERVER)
    name = pod["metadata"]["name"]
    eventually(lambda: "OOMKilled" in json.dumps(world.cluster.get("pod", name, world.mdep.namespace)["status"]))


FAULTS = [
    Fault("nothing", nothing),
    Fault("operator killed", kill_operator),
    Fault("operator stopped and woken", stop_operator),
    Fault("API server down 60 s", api_server_down),
    Fault("etcd restarted", restart_etcd),
    Fault("connections to the API server cut", cut_watches),
    Fault("kubelet restarted", restart_kubelet),
    Fault("router's files corrupted", corrupt_route),
    Fault("definition upgraded", upgrade_definition),
    Fault("router killed", kill_router, exact=False, cut_off=20),
    Fault("stable pod killed", kill_stable, exact=False),
    Fault("stable pod out of memory", exhaust_stable, exact=False),
    Fault("canary pod out of memory", exhaust_canary, exact=False, harms_canary=True),
    Fault("stable pod hung", hang_stable, exact=False),
    Fault("canary pod hung", hang_canary, exact=False, harms_canary=True),
]


def _ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
