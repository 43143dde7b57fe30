"""How long it takes to find a canary that is worse, next to what is possible at all."""

from functools import partial
from typing import Any

import numpy as np

from bench.decisions import contest, references
from bench.decisions.contest import ALPHA
from bench.decisions.report import Column, Goal, Record, Section, minutes, percent
from bench.decisions.worlds import MARGIN, STABLE, World, draw, every_rate
from serin_operator.api.spec import Role

GOAL = 1.35  # times the power-one bound, at 5 points and 10 requests a second
_MIXTURES = {"margin": "as wide as the margin", "wide": "of 5 points"}  # of the mSPRT
_WIDE = 0.05
_VALID = 0.05


def section(runs: int) -> Section:
    """At every rate, a tenth of the requests to the canary, and one world of rare failures."""
    common = [(world, STABLE, MARGIN, effect) for world in every_rate() for effect in (0.02, 0.05, 0.10, 0.20)]
    rare = [(World(rate=100.0, stable=0.001), 0.001, 0.01, effect) for effect in (0.01, 0.02)]
    return Section(
        key="delays",
        title="Mean delay until a worse canary is found",
        note=(
            "A tenth of the requests to the canary. Serin's test for worse by itself (a guard that is no gate), and\n"
            "the mSPRT on pooled counts with mixtures as wide as the margin and 5 points.\n"
            f"Means over {runs} runs, in minutes, of at most all 120 looks, to the look that finds the canary worse.\n"
            "Ratio: Serin's to the power-one bound ln(20)/G."
        ),
        columns=[
            Column("Worse by", "effect", lambda value: f"{100 * value:g} points"),
            Column("Power-one bound", "power_one", minutes),
            Column("Wald bound", "wald", minutes),
            Column("Serin", "serin", minutes),
            Column("found", "serin_found", percent),
            Column("ratio", "ratio", lambda value: f"{value:.2f}"),
            Column("mSPRT, margin", "msprt_margin", minutes),
            Column("found", "msprt_margin_found", percent),
            Column("mSPRT, 5 points", "msprt_wide", minutes),
            Column("found", "msprt_wide_found", percent),
        ],
        tasks=[partial(row, *case) for case in [*common, *rare]],
        runs=runs,
        group="group",
    )


def row(world: World, stable: float, margin: float, effect: float, seed: int, runs: int) -> list[Record]:
    """One effect in one world."""
    rng = np.random.default_rng(seed)
    table, equal = draw(world.worse_by(effect), rng, runs), draw(world, rng, runs)
    canary, other = world.per_minute
    growth = references.growth(stable + effect, stable, canary_per_minute=canary, stable_per_minute=other)
    outcomes = {"serin": contest.serin(table, contest.policy(margin=margin, role=Role.GUARD))}
    false_rollbacks = {}
    for name, tau in zip(_MIXTURES, (margin, _WIDE), strict=True):
        outcomes[f"msprt_{name}"] = contest.msprt(table, world, tau=tau)
        false_rollbacks[f"msprt_{name}_false_rollback"] = contest.msprt(equal, world, tau=tau).rollbacks
    power_one = references.power_one_bound(growth, ALPHA)
    record: dict[str, Any] = {
        "group": f"{world.rate:g} requests/s, {stable:.1%} failures, margin {margin:.0%}",
        "rate": world.rate,
        "stable": stable,
        "effect": effect,
        "power_one": power_one,
        "wald": references.wald_bound(growth, ALPHA, miss=0.05),
    }
    for name, outcome in outcomes.items():
        delays = np.minimum(outcome.rolled_back + 1, outcome.looks) * world.minutes
        record[name], record[f"{name}_error"] = float(delays.mean()), float(delays.std() / runs**0.5)
        record[f"{name}_found"] = outcome.rollbacks
    return [record | false_rollbacks | {"ratio": record["serin"] / power_one}]


def goals(rows: list[Record]) -> list[Goal]:
    """The ratio at 10 requests a second and 5 points, and never slower than a valid mSPRT."""
    at = next(each for each in rows if (each["rate"], each["stable"], each["effect"]) == (10.0, STABLE, 0.05))
    faster = []
    for name in _MIXTURES:
        valid = [each for each in rows if each[f"msprt_{name}_false_rollback"] <= _VALID]
        faster += [
            (each["serin"] / each[f"msprt_{name}"], each, name)
            for each in valid
            if each["serin"] - each[f"msprt_{name}"] > 3 * np.hypot(each["serin_error"], each[f"msprt_{name}_error"])
        ]
    return [
        Goal(
            f"Mean delay at −5 points and 10 requests/s at most {GOAL} × the power-one bound",
            f"{at['ratio']:.2f} × {at['power_one']:.2f} min",
            at["ratio"] <= GOAL,
        ),
        Goal(
            "Never slower than the mSPRT where that is valid (false rollbacks at most 5 %)",
            "; ".join(
                f"{ratio:.2f} × a mixture {_MIXTURES[name]} at −{100 * each['effect']:g} points, {each['group']}"
                for ratio, each, name in faster
            )
            or "nowhere slower beyond three standard errors",
            not faster,
        ),
    ]
