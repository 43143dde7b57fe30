"""The network and mount namespaces that a cluster lives in.

They are held by a process and by nothing else, so they vanish with it and can't be left behind. The network has
a bridge with the node's address and no way out. The mount namespace puts the cluster's own directories where the
programs have fixed paths, and keeps all the mounts that the kubelet and containerd make away from the machine's.
"""

import ctypes
import os
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from .layout import NODE_IP, Layout, clusters
from .processes import Daemon

# A new namespace has no links but a loopback that is down. Mounts made inside stay inside; those that the machine
# makes later are seen inside. Shared, because the kubelet hands mounts on to containers.
_NETWORK = f"""
set -e
mount --make-rshared /
ip link set lo up
ip link add node0 type bridge
ip address add {NODE_IP}/32 dev node0
ip link set node0 up
ip route add default dev node0
echo 1 >/proc/sys/net/ipv4/ip_forward
"""


def holder(layout: Layout) -> Daemon:
    return Daemon(layout, "namespace")


def start_holder(layout: Layout, pause: Path) -> None:
    """Start the process that makes the namespaces, sets them up and then does nothing."""
    script = _NETWORK
    for fixed, own in layout.private.items():
        own.mkdir(parents=True, exist_ok=True)
        fixed.mkdir(parents=True, exist_ok=True)
        script += f"mount --bind {shlex.quote(str(own))} {shlex.quote(str(fixed))}\n"
    script += f"exec {shlex.quote(str(pause))}\n"
    holder(layout).start(["unshare", "--net", "--mount", "--propagation", "slave", "--", "sh", "-c", script])


def require_set_up(layout: Layout) -> None:
    """Raise until the holder has done its work: only then has it become `pause`."""
    pid = holder(layout).pid
    if pid is None or Path(f"/proc/{pid}/comm").read_text().strip() != "pause":
        raise OSError("the namespaces are not set up")


def enter(layout: Layout) -> list[str]:
    """The words before a command that make it run inside."""
    return ["nsenter", f"--target={holder(layout).pid}", "--net", "--mount", "--"]


def remove_mount_points(layout: Layout) -> None:
    """Remove the directories made as mount points, unless something is in them or another cluster needs them."""
    if clusters() not in ([], [layout.name]):
        return
    for fixed in layout.private:
        if fixed.is_dir() and not any(fixed.iterdir()):
            fixed.rmdir()


def identity(pid: int) -> str:
    """What tells the network namespace of a process from all others."""
    return Path(f"/proc/{pid}/ns/net").readlink().name


def visitors(network: str) -> set[int]:
    """The processes that are in a network namespace, however they came there."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "ns" / "net").readlink().name == network:
                    found.add(int(process.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended while we looked, or has more rights than we, so it came from neither us nor a pod
    return found


@contextmanager
def inside(pid: int) -> Iterator[Executor]:
    """A thread whose sockets are in the network namespace of a process; no other thread is moved."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(_enter_network, pid).result()
        yield thread


def call(network: Executor, check: Callable[[], None]) -> None:
    """Call a check in the thread that is inside."""
    network.submit(check).result()


def _enter_network(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, 0) != 0:
            raise OSError(ctypes.get_errno(), f"entering the network namespace of process {pid}")
    finally:
        os.close(descriptor)
