"""How much memory is left, and a limit for this process."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED = "max"


@dataclass(frozen=True)
class _Group:
    """Where a version of the kernel's control groups tells its limit and use, and the file pages it can give back."""

    limit: Path
    used: Path
    statistics: Path
    reclaimable: str


_GROUPS = (
    _Group(
        Path("/sys/fs/cgroup/memory.max"),
        Path("/sys/fs/cgroup/memory.current"),
        Path("/sys/fs/cgroup/memory.stat"),
        "inactive_file",
    ),
    _Group(
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
        "total_inactive_file",
    ),
)
_MACHINE = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")


def free_bytes(groups: tuple[_Group, ...] = _GROUPS) -> int:
    """What the container may still use: up to its limit, and no more than the machine has.

    Where the system does not tell what is free (macOS), all of the machine's memory counts.
    """
    if not _MACHINE.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = [_field(_MACHINE, "MemAvailable:") * 1024]
    for group in groups:
        if group.limit.exists():
            limit = group.limit.read_text().strip()
            if limit != _UNLIMITED:
                used = int(group.used.read_text()) - _field(group.statistics, group.reclaimable)
                free.append(int(limit) - used)
    return max(0, min(free))


def limit_growth(more: int) -> None:
    """Let this process allocate so many more bytes than now; what asks for more gets a MemoryError, or ends.

    Only Linux can: elsewhere nothing is limited.
    """
    if not _STATUS.exists():
        return
    limit = _field(_STATUS, "VmData:") * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _field(path: Path, name: str) -> int:
    """A number from lines of a name and a number."""
    for line in path.read_text().splitlines():
        words = line.split()
        if words[0] == name:
            return int(words[1])
    raise ValueError(f"{path} has no {name}")
