"""Compare the model server with its floor and with MLServer, in turns on the same machine.

    make bench-server BENCH_ARGS="--rounds 3 --seconds 3"

Prints a table: requests a second when as many are sent as are answered, the CPU time of the server for each, and the
latency at a fixed rate. Every figure is the median over rounds, in each of which all servers have their turn; on a
machine with other work only the ratios in one table mean something. The floor is an empty echo in the same web stack
and, where the model is called for each request alone, the model's own predict.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from bench.server import targets
from bench.server.targets import Target

_WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Case:
    """A model, the rows of a request, and a rate that the slowest server holds."""

    model: str
    rows: int
    rate: float

    @property
    def name(self) -> str:
        return f"{self.model}, {self.rows} row{'s' if self.rows > 1 else ''}"


CASES = (Case("iris", 1, 300), Case("iris", 100, 300), Case("forest", 1, 40))


@dataclass(frozen=True)
class Figures:
    """Of one server in one case and round: answers a second, CPU microseconds for each, latencies in milliseconds."""

    per_second: float
    cpu: float
    p50: float
    p99: float
    failures: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.server", description="Compare model servers.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="of each load (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=24, help="of each load (default: %(default)s)")
    parser.add_argument("--other", type=Path, metavar="DIR", help="another tree of Serin to compare with")
    parser.add_argument("--without-mlserver", action="store_true", help="do not install it")
    parser.add_argument("--cases", default="", metavar="TEXT", help="only those whose name has this text")
    options = parser.parse_args()
    mlserver = None if options.without_mlserver else targets.install_mlserver()
    with tempfile.TemporaryDirectory() as directory:
        for case in CASES:
            if options.cases in case.name:
                _compare(case, options, Path(directory), mlserver)


def _compare(case: Case, options: argparse.Namespace, directory: Path, mlserver: Path | None) -> None:
    ours, theirs = directory / "ours", directory / "theirs"
    _make_models(Path(sys.executable), ours)
    body = ours / f"{case.model}-{case.rows}.json"
    model = ours / f"{case.model}.joblib"
    found: dict[str, list[Figures]] = defaultdict(list)
    predict = []
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(targets.serin(model))]
        if options.other is not None:
            source = options.other / "model-server" / "src"
            servers.append(stack.enter_context(targets.serin(model, source, "Serin, other")))
        servers.append(stack.enter_context(targets.echo()))
        if mlserver is not None:
            _make_models(mlserver, theirs)
            for batching in (False, True):
                peer = targets.mlserver(mlserver, theirs / model.name, batching)
                servers.append(stack.enter_context(peer))
        for server in servers:
            _load(server, body, options.connections, _WARM_UP_SECONDS, None)
        for number in range(options.rounds):
            print(f"{case.name}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            predict.append(_predict(model, body))
            for server in servers:
                found[server.name].append(_measure(server, body, case, options))
    _print(case, options, found, statistics.median(predict))


def _make_models(python: Path, directory: Path) -> None:
    if not directory.exists():
        directory.mkdir()
        script = Path(__file__).with_name("models.py")
        subprocess.run([python, script, directory], check=True, env=targets.environment())


def _predict(model: Path, body: Path) -> float:
    """Microseconds of the model's own predict."""
    command = [sys.executable, "-m", "bench.server.predict", str(model), str(body)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=targets.environment()).stdout)


def _measure(server: Target, body: Path, case: Case, options: argparse.Namespace) -> Figures:
    before = server.cpu_seconds()
    full = _load(server, body, options.connections, options.seconds, None)
    cpu = server.cpu_seconds() - before
    steady = _load(server, body, options.connections, options.seconds, case.rate)
    return Figures(
        per_second=full["per_second"],
        cpu=1e6 * cpu / full["answers"],
        p50=steady["p50"],
        p99=steady["p99"],
        failures=full["failures"] + steady["failures"],
    )


def _load(server: Target, body: Path, connections: int, seconds: float, rate: float | None) -> dict[str, float]:
    command = [
        *(sys.executable, "-m", "bench.server.load", str(server.port), server.path, str(body)),
        *("--connections", str(connections), "--seconds", str(seconds)),
        *(() if rate is None else ("--rate", str(rate))),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=seconds + 60)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _print(case: Case, options: argparse.Namespace, found: dict[str, list[Figures]], predict: float) -> None:
    rate = f"{case.rate:g}/s"
    print(
        f"\n{case.name}: medians of {options.rounds} rounds, {options.connections} connections, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; one predict takes {predict:.0f} µs\n\n"
        f"| server | requests/s | CPU µs a request | p50 ms at {rate} | p99 ms at {rate} | failures |\n"
        "|---|---|---|---|---|---|"
    )
    for name, rounds in found.items():
        per_second, cpu, p50, p99 = (
            statistics.median(getattr(figures, field) for figures in rounds)
            for field in ("per_second", "cpu", "p50", "p99")
        )
        failures = sum(figures.failures for figures in rounds)
        print(f"| {name} | {per_second:,.0f} | {cpu:.0f} | {p50:.2f} | {p99:.2f} | {failures:.0f} |", flush=True)
        if name == "empty echo":
            print(f"| echo + predict | {1e6 / (1e6 / per_second + predict):,.0f} | {cpu + predict:.0f} | | | |")


if __name__ == "__main__":
    main()
