"""The operator as it is installed: who of its replicas leads, their metrics, and their deaths."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from demo.environment import OPERATORS, RELEASE, SERIN_NAMESPACE, Cluster, image
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.e2e.cluster import Manifest, environment, select
from tests.e2e.deployments import ModelDeployment, Status

_PORT = 8080
_REAPER = "reaper"
_START_SECONDS = 60
# Runs in a pod that shares the node's process table. It looks the process up when it is told a container's id, so that
# a signal takes no time. SIGKILL and SIGSTOP do nothing from inside a process's own container, where it is number 1.
_REAPER_PROGRAM = """
import os, signal, sys
from pathlib import Path
target = 0
def find(container):
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or container not in (entry / "cgroup").read_text():
                continue
            if b"serin_operator" in (entry / "cmdline").read_bytes():
                return int(entry.name)
        except OSError:
            pass
    return 0
print("here", flush=True)
for line in sys.stdin:
    word, _, container = line.strip().partition(" ")
    if word == "aim":
        target = find(container)
        print("aimed", target, flush=True)
    elif target:
        os.kill(target, signal.Signals[word])
        print("sent", target, flush=True)
    else:
        print("no target", flush=True)
"""


@dataclass
class Operator:
    """The running operators. What is asked of one is asked of the one that leads."""

    cluster: Cluster

    def pods(self) -> list[Manifest]:
        """The pods that are ready and about to stay."""
        return [
            pod
            for pod in select(self.cluster, "pods", SERIN_NAMESPACE, OPERATORS)
            if "deletionTimestamp" not in pod["metadata"]
            and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
        ]

    def leader(self) -> str:
        """Who has the Lease: a pod's name, and after it a word for the process; empty when nobody has."""
        return str(self.cluster.get("lease", RELEASE, SERIN_NAMESPACE)["spec"].get("holderIdentity", ""))

    def wait_leader(self, *others: str) -> str:
        """Who leads, as soon as it is none of these."""
        deadline = time.monotonic() + _START_SECONDS
        while (leader := self.leader()) in ("", *others):
            assert time.monotonic() < deadline, f"nobody but {others} leads after {_START_SECONDS} s"
            time.sleep(0.1)
        return leader

    def pod(self) -> Manifest | None:
        """The ready pod that leads, if there is one."""
        leader = self.leader().rpartition("_")[0]
        return next((pod for pod in self.pods() if pod["metadata"]["name"] == leader), None)

    def wait_ready(self) -> Manifest:
        """The pod that leads, as soon as one does."""
        deadline = time.monotonic() + _START_SECONDS
        while (pod := self.pod()) is None:
            assert time.monotonic() < deadline, f"no ready operator leads after {_START_SECONDS} s"
            time.sleep(0.3)
        return pod

    def wait_replicas(self, count: int) -> list[Manifest]:
        """The pods, as soon as so many are ready."""
        deadline = time.monotonic() + _START_SECONDS
        while len(pods := self.pods()) != count:
            assert time.monotonic() < deadline, f"{len(pods)} operators are ready after {_START_SECONDS} s"
            time.sleep(0.3)
        return pods

    def memory(self) -> float:
        """Bytes that its process has in memory."""
        [sample] = self._samples("process_resident_memory_bytes")
        return sample.value

    def api_calls(self) -> Counter[str]:
        """How many calls of each kind it has sent to the API server since it started, watches and its Lease aside."""
        calls: Counter[str] = Counter()
        for sample in self._samples("serin_operator_api_calls_total"):
            if sample.labels["kind"] != "Lease":
                calls[f"{sample.labels['verb']} {sample.labels['kind']}"] += int(sample.value)
        return calls

    def leads(self, pod: str) -> bool:
        """Whether this pod says that it acts."""
        [sample] = self._samples("serin_operator_leading", pod)
        return sample.value == 1

    def health(self, pod: str) -> str:
        """What this pod says of itself."""
        return self.cluster.kubectl("get", "--raw", f"{_proxy(pod)}/healthz").strip()

    def _samples(self, name: str, pod: str = "") -> list[Sample]:
        path = f"{_proxy(pod or self.wait_ready()['metadata']['name'])}/metrics"
        families = text_string_to_metric_families(self.cluster.kubectl("get", "--raw", path))
        return [sample for family in families for sample in family.samples if sample.name == name]


def _proxy(pod: str) -> str:
    return f"/api/v1/namespaces/{SERIN_NAMESPACE}/pods/{pod}:{_PORT}/proxy"


def reaper_manifest(namespace: str) -> Manifest:
    """A pod that sees the node's processes and may kill them."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _REAPER, "namespace": namespace},
        "spec": {
            "hostPID": True,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": _REAPER,
                    "image": image("demo"),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                    "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
                }
            ],
        },
    }


class Reaper:
    """Ends or stops the operator that leads by a signal, at once when it is asked to."""

    def __init__(self, cluster: Cluster, namespace: str, operator: Operator) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._operator = operator
        self._process: subprocess.Popen[str] | None = None
        self._pod: Manifest = {}

    def __enter__(self) -> Self:
        command = ("kubectl", "exec", "-i", "-n", self._namespace, _REAPER, "--", "python", "-u", "-c")
        self._process = subprocess.Popen(
            [*command, _REAPER_PROGRAM],
            env=environment(self._cluster),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self._line() == "here"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def aim(self) -> None:
        """Waits for a ready operator that leads and finds its process."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            self._pod = self._operator.wait_ready()
            [container] = self._pod["status"]["containerStatuses"]
            container_id = container["containerID"].partition("://")[2]
            answer = self._ask(f"aim {container_id}")
            word, _, pid = answer.partition(" ")
            if word == "aimed" and int(pid) > 0:
                return
            # The kubelet tells of a new container some moments after it has started it.
            assert time.monotonic() < deadline, f"the operator's process was not found: {answer}"
            time.sleep(0.2)

    def kill(self) -> float:
        """Sends SIGKILL. Returns the time of it. Call `replace` next where its pod shall go too."""
        return self.send("SIGKILL")

    def send(self, signal: str) -> float:
        """Sends a signal to the process that was found last. Returns the time of it."""
        answer = self._ask(signal)
        assert answer.startswith("sent"), answer
        return time.time()

    def replace(self) -> None:
        """Sees that the process is dead by signal 9, and has a new pod take its place.

        The kubelet would start it again in the same pod, but waits longer after each death.
        """
        name = self._pod["metadata"]["name"]
        deadline = time.monotonic() + _START_SECONDS
        while (code := self._exit_code(name)) is None:
            assert time.monotonic() < deadline, "the kubelet does not tell how the operator ended"
            time.sleep(0.2)
        assert code == 137, f"the operator ended with {code} instead of by SIGKILL"
        self._cluster.kubectl("delete", "pod", name, "-n", SERIN_NAMESPACE, "--grace-period=0", "--force")

    def _exit_code(self, name: str) -> int | None:
        pod = self._cluster.get("pod", name, SERIN_NAMESPACE)
        [container] = pod["status"]["containerStatuses"]
        for state in (container.get("state", {}), container.get("lastState", {})):
            if "terminated" in state:
                return int(state["terminated"]["exitCode"])
        return None

    def _ask(self, line: str) -> str:
        assert self._process
        stream = self._stream(self._process.stdin)
        stream.write(line + "\n")
        stream.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process
        return str(self._stream(self._process.stdout).readline().strip())

    @staticmethod
    def _stream(stream: IO[Any] | None) -> IO[Any]:
        assert stream is not None
        return stream


def kill_when(
    mdep: ModelDeployment, reaper: Reaper, what: str, holds: Callable[[Status], bool], seconds: float = 60
) -> Status:
    """Kill the operator in the moment that the status says this, then wait for its successor and aim at that."""
    status = mdep.wait(what, holds, seconds)
    reaper.kill()
    reaper.replace()
    reaper.aim()
    return status
