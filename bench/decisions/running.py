"""Runs the tasks of all sections, in as many processes as it is given."""

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.decisions.report import Record, Section, Task

Job = tuple[str, int, Task, int, int]  # section, number of the task, task, seed, runs
Done = tuple[str, int, list[Record]]


def run(sections: Mapping[str, Section], *, seed: int, workers: int, console: Console) -> dict[str, list[Record]]:
    """The records of every section, in the order of its tasks. The same seed gives the same records."""
    jobs = [
        (name, number, task, _seed(seed, name, number), section.runs)
        for name, section in sections.items()
        for number, task in enumerate(section.tasks)
    ]
    done: dict[tuple[str, int], list[Record]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = {name: progress.add_task(name, total=len(section.tasks)) for name, section in sections.items()}
        for name, number, records in _finished(jobs, {name for name in sections if sections[name].timed}, workers):
            done[name, number] = records
            progress.advance(bars[name])
            if not console.is_terminal:
                console.print(f"{name}: {sum(key[0] == name for key in done)} of {len(sections[name].tasks)}")
    return {
        name: [record for number in range(len(section.tasks)) for record in done[name, number]]
        for name, section in sections.items()
    }


def _finished(jobs: Sequence[Job], timed: set[str], workers: int) -> Iterator[Done]:
    """Each job as it ends. Those of `timed` sections run first and alone."""
    for job in jobs:
        if job[0] in timed:
            yield _do(job)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(_do, job) for job in jobs if job[0] not in timed]):
            yield future.result()


def _seed(seed: int, name: str, number: int) -> int:
    """Of one task, whatever other sections run."""
    return int(np.random.SeedSequence([seed, *name.encode(), number]).generate_state(1)[0])


def _do(job: Job) -> Done:
    name, number, task, seed, runs = job
    return name, number, task(seed, runs)
