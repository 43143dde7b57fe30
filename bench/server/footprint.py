"""From a server's start to its first ready answer, and the memory it holds after some load."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from bench.server import processes, wire
from bench.server.cases import Case
from bench.server.measure import Record, saturated
from bench.server.targets import Start

_LOAD_SECONDS = 0.5


def footprint(case: Case, starts: Mapping[str, Start], rounds: int, connections: int, directory: Path) -> list[Record]:
    """A record for each server, each started alone, in turns. The case says which model and what request."""
    request = directory / f"{case.key}.request"
    request.write_bytes(wire.request(case.wire, case.model.rows(case.rows)))
    found: dict[str, list[tuple[float, float, str]]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            with start() as target:
                saturated(target, case, request, _LOAD_SECONDS, connections)
                found[name].append((target.ready_seconds, processes.memory_mib(target.pid), target.setting))
    return [
        {
            "model": case.model.key,
            "server": name,
            "setting": measured[0][2],
            "ready": statistics.median(seconds for seconds, _, _ in measured),
            "memory": statistics.median(mib for _, mib, _ in measured),
        }
        for name, measured in found.items()
    ]
