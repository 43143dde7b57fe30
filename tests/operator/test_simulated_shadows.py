"""Simulated shadows: their pairs go through the operator's tests, no client meets them, and the error rates hold."""

from dataclasses import replace

import numpy as np
import pytest
from tests.operator.policies import ACCURACY, ANALYSIS, ERRORS, ROLLOUT

from serin_operator.api.spec import Mode, Shadow, Strategy
from serin_operator.batch import Ints, Policy
from serin_operator.decide.forecast import Answers
from serin_operator.decide.paired_forecast import pairs_to_promotion
from serin_operator.simulation import Results, World, simulate

RUNS = 400
PERCENT = 20
ONE = replace(ANALYSIS, metrics=(ACCURACY,))
MERE = replace(ROLLOUT, strategy=Strategy.SHADOW, shadow=Shadow(PERCENT, 60), max_duration=86400)
BEFORE_STEPS = replace(MERE, strategy=Strategy.CANARY)


def run(policy: Policy, world: World, runs: int = RUNS) -> Results:
    return simulate(policy, world, np.random.default_rng(1), runs)


def share(places: Ints, results: Results) -> float:
    return float(np.mean(places < results.scrapes))


def at_most(rate: float) -> float:
    return float(rate + 3 * np.sqrt(rate * (1 - rate) / RUNS))


# The table of docs/adr/0026: 6,000 pairs in 60 looks, margin 2 points.
@pytest.mark.parametrize(
    ("excess", "differ", "labelled", "promoted", "dropped", "pairs"),
    [
        (0.0, 0.02, 1.0, 0.988, 0.013, 500),
        (0.0, 0.02, 0.25, 0.960, 0.024, 2000),
        (0.0, 0.02, 0.05, 0.24, 0.008, 4400),
        (0.02, 0.02, 1.0, 0.008, 0.993, 300),
        (0.02, 0.02, 0.25, 0.029, 0.971, 1200),
        (0.02, 0.04, 1.0, 0.015, 0.985, 800),
        (0.02, 0.04, 0.25, 0.014, 0.899, 2400),
    ],
)
def test_the_table_of_the_decision_record(
    excess: float, differ: float, labelled: float, promoted: float, dropped: float, pairs: int
) -> None:
    world = World(500 / 30, 0.1 + excess, 0.1, scrapes=60, labelled=labelled, differ=differ)
    results = run(Policy(ONE, replace(MERE, shadow=Shadow(PERCENT, 0))), world)
    for found, expected in ((results.promoted, promoted), (results.rolled_back, dropped)):
        error = np.sqrt(max(expected * (1 - expected), 0.01) * (1 / RUNS + 1 / 800))
        assert share(found, results) == pytest.approx(expected, abs=3 * error)
    decided = np.minimum(results.promoted, results.rolled_back)
    median = 100 * (np.median(decided[decided < 60]) + 1)
    assert median == pytest.approx(pairs, rel=0.2, abs=100)


@pytest.mark.parametrize(("differ", "labelled"), [(0.02, 1.0), (0.02, 0.25), (0.005, 0.05), (0.05, 1.0)])
def test_about_seven_in_ten_are_promoted_within_the_time_to_plan_for(differ: float, labelled: float) -> None:
    plan = pairs_to_promotion(Answers(differ, labelled, settled=labelled), margin=0.02, log_odds=np.log(20))
    rate = plan / 60 / 30 / (PERCENT / 100)  # sixty scrapes are the plan
    world = World(rate, 0.1, 0.1, labelled=labelled, differ=differ)
    results = run(Policy(ONE, replace(MERE, shadow=Shadow(PERCENT, 0))), world)
    promoted = results.promoted[results.promoted < results.scrapes]
    assert 0.6 < np.mean(promoted < 60) < 0.8


def test_no_client_meets_a_shadow_before_its_promotion() -> None:
    results = run(Policy(ONE, MERE), World(20, 0.13, 0.1, scrapes=60))
    assert results.exposed.sum() == 0
    assert results.harmed[results.promoted == 60].sum() == 0


def test_it_lasts_and_the_steps_come_after_it() -> None:
    world = World(500, 0.1, 0.1, scrapes=30, differ=0.001)  # evidence suffices at once
    alone, before = (run(Policy(ONE, rollout), world, 50) for rollout in (MERE, BEFORE_STEPS))
    assert np.unique(alone.promoted).tolist() == [1]  # the look after 60 s
    assert np.median(before.promoted) == 1 + 6  # the steps last three minutes
    passed = before.promoted < 30
    requests = 500 * 60 * (0.05 + 0.25 + 0.5)
    assert before.exposed[passed].mean() == pytest.approx(requests, rel=0.01)


def test_a_canary_that_is_worse_never_leaves_the_shadow() -> None:
    results = run(Policy(ONE, BEFORE_STEPS), World(50, 0.15, 0.1))
    assert share(results.rolled_back, results) == 1
    assert results.exposed.max() == 0


def test_an_adaptive_ramp_follows_with_the_evidence_of_the_shadow() -> None:
    policy = Policy(ONE, replace(BEFORE_STEPS, mode=Mode.ADAPTIVE))
    results = run(policy, World(50, 0.1, 0.1))
    assert share(results.promoted, results) > 0.9
    assert share(results.rolled_back, results) <= at_most(0.05)


def test_other_metrics_of_a_shadow_are_compared_arm_by_arm() -> None:
    errors = replace(ERRORS, bound=None)
    policy = Policy(replace(ANALYSIS, metrics=(ACCURACY, errors)), MERE)
    rates = np.array([[0.1], [0.01]])
    good, failing = (run(policy, World(50, rates + more, rates)) for more in (0.0, np.array([[0.0], [0.05]])))
    assert share(good.rolled_back, good) <= at_most(0.05) and share(good.promoted, good) > 0.5
    assert share(failing.rolled_back, failing) == 1


def test_the_bound_of_the_accuracy_is_tested_on_the_labels_of_the_copies() -> None:
    policy = Policy(replace(ANALYSIS, metrics=(replace(ACCURACY, bound=0.05),)), MERE)
    both_over = run(policy, World(50, 0.1, 0.1))
    assert share(both_over.promoted, both_over) == 0
    assert share(both_over.rolled_back, both_over) <= at_most(0.05)
    under = run(
        replace(policy, analysis=replace(ANALYSIS, metrics=(replace(ACCURACY, bound=0.2),))), World(50, 0.1, 0.1)
    )
    assert share(under.promoted, under) > 0.9


def test_answers_differ_no_more_often_than_one_is_wrong() -> None:
    results = run(Policy(ONE, MERE), World(50, 0.001, 0.001, differ=0.5), 50)
    assert share(results.promoted, results) == 1


@pytest.mark.parametrize(("canary", "stable"), [(0.6, 0.6), (1.0, 0.5), (0.5, 0.5), (0.0, 0.3), (0.99, 0.99)])
def test_answers_differ_no_more_often_than_one_is_right(canary: float, stable: float) -> None:
    results = run(Policy(ONE, MERE), World(50, canary, stable, differ=0.95), 50)
    assert (results.rolled_back.max() < results.scrapes) == (canary > stable)
