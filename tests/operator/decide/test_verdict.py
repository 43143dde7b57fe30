"""The rules over all metrics: tables of cases, the weighted mean of e-values, one rollout against a batch."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from serin_operator.api.spec import Goal
from serin_operator.decide.verdict import (
    WATCH_SHARE,
    Action,
    BoundOdds,
    Finding,
    Standing,
    Verdict,
    finding,
    log_odds_for_rollback,
    promotes,
    rolls_back,
    verdict,
)

ALPHA = BETA = 0.05


def standing(
    name: str = "errors",
    *,
    worse: float = 1,
    non_inferior: float = 1,
    superior: float = 1,
    bound: tuple[float, float, float] | None = None,
    guards: bool = True,
    gates: bool = True,
    weight: float = 1,
    goal: Goal = Goal.NON_INFERIOR,
) -> Standing:
    """A standing with these odds; bound: over, under, stable over."""
    return Standing(
        name=name,
        guards=guards,
        gates=gates,
        weight=weight,
        goal=goal,
        log_e_worse=math.log(worse),
        log_e_non_inferior=math.log(non_inferior),
        log_e_superior=math.log(superior),
        bound=BoundOdds(*(math.log(odds) for odds in bound)) if bound else None,
    )


WAIT = Verdict(Action.WAIT)
PROMOTE = Verdict(Action.PROMOTE)
WORSE = Verdict(Action.ROLL_BACK, "errors", Finding.WORSE)
SLOWER = replace(WORSE, metric="latency")
OVER = Verdict(Action.ROLL_BACK, "errors", Finding.OVER_BOUND)
BOTH = Verdict(Action.WAIT, both_over=("errors",))
BOTH_SLOW = Verdict(Action.WAIT, both_over=("latency",))


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ([], WAIT),
        ([standing()], WAIT),
        ([standing(worse=20.3)], WORSE),
        ([standing(worse=20.1)], WAIT),  # WATCH_SHARE of the weight is the watch's
        ([standing(worse=20.3, non_inferior=99)], WORSE),
        ([standing(non_inferior=20.1)], PROMOTE),
        ([standing(non_inferior=19.9)], WAIT),
        ([standing(non_inferior=99), standing("latency", non_inferior=19)], WAIT),
        ([standing(non_inferior=99), standing("latency", non_inferior=21)], PROMOTE),
        ([standing(worse=39), standing("latency")], WAIT),
        ([standing(worse=40), standing("latency")], WORSE),
        ([standing(worse=1e300), standing("latency")], WORSE),
        # weights: 27 parts of 3/4, 1 of 1/4
        ([standing(worse=27, weight=3), standing("latency")], WORSE),
        ([standing(worse=27), standing("latency", weight=3)], WAIT),
        # the most evidence, weighted, names the rollback
        ([standing(worse=70, weight=2), standing("latency", worse=100)], WORSE),
        # roles
        ([standing(worse=1e6, guards=False)], WAIT),
        ([standing(non_inferior=99, guards=False)], PROMOTE),
        ([standing(non_inferior=99, guards=False), standing("latency", worse=21, gates=False)], SLOWER),
        ([standing(non_inferior=99), standing("latency", gates=False)], PROMOTE),
        ([standing(non_inferior=99, gates=False)], WAIT),
        ([standing(worse=1e6, non_inferior=99, guards=False, gates=False)], WAIT),
        ([standing(non_inferior=99), standing("latency", worse=1e6, guards=False, gates=False)], PROMOTE),
        # an observer has no part in the mean
        ([standing(worse=20.3), standing("latency", guards=False, gates=False)], WORSE),
        # goals
        ([standing(non_inferior=99, goal=Goal.SUPERIOR)], WAIT),
        ([standing(non_inferior=1, superior=21, goal=Goal.SUPERIOR)], PROMOTE),
        # bounds
        ([standing(non_inferior=99, bound=(1, 19, 1))], WAIT),
        ([standing(non_inferior=99, bound=(1, 21, 1))], PROMOTE),
        ([standing(non_inferior=99, bound=(39, 1, 1))], WAIT),
        ([standing(non_inferior=99, bound=(41, 1, 1))], OVER),
        ([standing(non_inferior=99, bound=(41, 1, 19))], OVER),
        ([standing(non_inferior=99, bound=(41, 1, 21))], BOTH),
        ([standing(worse=60, bound=(1e6, 1, 21))], replace(WORSE, both_over=("errors",))),
        ([standing(worse=39, bound=(1e6, 1, 21))], BOTH),
        ([standing(non_inferior=99, bound=(1, 21, 1e6))], PROMOTE),  # the stable breaks it, the canary mends it
        ([standing(non_inferior=99, bound=(1e6, 1, 1), guards=False)], WAIT),
        ([standing(non_inferior=99), standing("latency", gates=False, bound=(1, 1, 1))], PROMOTE),
        ([standing(non_inferior=99), standing("latency", gates=False, bound=(99, 1, 99))], BOTH_SLOW),
        ([standing(non_inferior=99), standing("latency", guards=False, gates=False, bound=(99, 1, 99))], PROMOTE),
    ],
)  # fmt: skip
def test_the_verdict_over_metrics(standings: list[Standing], expected: Verdict) -> None:
    assert verdict(standings, alpha=ALPHA, beta=BETA) == expected


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (standing(worse=21, non_inferior=21), Finding.WORSE),
        (standing(non_inferior=21), Finding.NON_INFERIOR),
        (standing(non_inferior=21, superior=21), Finding.SUPERIOR),
        (standing(worse=19, non_inferior=19, superior=19), Finding.UNDECIDED),
        (standing(non_inferior=21, bound=(21, 1, 1)), Finding.OVER_BOUND),
        (standing(worse=21, bound=(21, 1, 1)), Finding.WORSE),
        (standing(worse=21, bound=(21, 1, 21)), Finding.BOTH_OVER_BOUND),
        (standing(worse=21)._replace(seen=False), Finding.NO_DATA),
        (standing(worse=21, guards=False, gates=False), Finding.WORSE),
    ],
)
def test_the_finding_of_one_metric(one: Standing, expected: Finding) -> None:
    assert finding(one, alpha=ALPHA, beta=BETA) is expected


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 7.0)])
@pytest.mark.parametrize("shared", [False, True])
def test_the_mean_of_e_values_is_an_e_value_by_exhaustion(weights: tuple[float, float, float], shared: bool) -> None:
    """Three likelihood ratios of 4 Bernoulli trials each, independent or all of the same trials: mean at most 1."""
    null, alternatives, n = 0.3, (0.4, 0.6, 0.9), 4

    def log_e(y: int, f: float) -> float:
        return y * math.log(f / null) + (n - y) * math.log((1 - f) / (1 - null))

    outcomes = [(y, y, y) for y in range(n + 1)] if shared else list(itertools.product(range(n + 1), repeat=3))
    mean = 0.0
    for outcome in outcomes:
        chance = math.prod(binom.pmf(y, n, null) for y in (outcome[:1] if shared else outcome))
        standings = [
            standing(str(f), weight=w)._replace(log_e_worse=log_e(y, f))
            for y, f, w in zip(outcome, alternatives, weights, strict=True)
        ]
        combined = math.exp(float(log_odds_for_rollback(standings, alpha=ALPHA)))
        expected = sum(w * math.exp(log_e(y, f)) for y, f, w in zip(outcome, alternatives, weights, strict=True))
        assert combined == pytest.approx((1 - WATCH_SHARE) * expected / sum(weights))
        mean += chance * combined
    assert mean == pytest.approx(1 - WATCH_SHARE)


LOG = st.floats(-50, 800)
STANDINGS = st.lists(
    st.builds(
        Standing,
        name=st.sampled_from(["errors", "latency", "accuracy"]),
        guards=st.booleans(),
        gates=st.booleans(),
        weight=st.floats(0.01, 100),
        goal=st.sampled_from(Goal),
        log_e_worse=LOG,
        log_e_non_inferior=LOG,
        log_e_superior=LOG,
        bound=st.none() | st.builds(BoundOdds, LOG, LOG, LOG),
    ),
    max_size=5,
)


@given(STANDINGS)
def test_a_batch_is_decided_as_each_rollout_in_it(standings: list[Standing]) -> None:
    def pair(each: Standing) -> Standing:
        calm = BoundOdds(*(np.array([log, 0.0]) for log in each.bound)) if each.bound else None
        return each._replace(
            log_e_worse=np.array([each.log_e_worse, 0.0]),
            log_e_non_inferior=np.array([each.log_e_non_inferior, 0.0]),
            log_e_superior=np.array([each.log_e_superior, 0.0]),
            bound=calm,
        )

    batch = [pair(each) for each in standings]
    back, promote = rolls_back(batch, alpha=ALPHA), promotes(batch, alpha=ALPHA, beta=BETA)
    action = verdict(standings, alpha=ALPHA, beta=BETA).action
    assert back.shape == promote.shape == ((2,) if standings else ())
    assert bool(back.flat[0]) == (action is Action.ROLL_BACK)
    assert bool(promote.flat[0] and not back.flat[0]) == (action is Action.PROMOTE)
    assert not back.flat[-1] or len(standings) == 0 or back.flat[0]


@given(STANDINGS, st.floats(0, 100))
def test_more_odds_of_worse_never_help_the_canary(standings: list[Standing], more: float) -> None:
    rank = {Action.ROLL_BACK: 0, Action.WAIT: 1, Action.PROMOTE: 2}
    worse = [each._replace(log_e_worse=each.log_e_worse + more) for each in standings]
    before, after = (verdict(each, alpha=ALPHA, beta=BETA).action for each in (standings, worse))
    assert rank[after] <= rank[before]


@given(STANDINGS)
def test_an_observer_changes_nothing(standings: list[Standing]) -> None:
    observer = standing("seen", worse=1e9, bound=(1e9, 1, 1e9), guards=False, gates=False)
    alone = verdict(standings, alpha=ALPHA, beta=BETA)
    assert verdict([*standings, observer], alpha=ALPHA, beta=BETA) == alone
