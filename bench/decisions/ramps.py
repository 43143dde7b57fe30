"""Traffic that evidence drives against fixed steps."""

from functools import partial

import numpy as np

from bench.decisions import report
from bench.decisions.contest import ALPHA, BETA
from bench.decisions.outcomes import Looks
from bench.decisions.report import Column, Goal, Record, Section, minutes, number, percent
from bench.decisions.worlds import MARGIN, STABLE
from serin_operator.api.spec import Analysis, Metric, MetricType, Mode, OnInconclusive, Rollout, Step
from serin_operator.batch import Policy
from serin_operator.simulation import World, simulate

_INTERVAL = 5.0  # seconds, the default
_STEPS = (Step(5, 60.0), Step(25, 60.0), Step(50, 60.0))  # the default
_LIMITS = ((300, 25), (300, 50), (100, 25), (100, 50))  # budget of harmed requests, maximum weight: the default first
_HOURS = 2
_RATES = (1.0, 10.0, 100.0, 1000.0)
EFFECTS = (0.0, 0.02, 0.05, 0.20)


def section(runs: int) -> Section:
    """At four rates, the default steps and four limits of an adaptive ramp."""
    return Section(
        key="ramps",
        title="Steps against Adaptive",
        note=(
            f"Accuracy {100 - 100 * STABLE:g} %, margin {100 * MARGIN:g} %, looks for {_HOURS} hours, otherwise the\n"
            f"defaults: one look in {_INTERVAL:g} s; Steps is 5, 25, 50 % of 60 s each.\n"
            f"{runs} runs. Min: median minutes from the first request; a dash: not in half of the runs.\n"
            "Harmed: requests to be expected to fail before the verdict that would not have otherwise.\n"
            "Held: its budget is spent, or the two hours are."
        ),
        columns=[
            Column("Ramp", "ramp"),
            Column("Promoted", "promoted", percent, lambda row: row["effect"] >= MARGIN and row["promoted"] > BETA),
            Column("Min", "median_promotion", minutes),
            Column("Rolled back", "rolled_back", percent, lambda row: not row["effect"] and row["rolled_back"] > ALPHA),
            Column("Min", "median_rollback", minutes),
            Column("Held", "held", percent),
            Column("Harmed, mean", "harmed", number),
            Column("95th percentile", "harmed_95", number),
            Column("Over budget", "over_budget", percent, lambda row: (row["over_budget"] or 0) > ALPHA + BETA),
        ],
        tasks=[partial(cells, rate, effect) for rate in _RATES for effect in EFFECTS],
        runs=runs,
        group="group",
    )


def cells(rate: float, effect: float, seed: int, runs: int) -> list[Record]:
    """Every ramp for one canary."""
    scrapes = int(_HOURS * 3600 / _INTERVAL)
    world = World(rate, STABLE + effect, STABLE, scrapes=scrapes, interval=_INTERVAL)
    name = f"worse by {100 * effect:g} points" if effect else "as good"
    rows: list[Record] = []
    for budget, max_weight in ((None, 50), *_LIMITS):
        results = simulate(_policy(budget, max_weight), world, np.random.default_rng(seed), runs)
        promoted, rolled_back = results.promoted < scrapes, results.rolled_back < scrapes
        harmed = results.exposed * effect
        rows.append(
            {
                "group": f"{report.rate(rate)}, canary {name}",
                "rate": rate,
                "effect": effect,
                "ramp": "Steps" if budget is None else f"Adaptive, budget {budget}, up to {max_weight} %",
                "promoted": float(promoted.mean()),
                "median_promotion": _median(results.promoted, scrapes),
                "rolled_back": float(rolled_back.mean()),
                "median_rollback": _median(results.rolled_back, scrapes),
                "held": float(np.mean(~promoted & ~rolled_back)),
                "harmed": float(harmed.mean()),
                "harmed_95": float(np.quantile(harmed, 0.95)),
                "over_budget": None if budget is None else float(np.mean(harmed > budget)),
            }
        )
    return rows


def goals(rows: list[Record]) -> list[Goal]:
    """The promise of the budget."""
    over = max(row["over_budget"] for row in rows if row["over_budget"] is not None)
    limit = ALPHA + BETA
    return [
        Goal(
            f"Adaptive harms more than its budget in at most {percent(limit)} of the rollouts",
            f"at most {percent(over)}",
            over <= limit,
        )
    ]


def _policy(budget: int | None, max_weight: int) -> Policy:
    accuracy = Metric("accuracy", MetricType.ACCURACY, MARGIN)
    analysis = Analysis(_INTERVAL, ALPHA, BETA, None, 0.0, 0, 0.0, (accuracy,))
    mode = Mode.STEPS if budget is None else Mode.ADAPTIVE
    return Policy(
        analysis, Rollout(mode, _STEPS, budget or 0, max_weight, 86400.0, OnInconclusive.HOLD, False, 600.0, 600.0)
    )


def _median(scrapes: Looks, never: int) -> float:
    """Minutes in which half of the runs have come to it; inf when fewer ever do."""
    return float(np.median(np.where(scrapes < never, scrapes + 1.0, np.inf))) * _INTERVAL / 60
