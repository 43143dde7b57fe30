"""A local cluster's life: up, status, down. Down is also how up clears what an earlier cluster has left."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.cluster import binaries
from tests.cluster.places import cache, locked
from tests.cluster.report import Failure, say

from . import components, namespace, readiness
from .cgroups import CgroupTree
from .health import NOT_YET
from .layout import STATE, Layout
from .processes import Daemon
from .start import start


@dataclass(frozen=True)
class State:
    """How one component or condition is."""

    name: str
    pid: int | None
    trouble: str  # empty when it is well


def up(name: str) -> None:
    """Start a cluster, or find that it is up already."""
    layout = Layout(name)
    built = binaries.components()
    with locked(cache() / "clusters"):
        states = status(name)
        if states and not any(state.trouble for state in states):
            say(f"cluster {name} is up already: {layout.kubeconfig}")
            return
        if states:
            say(f"cluster {name} is not well: {'; '.join(f'{s.name} {s.trouble}' for s in states if s.trouble)}")
        clear(layout)
        try:
            start(layout, built)
        except BaseException:
            # The logs stay for whoever looks into it; the next up or down removes them.
            CgroupTree(name).end_processes()
            raise
    say(f"cluster {name} is up: {layout.kubeconfig}")


def down(name: str) -> None:
    """End a cluster and leave nothing of it."""
    layout = Layout(name)
    with locked(cache() / "clusters"):
        clear(layout)
        left = leftovers(layout)
    if left:
        raise Failure(f"cluster {name} has left behind: {'; '.join(left)}")
    say(f"cluster {name} is down")


def status(name: str) -> list[State]:
    """How each component is, and what they make together; empty when there is no such cluster."""
    layout = Layout(name)
    if not layout.root.is_dir():
        return []
    holder = namespace.holder(layout).pid
    if holder is None:
        return [State("namespace", None, "is not running")]
    with namespace.inside(holder) as network:
        return [
            State("namespace", holder, ""),
            *(
                _state(
                    component.name,
                    Daemon(layout, component.name).pid,
                    partial(namespace.call, network, component.check),
                )
                for component in components.everything(layout, binaries.components())
            ),
            *(
                _state(condition.name, Daemon(layout, condition.daemon).pid, condition.check)
                for condition in readiness.conditions(layout, network)
            ),
        ]


def clear(layout: Layout) -> None:
    """Kill what lives of a cluster and remove what it kept. Its mounts and its network go with the processes."""
    tree = CgroupTree(layout.name)
    if tree.pids() or layout.root.exists():
        say(f"clearing what there is of cluster {layout.name}")
    tree.end_processes()
    for pid in _visitors(layout):
        os.kill(pid, signal.SIGKILL)
    tree.remove()
    # A mount that remained could lead the removal out of the directory.
    if mounts := _mounts(layout):
        raise Failure(f"{layout.root} is left as it is, because these are still mounted: {', '.join(mounts)}")
    if layout.root.exists():
        shutil.rmtree(layout.root)
    namespace.remove_mount_points(layout)
    if STATE.is_dir() and not any(STATE.iterdir()):
        STATE.rmdir()


def leftovers(layout: Layout) -> list[str]:
    """What is there of a cluster that should be gone."""
    tree = CgroupTree(layout.name)
    left = [f"process {pid}" for pid in sorted(tree.pids() | _visitors(layout))]
    left += [f"cgroup {cgroup}" for cgroup in tree.directories()]
    left += [f"mount {mount}" for mount in _mounts(layout)]
    if layout.root.exists():
        left.append(f"directory {layout.root}")
    return left


def _state(name: str, pid: int | None, check: Callable[[], object]) -> State:
    if pid is None:
        return State(name, None, "is not running")
    try:
        check()
    except NOT_YET as error:
        return State(name, pid, str(error))
    return State(name, pid, "")


def _visitors(layout: Layout) -> set[int]:
    """The processes in the cluster's network, whatever their cgroup: someone may have entered it by hand."""
    if not layout.network_file.exists():
        return set()
    return namespace.visitors(layout.network_file.read_text())


def _mounts(layout: Layout) -> list[str]:
    mount_points = (Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return sorted(str(point) for point in mount_points if point.is_relative_to(layout.root))
