"""How long it takes to find a canary that is worse, next to what is possible at all."""

from functools import partial
from typing import Any

import numpy as np

from bench.decisions import contest, references
from bench.decisions.contest import ALPHA
from bench.decisions.outcomes import Outcome
from bench.decisions.report import Column, Goal, Record, Section, minutes, percent, rate
from bench.decisions.worlds import MARGIN, STABLE, World, draw, every_rate, past
from serin_operator.api.spec import Role

GOAL = 1.35  # times the power-one bound, at 5 points and 10 requests a second
_MIXTURES = {"margin": "as wide as the margin", "wide": "of 5 points"}  # of the mSPRT
_WIDE = 0.05
_MORE = 25  # times the runs where the goal is near


def section(runs: int) -> Section:
    """At every rate, a tenth of the requests to the canary, and one world of rare failures."""
    common = [(world, STABLE, MARGIN, effect) for world in every_rate() for effect in (0.02, 0.05, 0.10, 0.20)]
    at_goal = (World(), STABLE, MARGIN, 0.05)
    rare = [(World(rate=100.0, stable=0.001), 0.001, 0.01, effect) for effect in (0.01, 0.02)]
    return Section(
        key="delays",
        title="Mean delay until a worse canary is found",
        note=(
            "A tenth of the requests to the canary. Serin's test for worse by itself (a guard that is no gate), and\n"
            "the mSPRT on pooled counts with mixtures as wide as the margin and 5 points.\n"
            f"Means over {runs} runs, {_MORE} times as many at the goal, in minutes, of at most all 120 looks.\n"
            "Ratio: Serin's to the power-one bound ln(20)/G. Found: of them. False: rollbacks of a canary as good."
        ),
        columns=[
            Column("Worse by", "effect", lambda value: f"{100 * value:g} points"),
            Column("Power-one bound", "power_one", minutes),
            Column("Wald bound", "wald", minutes),
            *_columns("Serin", "serin"),
            Column("Ratio", "ratio", lambda value: f"{value:.2f}"),
            *_columns("mSPRT, margin", "msprt_margin"),
            *_columns("mSPRT, 5 points", "msprt_wide"),
        ],
        tasks=[partial(row, *case, times=_MORE if case == at_goal else 1) for case in [*common, *rare]],
        runs=runs,
        group="group",
    )


def _columns(title: str, key: str) -> list[Column]:
    return [
        Column(title, key, minutes),
        Column("found", f"{key}_found", percent),
        Column("false", f"{key}_false", percent, lambda row: row[f"{key}_false"] > ALPHA),
    ]


def row(
    world: World, stable: float, margin: float, effect: float, seed: int, runs: int, *, times: int = 1
) -> list[Record]:
    """One effect in one world, with so many times the runs."""
    rng = np.random.default_rng(seed)
    canary, other = world.per_minute
    growth = references.growth(stable + effect, stable, canary_per_minute=canary, stable_per_minute=other)
    power_one = references.power_one_bound(growth, ALPHA)
    record: dict[str, Any] = {
        "group": f"{rate(world.rate)}, {100 * stable:g} % failures, margin {100 * margin:g} %",
        "rate": world.rate,
        "stable": stable,
        "effect": effect,
        "runs": runs * times,
        "power_one": power_one,
        "wald": references.wald_bound(growth, ALPHA, miss=0.05),
    }
    equal = _outcomes(world, margin, rng, runs)
    found = [_outcomes(world.worse_by(effect), margin, rng, runs) for _ in range(times)]
    for name, good in equal.items():
        looks = np.concatenate([each[name].rolled_back for each in found])
        delays = np.minimum(looks + 1, good.looks) * world.minutes
        record[name], record[f"{name}_error"] = float(delays.mean()), float(delays.std() / len(delays) ** 0.5)
        record[f"{name}_found"], record[f"{name}_false"] = float(np.mean(looks < good.looks)), good.rollbacks
    return [record | {"ratio": record["serin"] / power_one}]


def _outcomes(world: World, margin: float, rng: np.random.Generator, runs: int) -> dict[str, Outcome]:
    """Of Serin's test for worse, and of the mSPRT with both mixtures, on the same counts."""
    table, before = draw(world, rng, runs), past(world, rng, runs)
    return {
        "serin": contest.serin(table, contest.policy(margin=margin, role=Role.GUARD), past=before),
        "msprt_margin": contest.msprt(table, tau=margin),
        "msprt_wide": contest.msprt(table, tau=_WIDE),
    }


def goals(rows: list[Record]) -> list[Goal]:
    """The ratio at 10 requests a second and 5 points, and never slower than a valid mSPRT."""
    at = next(each for each in rows if (each["rate"], each["stable"], each["effect"]) == (10.0, STABLE, 0.05))
    valid = [(each, name) for name in _MIXTURES for each in rows if each[f"msprt_{name}_false"] <= ALPHA]
    slower = {
        f"at −{100 * each['effect']:g} points with a mixture {_MIXTURES[name]}, {each['group']}": each["serin"]
        / each[f"msprt_{name}"]
        for each, name in valid
        if each["serin"] - each[f"msprt_{name}"] > 3 * np.hypot(each["serin_error"], each[f"msprt_{name}_error"])
    }
    most = max(slower, key=lambda where: slower[where], default="")
    return [
        Goal(
            f"Mean delay at −5 points and 10 requests/s at most {GOAL} × the power-one bound",
            f"{at['ratio']:.2f} × {at['power_one']:.2f} min",
            at["ratio"] <= GOAL,
        ),
        Goal(
            "Never slower than the mSPRT where that is valid (false rollbacks at most 5 %)",
            f"slower in {len(slower)} of {len(valid)} comparisons, at most {slower[most]:.2f} × {most}"
            if slower
            else f"not slower beyond three standard errors in {len(valid)} comparisons",
            not slower,
        ),
    ]
