"""Labels until a verdict: pairs of answers to the same requests, next to requests that are split between the arms."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.decisions import contest
from bench.decisions.contest import ALPHA, BETA
from bench.decisions.outcomes import Outcome
from bench.decisions.report import Column, Goal, Record, Section, number, percent
from bench.decisions.worlds import HISTORY, MARGIN
from serin_operator.decide import paired
from serin_operator.decide.paired_forecast import one_wrong

_FAILURES = 0.10  # of stable, an accuracy of 90 %
_PER_LOOK = 10  # predictions of the canary
_LOOKS = 2000  # at most
_HALF, _TENTH = "Split, half to the canary", "Split, a tenth to the canary"
_PAIRED = "Paired"
_GOAL = 0.25
_MORE = 4  # times the runs where the goal is near


@dataclass(frozen=True, slots=True)
class Canary:
    """excess: how much larger its share of failures is than stable's. differ: share of requests answered differently.

    One of two answers that differ is right, as with two classes.
    """

    excess: float
    differ: float

    @property
    def name(self) -> str:
        """For people."""
        what = f"worse by {100 * self.excess:g} points" if self.excess else "as good"
        return f"{100 - 100 * self.differ:g} % agreement, canary {what}"


_AT_GOAL = Canary(0.0, 0.02)
_CANARIES = [
    _AT_GOAL,
    Canary(0.02, 0.02),
    Canary(0.0, 0.05),
    Canary(0.02, 0.05),
    Canary(0.05, 0.05),
    Canary(0.0, 0.005),
]


def section(runs: int) -> Section:
    """An equal canary and worse ones, at three rates of agreement."""
    return Section(
        key="pairs",
        title="Pairs of answers to the same requests",
        note=(
            f"Accuracy 90 %, margin 2 points, looks after every {_PER_LOOK} predictions of the canary, {runs} runs,\n"
            f"{_MORE} times as many at the goal. Labelled: predictions of the canary with a label until the verdict,\n"
            f"at most {_LOOKS * _PER_LOOK:,}. Of half, of a tenth: that, in parts of what a split needs. Each test\n"
            f"knows a share from {HISTORY} earlier requests: of stable's failures, or of answers that differ.\n"
            "Differ: labels that are needed when only answers that differ are labelled."
        ),
        columns=[
            Column("Test", "test"),
            Column("Promoted", "promoted", percent, lambda row: row["excess"] >= MARGIN and row["promoted"] > BETA),
            Column("Rolled back", "rolled_back", percent, lambda row: not row["excess"] and row["rolled_back"] > ALPHA),
            Column("Labelled, mean", "mean", number),
            Column("median", "median", number),
            Column("of half", "of_half", _ratio),
            Column("of a tenth", "of_tenth", _ratio),
            Column("Differ, mean", "differing", number),
            Column("median", "differing_median", number),
        ],
        tasks=[partial(rows, canary, times=_MORE if canary == _AT_GOAL else 1) for canary in _CANARIES],
        runs=runs,
        group="group",
    )


def rows(canary: Canary, seed: int, runs: int, *, times: int = 1) -> list[Record]:
    """One canary and every test, with so many times the runs."""
    rng = np.random.default_rng(seed)
    records = []
    for name, share in ((_HALF, 0.5), (_TENTH, 0.1)):
        outcomes = [_split(canary, share, rng, runs) for _ in range(times)]
        rolled_back = np.concatenate([each.rolled_back for each in outcomes])
        promoted = np.concatenate([each.promoted for each in outcomes])
        records.append(_record(canary, name, Outcome(_LOOKS, rolled_back, promoted)))
    for name, history in ((_PAIRED, HISTORY), ("Paired, without the earlier requests", 0)):
        outcome, differing = _pairs(canary, rng, times * runs, history=history, labelled=True)
        needed = {"differing": float(differing.mean()), "differing_median": float(np.median(differing))}
        records.append(_record(canary, name, outcome) | needed)
    outcome, _ = _pairs(canary, rng, times * runs, history=HISTORY, labelled=False)
    labels = 0.0 if outcome.promotions > 0.5 else None
    records.append(_record(canary, "Paired, without any label", outcome) | {"mean": labels, "median": labels})
    half, tenth = records[0]["mean"], records[1]["mean"]
    return [
        record | {"of_half": _part(record["mean"], half), "of_tenth": _part(record["mean"], tenth)}
        for record in records
    ]


def goals(records: list[Record]) -> list[Goal]:
    """What an equal canary needs at 98 % agreement, and the error rates."""
    by_test = {record["test"]: record for record in records if record["group"] == _AT_GOAL.name}
    found, tenth = by_test[_PAIRED], by_test[_TENTH]
    of_differing = found["differing"] / tenth["mean"]
    of_pairs = [record for record in records if record["test"] not in (_HALF, _TENTH)]
    promoted = max(record["promoted"] for record in of_pairs if record["excess"] >= MARGIN)
    rolled_back = max(record["rolled_back"] for record in of_pairs if not record["excess"])
    where = "at 90 % accuracy and 98 % agreement"
    return [
        Goal(
            f"Pairs need at most ¼ of the canary's labels {where}, against an even split",
            _ratio(found["of_half"]),
            found["of_half"] <= _GOAL,
        ),
        Goal(
            "The same against a split with a tenth, with every pair labelled",
            _ratio(found["of_tenth"]),
            found["of_tenth"] <= _GOAL,
        ),
        Goal("The same, where only answers that differ are labelled", _ratio(of_differing), of_differing <= _GOAL),
        Goal(
            "Both error rates at most 5 % with pairs",
            f"at most {percent(rolled_back)} and {percent(promoted)}",
            max(promoted, rolled_back) <= ALPHA,
        ),
    ]


def _split(canary: Canary, share: float, rng: np.random.Generator, runs: int) -> Outcome:
    """The test of separate requests, so many of which go to the canary."""
    stable = round(_PER_LOOK * (1 - share) / share)
    table = np.empty((runs, _LOOKS, 4), np.int64)
    table[..., 1], table[..., 3] = _PER_LOOK, stable
    table[..., 0] = rng.binomial(_PER_LOOK, _FAILURES + canary.excess, (runs, _LOOKS))
    table[..., 2] = rng.binomial(stable, _FAILURES, (runs, _LOOKS))
    past = np.stack([rng.binomial(HISTORY, _FAILURES, runs), np.full(runs, HISTORY)], axis=1)
    return contest.serin(table, contest.policy(), past=past)


def _pairs(
    canary: Canary, rng: np.random.Generator, runs: int, *, history: int, labelled: bool
) -> tuple[Outcome, npt.NDArray[np.int64]]:
    """The test of pairs, and how many answers had differed by the verdict, (runs,).

    history: earlier pairs, that tell how often answers differ. labelled: whether labels come, at once, or never.
    """
    b, c = one_wrong(canary.differ, canary.excess)
    chances = [1 - canary.differ, *((b, c, 0.0) if labelled else (0.0, 0.0, canary.differ))]
    earlier = np.stack([rng.binomial(history, canary.differ, runs), np.full(runs, history)], axis=1)
    state = paired.start(tolerance=np.zeros(runs), margin=MARGIN, history=earlier)
    rolled_back, promoted = np.full((2, runs), _LOOKS, dtype=np.int64)
    differing, under_way = np.zeros(runs, np.int64), np.arange(runs)
    for look in range(_LOOKS):
        state = paired.update(state, rng.multinomial(_PER_LOOK, chances, len(under_way)))
        worse = paired.log_e_worse(state) >= -math.log(ALPHA)
        good = (paired.log_e_non_inferior(state) >= -math.log(BETA)) & ~worse
        differing[under_way] = state.pairs[:, 1:].sum(axis=1)
        rolled_back[under_way[worse]] = look
        promoted[under_way[good]] = look
        stays = np.flatnonzero(~(worse | good))
        under_way, state = under_way[stays], paired.take(state, stays)
        if not len(stays):
            break
    return Outcome(_LOOKS, rolled_back, promoted), differing


def _record(canary: Canary, test: str, outcome: Outcome) -> dict[str, Any]:
    looks = np.minimum(np.minimum(outcome.rolled_back, outcome.promoted) + 1, _LOOKS)
    return {
        "group": canary.name,
        "excess": canary.excess,
        "test": test,
        "promoted": outcome.promotions,
        "rolled_back": outcome.rollbacks,
        "mean": float(looks.mean()) * _PER_LOOK,
        "median": float(np.median(looks)) * _PER_LOOK,
    }


def _part(value: float | None, whole: float) -> float | None:
    return None if value is None else value / whole


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
