"""Simulates how rules decide, prints tables, and writes them to bench/results: `python -m bench.decisions`."""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from rich.console import Console

from bench.decisions import cost, delays, grid, hardships, labels, pairs, ramps, report
from bench.decisions.report import Section
from bench.decisions.running import run
from bench.page import publish

_RESULTS = Path("bench/results")
_PAGE = Path("docs/benchmarks.md")
_WORKERS = 2
_WIDTH = 180  # of what goes into a file or a pipe
_SECTIONS: dict[str, tuple[ModuleType, int, int]] = {  # runs: in full, and quickly
    "cost": (cost, 300, 50),
    "delays": (delays, 4000, 400),
    "grid": (grid, 4000, 300),
    "hardships": (hardships, 4000, 300),
    "labels": (labels, 2000, 200),
    "pairs": (pairs, 1000, 100),
    "ramps": (ramps, 1000, 50),
}


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if every goal is kept, else 1."""
    options = _options(arguments)
    console, began = Console(), time.monotonic()
    if not console.is_terminal:
        console.width = _WIDTH
    chosen = [name for name in _SECTIONS if not options.only or name in options.only]
    sections = {name: _section(name, quick=options.quick) for name in chosen}
    console.print(f"Seed {options.seed}; {', '.join(f'{s.runs} runs of {name}' for name, s in sections.items())}.")
    results = run(sections, seed=options.seed, workers=_WORKERS, console=console)
    for name, section in sections.items():
        report.show(console, section, results[name])
    goals = [goal for name in chosen for goal in _SECTIONS[name][0].goals(results[name])]
    report.show_goals(console, goals)
    took = time.monotonic() - began
    conditions = {
        "seed": options.seed,
        "quick": options.quick,
        "minutes": round(took / 60, 1),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }
    tables = [report.markdown(section, results[name]) for name, section in sections.items()]
    text = "\n".join([report.goals_markdown(goals), *tables])
    _RESULTS.mkdir(parents=True, exist_ok=True)
    (_RESULTS / "decisions.json").write_text(report.as_json(results, goals, conditions), encoding="utf-8")
    (_RESULTS / "decisions.md").write_text(text, encoding="utf-8")
    if options.publish:
        publish(_PAGE, "decisions", f"{_measured(conditions)}\n\n{text}")
    console.print(f"Took {took / 60:.1f} minutes. Written to {_RESULTS}/decisions.json and decisions.md.")
    return 0 if all(goal.kept for goal in goals) else 1


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.decisions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs, in about a minute")
    parser.add_argument("--seed", type=int, default=1, help="of all random numbers (default 1)")
    parser.add_argument("--publish", action="store_true", help=f"put the tables into {_PAGE} as well")
    parser.add_argument("--only", action="append", choices=list(_SECTIONS), help="this table only; may be repeated")
    return parser.parse_args(arguments)


def _section(name: str, *, quick: bool) -> Section:
    module, full, few = _SECTIONS[name]
    section: Section = module.section(few if quick else full)
    return section


def _measured(conditions: Mapping[str, object]) -> str:
    return (
        "Measured in {minutes} minutes on {machine}, with Python {python}, numpy {numpy} and the seed {seed}.".format(
            **conditions
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
