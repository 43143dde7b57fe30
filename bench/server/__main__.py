"""Compares the model server with MLServer, KServe and its own floors: `python -m bench.server`.

All servers run side by side on one core, with one thread for arithmetic, and have their turns in each round; the load
comes from another core. A figure is the median over rounds. MLServer and KServe stand in each line at the setting that
is best for it: with and without a process that predicts, with and without adaptive batching; one and two workers.
"""

import argparse
import contextlib
import functools
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from bench.decisions import report
from bench.page import publish
from bench.server import processes, tables, targets
from bench.server.cases import CASES, Case, Wire
from bench.server.environments import PEERS
from bench.server.floors import floors
from bench.server.footprint import footprint
from bench.server.goals import ECHO, KSERVE, MLSERVER, NOT_ACCELERATED, SERIN, Results, goals
from bench.server.measure import Plan, Record, Rival, measure
from bench.server.targets import Start, Target

_RESULTS = Path("bench/results")
_PAGE = Path("docs/benchmarks.md")
_FULL = Plan(rounds=3, full_seconds=1.5, rate_seconds=2.5, connections=32, trial=0.4)
_QUICK = Plan(rounds=1, full_seconds=0.6, rate_seconds=0.8, connections=32, trial=0.5)
_WIDTH = 180  # of what goes into a file or a pipe
_FOOTPRINTS = ("iris-1-json", "forest-1-json")

Servers = Mapping[str, Sequence[Target]]


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every goal is kept, else 1."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(143))  # so that the servers are ended too
    console, began = Console(), time.monotonic()
    if not console.is_terminal:
        console.width = _WIDTH
    cases = [case for case in CASES if _is_wanted(case, options)]
    if not cases:
        raise SystemExit(f"no case has {options.only} in its name; they are {', '.join(case.key for case in CASES)}")
    pythons = {} if options.alone else {peer.name: peer.install() for peer in PEERS}
    records, footprints = _measure(console, cases, pythons, options, _QUICK if options.quick else _FULL)
    reached = list(goals(Results(records, footprints)))
    shown = tables.sections(records, footprints)
    for section, rows in shown:
        report.show(console, section, rows)
    report.show_goals(console, reached)
    conditions = _conditions(options, (time.monotonic() - began) / 60)
    text = "\n".join([report.goals_markdown(reached), *(report.markdown(section, rows) for section, rows in shown)])
    _RESULTS.mkdir(parents=True, exist_ok=True)
    results = {"cases": records, "footprints": footprints}
    (_RESULTS / "server.json").write_text(report.as_json(results, reached, conditions), encoding="utf-8")
    (_RESULTS / "server.md").write_text(text, encoding="utf-8")
    if options.publish:
        publish(_PAGE, "server", f"{tables.measured(conditions)}\n\n{text}")
    console.print(f"{tables.measured(conditions)} Written to {_RESULTS}/server.json and server.md.")
    return 0 if all(goal.kept for goal in reached) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.server", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of JSON, in about three minutes")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="cases with this text in their key; may be repeated"
    )
    parser.add_argument("--alone", action="store_true", help="without MLServer and KServe")
    parser.add_argument("--other", type=Path, metavar="DIR", help="another tree of Serin to compare with")
    parser.add_argument("--publish", action="store_true", help=f"put the tables into {_PAGE} as well")
    return parser.parse_args(arguments)


def _is_wanted(case: Case, options: argparse.Namespace) -> bool:
    if options.only:
        return any(text in case.key for text in options.only)
    return case.wire is Wire.JSON or not options.quick


def _measure(
    console: Console, cases: Sequence[Case], pythons: Mapping[str, Path], options: argparse.Namespace, plan: Plan
) -> tuple[list[Record], list[Record]]:
    """The records of the cases, and those of starts and memory."""
    processes.pin(os.getpid(), processes.LOAD_CORES)
    records: list[Record] = []
    footprints: list[Record] = []
    done = 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for model in {case.model.key: case.model for case in cases}.values():
            own = [case for case in cases if case.model is model]
            path = model.write(directory)
            starts = _starts(path, pythons, options.other)
            for case in own:
                if case.key in _FOOTPRINTS:
                    console.print(f"{model.key}: starts and memory")
                    plain = {rival: options[0] for rival, options in starts.items() if rival != ECHO}
                    footprints += footprint(case, plain, plan.rounds, plan.connections, directory)
            console.print(f"{model.key}: starting the servers")
            with _running(console, starts) as servers, floors(path) as floor:
                for case in own:
                    done += 1
                    console.print(f"{case.title}: case {done} of {len(cases)}")
                    records += measure(case, _rivals(case, servers), floor, plan, directory)
    return records, footprints


def _starts(model: Path, pythons: Mapping[str, Path], other: Path | None) -> dict[str, Sequence[Start]]:
    """How each rival is started, once for each of its settings, the smallest first."""
    found: dict[str, Sequence[Start]] = {
        SERIN: [functools.partial(targets.serin, model)],
        NOT_ACCELERATED: [functools.partial(targets.serin, model, accelerate="Never")],
        ECHO: [targets.echo],
    }
    if other is not None:
        found["Serin, other"] = [functools.partial(targets.serin, model, source=other / "model-server" / "src")]
    if MLSERVER in pythons:
        found[MLSERVER] = [
            functools.partial(targets.mlserver, pythons[MLSERVER], model, workers=workers, batching=batching)
            for workers in (0, 1)
            for batching in (False, True)
        ]
    if KSERVE in pythons:
        found[KSERVE] = [functools.partial(targets.kserve, pythons[KSERVE], model, workers=count) for count in (1, 2)]
    return found


@contextlib.contextmanager
def _running(console: Console, starts: Mapping[str, Sequence[Start]]) -> Iterator[Servers]:
    """All of them, started as many at a time as there are cores; without the settings of peers that do not start."""
    with contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(len(processes.ALL_CORES)) as pool:
            begun = {
                name: [pool.submit(stack.enter_context, start()) for start in each] for name, each in starts.items()
            }
        servers: dict[str, list[Target]] = {}
        for name, each in begun.items():
            servers[name] = []
            for future in each:
                try:
                    servers[name].append(future.result())
                except RuntimeError as error:
                    if name not in (MLSERVER, KSERVE):
                        raise
                    console.print(f"left out: {error}")
        yield servers


def _rivals(case: Case, servers: Servers) -> list[Rival]:
    """Who takes part in a case: the floor where one row is asked for, the slow form of Serin where that is a goal."""
    found = []
    for name, each in servers.items():
        if name == ECHO and (case.rows > 1 or case.wire is not Wire.JSON):
            continue
        if name == NOT_ACCELERATED and (case.model.key != "forest" or case.wire is not Wire.JSON):
            continue
        found.append(Rival(name, each, is_peer=name in (MLSERVER, KSERVE)))
    return found


def _conditions(options: argparse.Namespace, minutes: float) -> dict[str, object]:
    packages = ("scikit-learn", "numpy", "onnxruntime", "uvloop")
    return {
        "minutes": round(minutes, 1),
        "quick": options.quick,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": round(os.getloadavg()[2], 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "peers": {peer.name: peer.version for peer in PEERS},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
