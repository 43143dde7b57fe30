"""The rules in worlds where pooled counts, fixed thresholds or independent failures are the wrong idea."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from bench.decisions import contest
from bench.decisions.contest import ALPHA, BETA, REFERENCES, SERIN
from bench.decisions.report import Column, Goal, Record, Section, minutes, percent
from bench.decisions.worlds import LOOKS, MARGIN, STABLE, World, draw, halves, past
from serin_operator.decide import dispersion

_CALIBRATION = 60  # looks at the stable pods before the rollout
_LATE = LOOKS // 2
_STEPS = (0.05, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class Hardship:
    """A world, what the user takes for its stable share of failures, and the harm to be found in it.

    onset: the look at which the harm begins. steps: the weights of equally long traffic steps.
    """

    name: str
    world: World
    stable: float = STABLE
    margin: float = MARGIN
    effect: float = 0.05
    onset: int = 0
    steps: tuple[float, ...] = ()
    calibrated: bool = False


def _worlds() -> list[Hardship]:
    stepped = np.repeat(_STEPS, LOOKS // len(_STEPS))
    bad_minutes = np.full(LOOKS, STABLE)
    bad_minutes[_LATE : _LATE + 10] = 0.25
    drift = World(split=stepped, stable=np.linspace(0.02, 0.10, LOOKS))
    bursts = World(rate=100.0, noise=0.3)
    rare = World(rate=100.0, stable=0.001)
    return [
        Hardship("Steps 5, 25, 50 % while both drift from 2 to 10 % failures", drift, steps=_STEPS),
        Hardship("Both fail at 25 % for five minutes", World(stable=bad_minutes)),
        Hardship("Failures come in bursts (log odds ± 0.3), 100 requests/s", bursts, calibrated=True),
        Hardship("A fifth of the looks misses an arm", World(missed=0.2)),
        Hardship("The harm begins after half of the hour", World(split=stepped), onset=_LATE, steps=_STEPS),
        Hardship("Rare failures: 0.1 %, margin 1 point, 100 requests/s", rare, 0.001, 0.01, 0.02),
    ]


def section(runs: int) -> Section:
    """One block of rows for each world."""
    return Section(
        key="hardships",
        title="Rules in harder worlds",
        note=(
            "10 requests a second, a tenth to the canary, a look every 30 s for an hour, unless the world says more.\n"
            f"{runs} runs. False promotion: worse by the margin. Found: worse by 5 points (rare failures: 2), and the\n"
            "median minutes since the harm began. Before the bursts Serin has watched the stable pods for half an hour."
        ),
        columns=[
            Column("Rule", "rule"),
            Column("False rollback", "false_rollback", percent, lambda row: row["false_rollback"] > ALPHA),
            Column("False promotion", "false_promotion", percent, lambda row: (row["false_promotion"] or 0) > BETA),
            Column("Found", "found", percent),
            Column("Min", "median", minutes),
        ],
        tasks=[partial(cells, hardship) for hardship in _worlds()],
        runs=runs,
        group="group",
    )


def cells(hardship: Hardship, seed: int, runs: int) -> list[Record]:
    """Every rule in one world, on the same counts."""
    rng = np.random.default_rng(seed)
    world = hardship.world
    phi = calibrated(world, rng, runs) if hardship.calibrated else np.ones(runs)
    harm = np.where(np.arange(LOOKS) >= hardship.onset, 1.0, 0.0)
    equal = draw(world, rng, runs)
    inferior = draw(world.worse_by(hardship.margin), rng, runs)
    worse = draw(world.worse_by(harm * hardship.effect), rng, runs)
    before, policy = past(world, rng, runs), contest.policy(margin=hardship.margin, steps=hardship.steps)
    rules: Mapping[str, contest.Rule] = {
        **contest.rules(before, stable=hardship.stable, margin=hardship.margin),
        SERIN: lambda table, _: contest.serin(table, policy, past=before, phi=phi),
    }
    rows: list[Record] = []
    for name, rule in rules.items():
        good, bad, found = (rule(table, world) for table in (equal, inferior, worse))
        after = np.where(found.rolled_back < LOOKS, found.rolled_back + 1.0 - hardship.onset, np.inf)
        # A rollback before the harm begins finds nothing.
        early = found.rolled_back < hardship.onset
        after, share = after[~early], float(np.mean(found.rolled_back[~early] < LOOKS)) if not early.all() else None
        rows.append(
            {
                "group": hardship.name,
                "rule": name,
                "false_rollback": good.rollbacks,
                "false_promotion": None if name in REFERENCES else bad.promotions,
                "found": share,
                "median": float(np.median(after)) * world.minutes if len(after) else None,
            }
        )
    return rows


def calibrated(world: World, rng: np.random.Generator, runs: int) -> npt.NDArray[np.float64]:
    """The overdispersion that Serin measures on the stable pods before each rollout, (runs,)."""
    blocks = halves(world, rng, runs)
    state = dispersion.start(runs)
    for look in range(_CALIBRATION):
        state = dispersion.grow(state, blocks[:, look, None])
    return dispersion.phi(state)


def goals(rows: list[Record]) -> list[Goal]:
    """At most 5 % of both errors of Serin in every world."""
    own = [row for row in rows if row["rule"] == SERIN]
    highest = {error: max(row[f"false_{error}"] for row in own) for error in ("rollback", "promotion")}
    return [
        Goal(
            "Both at most 5 % in every harder world",
            f"at most {percent(highest['rollback'])} and {percent(highest['promotion'])} in {len(own)} worlds",
            max(highest.values()) <= ALPHA,
        )
    ]
