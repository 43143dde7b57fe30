"""What the router adds to a request: `python -m bench.router`.

Two model servers and one router with the operator's own files run on one core, the load comes from another. In each
round a server is called directly and through the router, one after the other, at the same rate. What the router adds is
the median over rounds of the difference within a round, so that what else the machine does at the time is in both. What
was due while the whole machine stood nearly still is told apart (see `bench.server.stalls`): calm is what is left.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.decisions import report
from bench.page import publish
from bench.router.loopback import router
from bench.server import processes, targets, wire
from bench.server.cases import Wire
from bench.server.models import MODELS
from rich.console import Console

MOST_ADDED_MEDIAN, MOST_ADDED_P99 = 0.5, 2.0  # ms, over HTTP
_PAGE = Path("docs/benchmarks.md")
_WEIGHT = 10
_ADDED = "the router adds"
_QUANTILES = ("p50", "p99", "p99_calm")
Record = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if the goals are kept, else 1."""
    options = _options(arguments)
    console = Console()
    os.sched_setaffinity(0, processes.LOAD_CORES)
    model = MODELS[0]
    records = []
    with tempfile.TemporaryDirectory() as place:
        file = model.write(Path(place))
        with targets.serin(file) as stable, targets.serin(file) as canary, router(stable, canary, _WEIGHT) as entry:
            assert stable.grpc_port is not None
            for kind, direct in ((Wire.JSON, stable.port), (Wire.GRPC, stable.grpc_port)):
                request = Path(place) / f"{kind}.request"
                request.write_bytes(wire.request(kind, model.rows(1)))
                console.print(f"{kind}: {options.rounds} rounds at {options.rate:g}/s")
                records += _compare(kind, direct, entry, request, options)
    goals = _goals(records)
    section = _section(options)
    report.show(console, section, records)
    report.show_goals(console, goals)
    if options.publish:
        publish(_PAGE, "router", f"{report.goals_markdown(goals)}\n{report.markdown(section, records)}")
    return 0 if all(goal.kept for goal in goals) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.router", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--publish", action="store_true", help=f"put the table into {_PAGE} as well")
    return parser.parse_args(arguments)


def _compare(kind: Wire, direct: int, entry: int, request: Path, options: argparse.Namespace) -> list[Record]:
    """A record for the server alone, one for the way through the router, and one for the difference."""
    rounds: list[tuple[Record, Record]] = []
    for number in range(options.rounds + 1):
        ways = [_load(port, kind, request, options) for port in (direct, entry)]
        if number:  # the first one makes connections and fills caches
            rounds.append((ways[0], ways[1]))
    records = []
    for way, place in (("the Service directly", 0), ("through the router", 1)):
        found = [each[place] for each in rounds]
        figures = {key: statistics.median(one[key] for one in found) for key in (*_QUANTILES, "stalled")}
        records.append({"wire": str(kind), "way": way, "failures": sum(one["failures"] for one in found), **figures})
    added = {key: statistics.median(via[key] - alone[key] for alone, via in rounds) for key in _QUANTILES}
    return [*records, {"wire": str(kind), "way": _ADDED, "failures": 0, "stalled": None, **added}]


def _load(port: int, kind: Wire, request: Path, options: argparse.Namespace) -> Record:
    arguments = [str(port), str(request), f"--connections={options.connections}", f"--seconds={options.seconds}"]
    arguments += [f"--rate={options.rate}", *(["--grpc"] if kind is Wire.GRPC else [])]
    command = [sys.executable, "-m", "bench.server.load", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=targets.ROOT)
    if done.returncode:
        raise RuntimeError(f"the load failed: {done.stderr[-2000:]}")
    found: Record = json.loads(done.stdout)
    return found


def _goals(records: Sequence[Record]) -> list[report.Goal]:
    added = next(one for one in records if one["way"] == _ADDED and one["wire"] == Wire.JSON)
    failures = sum(one["failures"] for one in records)
    return [
        report.Goal(
            f"the router adds {MOST_ADDED_MEDIAN} ms or less at the median",
            f"{added['p50']:.2f} ms",
            added["p50"] <= MOST_ADDED_MEDIAN,
        ),
        report.Goal(
            f"and {MOST_ADDED_P99:g} ms or less at the 99th percentile, while the machine runs as usual",
            f"{added['p99_calm']:.2f} ms (else {added['p99']:.1f} ms)",
            added["p99_calm"] <= MOST_ADDED_P99,
        ),
        report.Goal("no request fails", f"{failures:g}", failures == 0),
    ]


def _section(options: argparse.Namespace) -> report.Section:
    note = (
        f"One row of iris at {options.rate:g} requests a second over {options.connections} connections, "
        f"{options.rounds} rounds of {options.seconds:g} s each way, in turns; {_WEIGHT} % go to a canary. Medians "
        "over rounds; what is added is the median of the differences within rounds. Servers and router share one core. "
        "Stalled: the share of requests that were due while the machine itself was several times slower than usual."
    )
    columns = [
        report.Column("", "wire"),
        report.Column("Way", "way"),
        report.Column("Median, ms", "p50", _milliseconds),
        report.Column("99 %, ms", "p99", _milliseconds),
        report.Column("99 % calm, ms", "p99_calm", _milliseconds),
        report.Column("Stalled", "stalled", lambda value: "–" if value is None else f"{value:.0%}"),
        report.Column("Failed", "failures", lambda value: f"{value:g}"),
    ]
    return report.Section("router", "What the router adds", note, columns, (), options.rounds, timed=True)


def _milliseconds(value: float) -> str:
    return f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
