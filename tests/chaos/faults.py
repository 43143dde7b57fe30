"""The faults: each is a strike at something in a running cluster. Those of the metrics source are in `metrics`.

A strike returns when the fault is over; what it broke may still be mending itself.
"""

import json
import signal
import time
from random import Random

from demo.environment import SERIN_NAMESPACE
from demo.manifests import KIND
from tests.chaos import metrics
from tests.chaos.between import Way
from tests.chaos.somebody import Somebody
from tests.chaos.world import BACK_OFF_SECONDS, ROUTER, SERVER, Failover, Fault, World
from tests.cluster.local.layout import NODE_IP
from tests.e2e.cluster import Manifest
from tests.e2e.deployments import eventually

FAILOVER_SECONDS = 15.0
API_SERVER_PORT = 6443
API_SERVER_AWAY_SECONDS = 60.0
SLOW_SECONDS = 2.0
SLOW_FOR_SECONDS = 24.0
HUNG_SECONDS = 25.0  # longer than the longest request
WRITES = 100  # of each object
WRITES_EVERY_SECONDS = 0.1


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


def api_server_slow(world: World, _: Random) -> None:
    """For the operators every answer takes so long, and a new connection as long again."""
    operators = [pod["status"]["podIP"] for pod in world.operator.wait_replicas(2)]
    way = Way(world.node.network, operators, called=443, listening=(NODE_IP, API_SERVER_PORT))
    with way.late(SLOW_SECONDS):
        time.sleep(SLOW_FOR_SECONDS)


def restart_etcd(world: World, _: Random) -> None:
    with world.node.without("etcd"):
        pass


def restart_kubelet(world: World, _: Random) -> None:
    """A new kubelet of Kubernetes 1.34 calls every pod of its node not ready until it has probed it.

    With all routers on one node their Service has no endpoint for that moment, and refuses new connections.
    """
    with world.node.without("kubelet"):
        pass


def cut_watches(world: World, _: Random) -> None:
    """Every connection to the API server breaks, whoever's it is."""
    assert str(API_SERVER_PORT) in world.node.cut_connections(API_SERVER_PORT)


# --- what others write ---


def write_into_it(world: World, _: Random) -> None:
    """Somebody else writes many times a second what Serin writes: the resource, its status, its objects' fields."""
    mdep, name = world.mdep, world.mdep.name
    stable = f"deployments/{name}-{mdep.status['stable']['revision']}"
    with Somebody.of(world.node, mdep.namespace) as somebody:
        before = somebody.read("apps/v1", stable)["spec"]
        for number in range(WRITES):
            _write_everywhere(somebody, world, number)
            time.sleep(WRITES_EVERY_SECONDS)
        eventually(lambda: somebody.read("apps/v1", stable)["spec"] == before)


def _write_everywhere(somebody: Somebody, world: World, number: int) -> None:
    """Where a field is Serin's, its value is another one each time. No pod comes or goes for it."""
    name, resource = world.mdep.name, f"modeldeployments/{world.mdep.name}"
    mark = {"annotations": {"example.com/number": str(number)}, "labels": {"example.com/number": str(number)}}
    taken = {**mark, "labels": {"app.kubernetes.io/managed-by": f"somebody-{number}"}}
    surge = {"strategy": {"rollingUpdate": {"maxSurge": 2 + number % 3}}}
    somebody.patch("serin.dev/v1alpha1", resource, {"metadata": mark})
    somebody.patch("serin.dev/v1alpha1", f"{resource}/status", {"status": {"readyReplicas": number % 3}})
    somebody.patch("v1", f"services/{name}", {"metadata": taken})
    somebody.patch("v1", f"configmaps/{name}-router", {"metadata": taken})
    for arm in {"stable", "canary"} & world.mdep.status.keys():
        deployment = f"deployments/{name}-{world.mdep.status[arm]['revision']}"
        somebody.patch("apps/v1", deployment, {"metadata": mark, "spec": surge})


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
    eventually(lambda: len(world.pods("router")) >= 2, BACK_OFF_SECONDS)
    _kill(world, random.choice(world.pods("router")), ROUTER)


def kill_stable(world: World, random: Random) -> None:
    _kill(world, world.one_of("stable", 2, random), SERVER)


def kill_canary(world: World, random: Random) -> None:
    _kill(world, world.one_of("canary", 1, random), SERVER)


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


def reset_counters(world: World, random: Random) -> None:
    """What Prometheus scrapes begins from 0 again, in both arms."""
    kill_stable(world, random)
    kill_canary(world, random)


def _kill(world: World, pod: Manifest, container: str) -> None:
    """Over when the kubelet has noticed: until then the pod is called ready, and the next strike would count on it."""
    name, identity = pod["metadata"]["name"], _identity(pod, container)
    world.node.send(pod, container, signal.SIGKILL)

    def noticed() -> bool:
        found = world.cluster.kubectl(
            "get", "pod", name, "-n", world.mdep.namespace, "--ignore-not-found", "-o", "json"
        )
        return not found or _identity(json.loads(found), container) != identity

    eventually(noticed)


def _identity(pod: Manifest, container: str) -> str | None:
    """Of the container's present process; None while it has none."""
    [status] = [one for one in pod["status"]["containerStatuses"] if one["name"] == container]
    identity: str | None = status["state"].get("running") and status["containerID"]
    return identity


def _exhaust(world: World, pod: Manifest) -> None:
    world.node.exhaust_memory(pod, SERVER)
    name = pod["metadata"]["name"]
    eventually(lambda: "OOMKilled" in json.dumps(world.cluster.get("pod", name, world.mdep.namespace)["status"]))


FAULTS = [
    Fault("nothing", nothing),
    Fault("operator killed", kill_operator),
    Fault("operator stopped and woken", stop_operator),
    Fault("API server down 60 s", api_server_down),
    Fault("API server slow (2 s)", api_server_slow),
    Fault("etcd restarted", restart_etcd),
    Fault("connections to the API server cut", cut_watches),
    Fault("kubelet restarted", restart_kubelet, cut_off=100),
    Fault("conflicting writes", write_into_it),
    Fault("router's files corrupted", corrupt_route),
    Fault("definition upgraded", upgrade_definition),
    Fault("router killed", kill_router, exact=False, cut_off=20),
    Fault("stable pod killed", kill_stable, exact=False),
    Fault("canary pod killed", kill_canary, exact=False, harms_canary=True),
    Fault("stable pod out of memory", exhaust_stable, exact=False),
    Fault("canary pod out of memory", exhaust_canary, exact=False, harms_canary=True),
    Fault("stable pod hung", hang_stable, exact=False),
    Fault("canary pod hung", hang_canary, exact=False, harms_canary=True),
    Fault("metrics refused", metrics.refused),
    Fault("metrics late", metrics.late),
    Fault("metrics nonsense", metrics.nonsense),
    Fault("Prometheus down, its counts lost", metrics.prometheus_down, prometheus=True),
    Fault("Prometheus late", metrics.prometheus_late, prometheus=True),
    Fault("Prometheus nonsense", metrics.prometheus_nonsense, prometheus=True),
    Fault("counters reset under Prometheus", reset_counters, exact=False, harms_canary=True, prometheus=True),
]
