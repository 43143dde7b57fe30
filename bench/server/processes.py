"""Where processes run, and what they take: processor time and memory of a process and all that it started."""

import os
from collections.abc import Iterator
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
# A server gets one core, whichever it is; what asks it gets another, so that neither takes the other's time.
SERVER_CORES = frozenset(_CORES[:1])
LOAD_CORES = frozenset(_CORES[1:] or _CORES)
ALL_CORES = frozenset(_CORES)
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


def pin(pid: int, cores: frozenset[int]) -> None:
    """Let a process, all that it started and what that starts from now on, run on these cores only."""
    for each in _tree(pid):
        for task in Path(f"/proc/{each}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def cpu_seconds(pid: int) -> float:
    """The processor time that the process and its children have used so far."""
    total = 0
    for each in _tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def memory_mib(pid: int) -> float:
    """Resident memory: of the process all, of its children what they do not share with others."""
    total = 0.0
    for each in _tree(pid):
        sizes = {}
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            sizes[name] = int(value.split()[0])
        total += sizes["Rss"] if each == pid else sizes["Private_Clean"] + sizes["Private_Dirty"]
    return total / _KIB


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _tree(int(child))
