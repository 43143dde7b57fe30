"""The node of the local cluster: its components and the processes in its pods, which are processes of this machine.

Signals go to processes in the cluster's own cgroups only, and whatever was stopped is woken again.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.local import components, namespace
from tests.cluster.local.cgroups import CgroupTree, hierarchies
from tests.cluster.local.health import await_check
from tests.cluster.local.layout import Layout
from tests.cluster.local.processes import Daemon
from tests.e2e.cluster import Manifest

_END_SECONDS = 20.0
_HOG_SECONDS = 30.0
_GET = """
import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""
# Takes memory in a container's cgroup until the kernel ends somebody there, itself last of all: the kubelet has the
# containers' processes end first.
_HOG = """
import sys, time
for path in sys.argv[1:]:
    with open(path, "w") as file:
        file.write("0")
taken, deadline = [], time.monotonic() + 20
while time.monotonic() < deadline:
    taken.append(bytearray(b"x" * (8 << 20)))
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Node:
    """One local cluster's."""

    layout: Layout

    @classmethod
    def of_environment(cls, kubeconfig: str) -> "Node":
        """The node of the cluster that the tests talk to. Raises RuntimeError where it is not a local one."""
        layout = Layout(os.environ.get("CLUSTER") or "serin")
        if not layout.kubeconfig.exists() or not Path(kubeconfig).samefile(layout.kubeconfig):
            raise RuntimeError(
                "faults are signals to the local cluster's processes: run `make test-chaos-cluster` where that is"
            )
        return cls(layout)

    @property
    def network(self) -> list[str]:
        """The words before a command that make it run in the node's network."""
        return _in_network(namespace.holder(self.layout).pid)

    # --- components ---

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """A component dies by SIGKILL; in the end it is started as the cluster had started it."""
        self._kill(name)
        try:
            yield
        finally:
            self._start(name)

    def cut_connections(self, port: int) -> str:
        """Break every TCP connection of the node to or from a port. Returns what `ss` said of them."""
        command = [*namespace.enter(self.layout), "ss", "-K", "-Htn", f"( sport = :{port} or dport = :{port} )"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def wake_all(self) -> None:
        """Let every process of the cluster go on, whoever has stopped it."""
        self._signal(CgroupTree(self.layout.name).pids(), signal.SIGCONT)

    def _kill(self, name: str) -> None:
        daemon = Daemon(self.layout, name)
        pid = daemon.pid
        assert pid is not None, f"{name} is not running"
        self._signal([pid], signal.SIGKILL)
        deadline = time.monotonic() + _END_SECONDS
        while daemon.pid is not None:
            assert time.monotonic() < deadline, f"{name} survives SIGKILL"
            time.sleep(0.02)

    def _start(self, name: str) -> None:
        everything = components.everything(self.layout, binaries.components())
        [component] = [one for one in everything if one.name == name]
        daemon = Daemon(self.layout, name)
        daemon.start([*namespace.enter(self.layout), *component.argv])
        holder = namespace.holder(self.layout).pid
        assert holder is not None, "the cluster's namespaces are gone"
        with namespace.inside(holder) as network:
            await_check(daemon, partial(namespace.call, network, component.check))

    # --- pods ---

    def send(self, pod: Manifest, container: str, number: signal.Signals) -> None:
        """Send a signal to all of a container's processes."""
        self._signal(self._processes(pod, container), number)

    @contextmanager
    def hung(self, pod: Manifest, container: str) -> Iterator[None]:
        """A container that stands still, and whose sockets the kernel still accepts connections for."""
        pids = self._processes(pod, container)
        self._signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(pids, signal.SIGCONT)

    def get(self, url: str) -> str:
        """What answers to a GET in the cluster's network; empty where nothing does."""
        argv = [*self.network, sys.executable, "-c", _GET, url]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def network_of(self, pod: Manifest, container: str) -> list[str]:
        """The words before a command that make it run in a pod's network."""
        return _in_network(self._processes(pod, container)[0])

    def exhaust_memory(self, pod: Manifest, container: str) -> None:
        """Use up the memory that a container may have, until the kernel has ended a process of it."""
        before = self._processes(pod, container)
        hog = subprocess.Popen([sys.executable, "-c", _HOG, *map(str, _memory_cgroup(before[0]))])
        try:
            deadline = time.monotonic() + _HOG_SECONDS
            while all(Path(f"/proc/{pid}").exists() for pid in before):
                # The hog goes with the container, perhaps before the process that the kernel ended is reaped.
                assert time.monotonic() < deadline, "the kernel ended nobody but the hog"
                time.sleep(0.02)
        finally:
            hog.kill()
            hog.wait()

    def _processes(self, pod: Manifest, container: str) -> list[int]:
        """The processes of a pod's container."""
        [status] = [one for one in pod["status"]["containerStatuses"] if one["name"] == container]
        container_id = status["containerID"].partition("://")[2]
        found = [pid for pid in CgroupTree(self.layout.name).pids() if container_id in _cgroups_of(pid)]
        assert found, f"no process of {pod['metadata']['name']} was found"
        return sorted(found)

    # --- signals ---

    def _signal(self, pids: Iterable[int], number: signal.Signals) -> None:
        """To those that live and are the cluster's: a number may be somebody else's by now."""
        tree = CgroupTree(self.layout.name)
        for pid in pids:
            if tree.holds(pid):
                with suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, number)


def _in_network(pid: int | None) -> list[str]:
    assert pid is not None, "the cluster's namespaces are gone"
    return ["nsenter", f"--target={pid}", "--net", "--"]


def _cgroups_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def _memory_cgroup(pid: int) -> list[Path]:
    """The files that put a process into the memory cgroup of another one."""
    found = []
    for line in _cgroups_of(pid).splitlines():
        _, controllers, path = line.split(":", 2)
        for hierarchy in hierarchies():
            wanted = "memory" in controllers.split(",") if hierarchy.version == 1 else not controllers
            directory = hierarchy.root / path.lstrip("/")
            if wanted and (directory / "cgroup.procs").exists() and list(directory.glob("memory.*")):
                found.append(directory / "cgroup.procs")
    assert found, f"no memory cgroup of process {pid} was found"
    return found
