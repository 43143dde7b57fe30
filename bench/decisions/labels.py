"""Labels that come late: counted when they arrive, or by cohorts of predictions closed at the same age."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from bench.decisions import contest
from bench.decisions.contest import ALPHA
from bench.decisions.outcomes import Table
from bench.decisions.report import Column, Goal, Record, Section, minutes, percent
from bench.decisions.worlds import STABLE

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelWorld:
    """Predictions whose labels come a random time after them, exponentially distributed; all times are in looks.

    steps: the canary's shares of the predictions, equally long, from the start on; the stable had all before.
    failing: (looks,), the share of wrong predictions, of both arms, by the time of prediction; as at first before it.
    excess: how much more of the canary's are wrong. right_after, wrong_after: mean delays of the labels.
    per_look: predictions of both arms. window: the age at which a cohort closes.
    """

    name: str
    steps: tuple[float, ...]
    failing: Floats
    excess: float = 0.0
    right_after: float = 20.0
    wrong_after: float = 20.0
    per_look: float = 300.0
    window: int = 20

    @property
    def looks(self) -> int:
        """Since the start of the rollout."""
        return len(self.failing)


_COUNTING = ("when it arrives", "by cohort")


def section(runs: int) -> Section:
    """Both worlds, counted both ways."""
    return Section(
        key="labels",
        title="Late labels",
        note=(
            "Labels counted when they arrive, and by cohorts of predictions that close when they are 10 minutes old.\n"
            "10 predictions a second for an hour. Labels come 10 minutes after them on average; in the second world\n"
            f"those of wrong ones after 2. {runs} runs. Found: worse by 5 points; median minutes."
        ),
        columns=[
            Column("A label counts", "counting"),
            Column("False rollback", "false_rollback", percent, lambda row: row["false_rollback"] > ALPHA),
            Column("Found", "found", percent),
            Column("Min", "median", minutes),
        ],
        tasks=[partial(cells, world) for world in (stepped_up(), complaints())],
        runs=runs,
        group="group",
    )


def cells(world: LabelWorld, seed: int, runs: int) -> list[Record]:
    """One world, counted both ways."""
    rng = np.random.default_rng(seed)
    good, worse = (draw(each, rng, runs) for each in (world, replace(world, excess=0.05)))
    policy = contest.policy(steps=world.steps)
    rows: list[Record] = []
    for counting, equal, inferior in zip(_COUNTING, good, worse, strict=True):
        false, found = (contest.serin(table, policy) for table in (equal, inferior))
        median = np.median(np.where(found.rolled_back < world.looks, found.rolled_back + 1.0, np.inf)) / 2
        rows.append(
            {
                "group": world.name,
                "counting": counting,
                "false_rollback": false.rollbacks,
                "found": found.rollbacks,
                "median": float(median),
            }
        )
    return rows


def goals(rows: list[Record]) -> list[Goal]:
    """Cohorts keep the error rate."""
    highest = max(row["false_rollback"] for row in rows if row["counting"] == _COUNTING[1])
    return [
        Goal("False rollback at most 5 % with late labels, by cohort", f"at most {percent(highest)}", highest <= ALPHA)
    ]


def stepped_up(looks: int = 120) -> LabelWorld:
    """The traffic steps up while both versions get worse alike."""
    mean, failing = looks / 6, np.linspace(0.04, 0.16, looks)
    name = "Steps 5, 25, 50 % while both get worse from 4 to 16 %"
    return LabelWorld(name, (0.05, 0.25, 0.5), failing, right_after=mean, wrong_after=mean, window=looks // 6)


def complaints(looks: int = 120) -> LabelWorld:
    """Nothing drifts, but a wrong prediction is heard of sooner than a right one."""
    mean, failing = looks / 6, np.full(looks, STABLE)
    name = "A quarter to the canary; wrong ones are labelled sooner"
    return LabelWorld(name, (0.25,), failing, right_after=mean, wrong_after=mean / 5, window=looks // 6)


def draw(world: LabelWorld, rng: np.random.Generator, runs: int) -> tuple[Table, Table]:
    """What each look counts: labels that arrived since the look before, and those of the cohort that closed at it.

    (by arrival, by cohort), on the same predictions and labels.
    """
    lags = world.looks  # a label that is later is never counted
    splits = np.repeat(world.steps, world.looks // len(world.steps))
    right, wrong = (_arrival(mean, lags) for mean in (world.right_after, world.wrong_after))
    arrived = np.zeros((runs, lags + world.looks + lags + 1, 4), np.int64)
    closed = np.zeros_like(arrived)
    for look in range(-lags, world.looks):
        split, failing = (splits[look], world.failing[look]) if look >= 0 else (0.0, world.failing[0])
        made = rng.poisson(world.per_look, runs)
        canary = rng.binomial(made, split)
        for arm, (predictions, rate) in enumerate([(canary, failing + world.excess), (made - canary, failing)]):
            failed = rng.binomial(predictions, rate)
            failures = rng.multinomial(failed, wrong)[:, :-1]
            labels = rng.multinomial(predictions - failed, right)[:, :-1] + failures
            at = look + lags
            for column, counts in ((2 * arm, failures), (2 * arm + 1, labels)):
                arrived[:, at : at + lags + 1, column] += counts
                closed[:, at + world.window, column] += counts[:, : world.window + 1].sum(axis=1)
    # Cohorts count from the first prediction of the rollout on, in both arms.
    closed[:, : lags + world.window] = 0
    since_start = slice(lags, lags + world.looks)
    return arrived[:, since_start], closed[:, since_start]


def _arrival(mean: float, lags: int) -> Floats:
    """Chances that a label comes 0, 1, ..., `lags` looks after its prediction, and later than that."""
    still_out = np.exp(-np.arange(lags + 2) / mean)
    return np.append(-np.diff(still_out), still_out[-1])
