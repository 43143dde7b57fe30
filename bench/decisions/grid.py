"""Every rule at every rate and split."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from bench.decisions import contest, references
from bench.decisions.contest import ALPHA, REFERENCES, SERIN
from bench.decisions.outcomes import Looks, Outcome
from bench.decisions.report import Column, Goal, Record, Section, minutes, number, percent, rate
from bench.decisions.worlds import LOOKS, MARGIN, STABLE, World, draw, every_rate, past

SPLITS = [0.01, 0.1, 0.5]
EFFECTS = {0.02: "2", 0.05: "5", 0.20: "20"}  # how much worse, in points
MISS = 0.05  # of Wald's bound
POWER_ONE, WALD = "bound: power one, mean", "bound: Wald, 5 % missed, mean"
_COLUMN = "group"


def section(runs: int) -> Section:
    """One block of rows for each rate and split."""
    worlds = [replace(world, split=split) for world in every_rate() for split in SPLITS]
    return Section(
        key="grid",
        title="Rules at every rate and split",
        note=(
            f"Accuracy {100 - 100 * STABLE:g} %, margin {100 * MARGIN:g} %, {LOOKS} looks, {runs} runs a cell.\n"
            "A rule whose interval is shorter than a look is applied at each look.\n"
            "False rollback: the canary is as good. False promotion: it is worse by just the margin.\n"
            "Found and Min (median minutes; a dash: not in half of the runs): it is worse by so many points.\n"
            "Harmed: mean requests until the last look. Promoted, and median minutes to it: it is as good."
        ),
        columns=[
            Column("Rule", "rule"),
            Column("False rollback", "false_rollback", percent, lambda row: _above(row, "false_rollback")),
            Column("False promotion", "false_promotion", percent, lambda row: _above(row, "false_promotion")),
            Column("Found −2", "found_2", percent),
            Column("Found −5", "found_5", percent),
            Column("Min −5", "median_5", minutes),
            Column("Harmed −5", "harmed_5", number),
            Column("Min −20", "median_20", minutes),
            Column("Harmed −20", "harmed_20", number),
            Column("Promoted", "promoted", percent),
            Column("Min", "median_promotion", minutes),
        ],
        tasks=[partial(cells, world) for world in worlds],
        runs=runs,
        group=_COLUMN,
    )


def cells(world: World, seed: int, runs: int) -> list[Record]:
    """The rows of one rate and split: the bounds, then every rule on the same counts."""
    rng = np.random.default_rng(seed)
    tables = {effect: draw(world.worse_by(effect), rng, runs) for effect in (0.0, *EFFECTS)}
    before = past(world, rng, runs)
    group = f"{rate(world.rate)}, {100 * world.split:g} % to the canary; a look every {_duration(world.seconds)}"
    rows: list[Record] = [
        {_COLUMN: group, "rule": name} | {f"median_{name}": bound for name, bound in bounds.items()}
        for name, bounds in ((POWER_ONE, _bounds(world, _power_one)), (WALD, _bounds(world, _wald)))
    ]
    for name, rule in contest.rules(before).items():
        outcomes = {effect: rule(table, world) for effect, table in tables.items()}
        equal = outcomes[0.0]
        row = {
            _COLUMN: group,
            "rate": world.rate,
            "split": world.split,
            "rule": name,
            "false_rollback": equal.rollbacks,
            "false_promotion": None if name in REFERENCES else outcomes[MARGIN].promotions,
            "promoted": None if name in REFERENCES else equal.promotions,
            "median_promotion": _median(equal.promoted, equal, world),
        }
        for effect, label in EFFECTS.items():
            outcome = outcomes[effect]
            row[f"found_{label}"] = outcome.rollbacks
            row[f"median_{label}"] = _median(outcome.rolled_back, outcome, world)
            row[f"harmed_{label}"] = outcome.harmed(tables[effect], effect)
        rows.append(row)
    return rows


def goals(rows: list[Record]) -> list[Goal]:
    """At most 5 % of both errors in every row of Serin."""
    own = [row for row in rows if row["rule"] == SERIN]
    return [
        Goal(
            f"False {error} at most 5 % in every row",
            f"at most {percent(max(row[f'false_{error}'] for row in own))} in {len(own)} rows",
            all(row[f"false_{error}"] <= ALPHA for row in own),
        )
        for error in ("rollback", "promotion")
    ]


def _above(row: Record, key: str) -> bool:
    return (row.get(key) or 0.0) > ALPHA


def _bounds(world: World, bound: Callable[[float], float]) -> dict[str, float]:
    """Per effect; bound: from the growth per minute."""
    canary, stable = world.per_minute
    return {
        label: bound(references.growth(STABLE + effect, STABLE, canary_per_minute=canary, stable_per_minute=stable))
        for effect, label in EFFECTS.items()
    }


def _power_one(growth: float) -> float:
    return references.power_one_bound(growth, ALPHA)


def _wald(growth: float) -> float:
    return references.wald_bound(growth, ALPHA, MISS)


def _median(looks: Looks, outcome: Outcome, world: World) -> float:
    """Minutes in which half of all runs have come to it; inf when fewer ever do."""
    median = float(np.median(np.where(looks < outcome.looks, looks + 1.0, math.inf)))
    return median * world.minutes


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"
