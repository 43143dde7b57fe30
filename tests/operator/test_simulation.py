"""Simulated rollouts keep the error rates, repeat with their seed, and count what the world does."""

from dataclasses import replace

import numpy as np
import pytest
from tests.operator.policies import ANALYSIS, ROLLOUT

from serin_operator.api.spec import Metric, MetricType, Mode, OnInconclusive, Role
from serin_operator.batch import Ints, Policy
from serin_operator.simulation import Results, World, simulate

RUNS = 300
ONE = replace(ANALYSIS, metrics=(Metric("accuracy", MetricType.ACCURACY, margin=0.02),))


def run(policy: Policy, world: World, seed: int = 1, runs: int = RUNS) -> Results:
    return simulate(policy, world, np.random.default_rng(seed), runs)


def share(places: Ints, results: Results) -> float:
    return float(np.mean(places < results.scrapes))


@pytest.mark.parametrize(
    "world",
    [
        World(10, 0.05, 0.05),
        World(10, np.linspace(0.02, 0.2, 120), np.linspace(0.02, 0.2, 120), weight=30),
        World(10, 0.05, 0.05, missed=0.3, resets=0.2, delay=4),
    ],
    ids=["constant", "drift", "faults"],
)
def test_an_equal_canary_is_rarely_rolled_back(world: World) -> None:
    results = run(Policy(ONE, ROLLOUT), world)
    assert share(results.rolled_back, results) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
    assert share(results.promoted, results) > 0.5
    assert results.harmed.sum() == 0


def test_a_canary_at_the_margin_is_rarely_promoted_and_a_bad_one_found_soon() -> None:
    results = run(Policy(ONE), World(10, 0.07, 0.05))
    assert share(results.promoted, results) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / RUNS)
    results = run(Policy(ONE), World(10, 0.10, 0.05))
    assert share(results.rolled_back, results) == 1
    assert np.median(results.rolled_back) < 12


def test_calibration_takes_bursts_into_account() -> None:
    world = World(100, 0.05, 0.05, noise=0.5, pods=4, scrapes=60)
    without = run(Policy(ONE), world)
    with_it = run(Policy(replace(ONE, calibration=1800)), world)
    assert share(with_it.rolled_back, with_it) < share(without.rolled_back, without)


def test_the_same_seed_gives_the_same_results_and_another_one_others() -> None:
    policy, world = Policy(ONE, ROLLOUT), World(10, 0.06, 0.05, scrapes=30, noise=0.1, pods=3, missed=0.1, resets=0.1)
    first, again, other = run(policy, world, 7), run(policy, world, 7), run(policy, world, 8)
    np.testing.assert_array_equal(first.rolled_back, again.rolled_back)
    np.testing.assert_array_equal(first.exposed, again.exposed)
    assert (first.exposed != other.exposed).any()


def test_runs_are_simulated_in_parts_and_progress_rises_to_1() -> None:
    told: list[float] = []
    world = World(1, 0.5, 0.1, scrapes=10)
    results = simulate(Policy(ONE), world, np.random.default_rng(1), 1100, progress=told.append)
    assert len(results.rolled_back) == len(results.harmed) == 1100
    assert told == sorted(told) and told[-1] == 1


def test_exposed_requests_follow_the_steps() -> None:
    policy = Policy(replace(ONE, false_rollback_rate=1e-9, false_promotion_rate=1e-9), ROLLOUT)
    results = run(policy, World(1000, 0.05, 0.05, scrapes=6, interval=30), runs=20)
    expected = 60_000 * (0.05 + 0.25 + 0.50)
    np.testing.assert_allclose(results.exposed, expected, rtol=0.02)


def test_harm_counts_the_guard_that_is_hit_most_and_goes_on_after_a_promotion() -> None:
    observed = Metric("latency", MetricType.LATENCY, margin=0.05, role=Role.OBSERVE)
    gate = Metric("accuracy", MetricType.ACCURACY, margin=0.3, tolerance=0.2)
    policy = Policy(replace(ONE, metrics=(gate, observed)))
    results = run(policy, World(100, [[0.15], [0.9]], [[0.05], [0.1]], scrapes=20), runs=50)
    assert share(results.promoted, results) == 1
    after = (20 - 1 - results.promoted) * 100 * 30
    np.testing.assert_allclose(results.harmed, 0.1 * (results.exposed + after))


def test_an_adaptive_ramp_keeps_the_harm_within_its_budget() -> None:
    ramp = replace(ROLLOUT, mode=Mode.ADAPTIVE, exposure_budget=50, on_inconclusive=OnInconclusive.ROLLBACK)
    for canary in (0.07, 0.15, 0.5):
        results = run(Policy(ONE, ramp), World(20, canary, 0.05))
        harmed_on_trial = results.exposed * (canary - 0.05)
        assert harmed_on_trial.mean() <= 50
    good = run(Policy(ONE, replace(ramp, exposure_budget=5000)), World(20, 0.05, 0.05))
    assert share(good.promoted, good) > 0.9
