"""The cgroups that hold every process of a cluster, its pods' too: what is in them is ours to end.

Both versions of cgroups are handled; a machine with version 1 has one tree for each controller.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.report import Failure

_PARENT = "serin-cluster"
_NODE = "node"


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree of cgroups."""

    root: Path
    version: int


def hierarchies(mountinfo: str | None = None) -> list[Hierarchy]:
    """The mounted trees; where a controller is mounted twice, both are listed."""
    found = []
    for line in (mountinfo or Path("/proc/self/mountinfo").read_text()).splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            found.append(Hierarchy(Path(before.split()[4]), 2 if kind == "cgroup2" else 1))
    return found


@dataclass(frozen=True)
class CgroupTree:
    """The cgroup of a cluster, in every hierarchy. The kubelet puts the pods below it, we the components."""

    name: str

    @property
    def kubelet_root(self) -> str:
        """The cluster's cgroup as the kubelet's configuration names it."""
        return f"/{_PARENT}/{self.name}"

    def create(self) -> None:
        """Make the cgroups, empty."""
        for hierarchy in hierarchies():
            cgroup = hierarchy.root
            for step in (_PARENT, self.name, _NODE):
                if hierarchy.version == 2:
                    _delegate_controllers(cgroup)
                cgroup /= step
                cgroup.mkdir(exist_ok=True)
                if (cgroup / "cpuset.cpus").exists() and hierarchy.version == 1:
                    _inherit_cpuset(cgroup)

    def entrances(self) -> list[Path]:
        """The files that a component writes its process id into to be one of the cluster's."""
        return [h.root / _PARENT / self.name / _NODE / "cgroup.procs" for h in hierarchies()]

    def holds(self, pid: int) -> bool:
        """Whether a process lives and is in this cluster: a process id alone may be someone else's by now."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return False
        inside = f"{self.kubelet_root}/"
        return any(f"{line.split(':', 2)[2]}/".startswith(inside) for line in lines)

    def directories(self) -> Iterator[Path]:
        """The cgroups that there are, parents before children."""
        for hierarchy in hierarchies():
            top = hierarchy.root / _PARENT / self.name
            if top.is_dir():
                yield from (Path(directory) for directory, _, _ in os.walk(top))

    def pids(self) -> set[int]:
        """Every process of the cluster, its pods' too."""
        return {pid for cgroup in self.directories() for pid in _pids_of(cgroup)}

    def end_processes(self, seconds: float = 20.0) -> None:
        """Kill everything inside, and what that starts meanwhile, until nothing is left."""
        deadline = time.monotonic() + seconds
        while pids := self.pids():
            if time.monotonic() > deadline:
                raise Failure(f"these processes of cluster {self.name} survive SIGKILL: {sorted(pids)}")
            for pid in pids:
                self._kill(pid)
            time.sleep(0.02)  # the kernel takes a moment to end them; the loop looks again

    def remove(self, seconds: float = 10.0) -> None:
        """Remove the cgroups; a cgroup stays busy for a moment after its last process has ended."""
        deadline = time.monotonic() + seconds
        while cgroups := list(self.directories()):
            for cgroup in reversed(cgroups):  # children come after their parents
                try:
                    cgroup.rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise Failure(f"cgroup {cgroup} can't be removed: {error.strerror}") from error
            time.sleep(0.02)
        for hierarchy in hierarchies():
            parent = hierarchy.root / _PARENT
            if parent.is_dir() and not any(child.is_dir() for child in parent.iterdir()):
                parent.rmdir()

    def _kill(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Looked at again now that the descriptor pins the process: it must not be a newcomer with the old number.
            if self.holds(pid):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)


def _pids_of(cgroup: Path) -> list[int]:
    try:
        return [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
    except (FileNotFoundError, OSError) as error:
        if isinstance(error, FileNotFoundError) or error.errno in (19, 95):  # removed meanwhile, or a threaded cgroup
            return []
        raise


def _delegate_controllers(cgroup: Path) -> None:
    available = (cgroup / "cgroup.controllers").read_text().split()
    control = cgroup / "cgroup.subtree_control"
    for controller in set(available) - set(control.read_text().split()):
        control.write_text(f"+{controller}")


def _inherit_cpuset(cgroup: Path) -> None:
    """A new cpuset of version 1 is empty, and takes no process before it has processors and memory."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not (cgroup / file).read_text().strip():
            (cgroup / file).write_text((cgroup.parent / file).read_text())
