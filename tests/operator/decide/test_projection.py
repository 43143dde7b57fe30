"""The projection onto a null hypothesis and the likelihood ratios made with it."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nchypergeom_fisher

from serin_operator.decide.projection import (
    Array,
    divergence_from_margin,
    log_likelihood_ratios,
    project,
    project_mean,
)

RATE = st.floats(1e-7, 1 - 1e-7)
TRIALS = st.integers(1, 10**7)
DIFFERENCE = st.floats(-0.99, 0.99)


def ratio(f_c: float, f_s: float, d: float, *counts: int) -> float:
    """The log likelihood ratio of one stratum."""
    of_canary, of_stable = np.full((1, 1, 1), f_c), np.full((1, 1, 1), f_s)
    return float(log_likelihood_ratios(of_canary, of_stable, np.full((1, 1), d), np.array([[counts]]))[0, 0])


def test_safe_2x2_test_of_safestats() -> None:
    """Blocks of one trial per arm, Beta(1, 1) on each rate, successes (1, 1) and (0, 0): e-values 1 and 16/9."""
    log_e, expected = 0.0, [1, 16 / 9]
    for past, e_value in enumerate(expected):
        log_e += ratio((1 + past) / (2 + past), 1 / (2 + past), 0.0, 1, 1, 0, 1)
        assert math.exp(log_e) == pytest.approx(e_value)


@pytest.mark.parametrize(
    ("n_c", "n_s", "failures", "odds"),
    [(2, 2, 2, 2.0), (30, 270, 17, 2.1), (30, 270, 17, 0.4), (5, 3, 6, 9.0), (200, 100, 40, 1.3)],
)
@pytest.mark.parametrize("f_s", [0.03, 0.3, 0.9])
def test_given_the_total_the_ratio_turns_chance_into_fishers_noncentral_hypergeometric(
    n_c: int, n_s: int, failures: int, odds: float, f_s: float
) -> None:
    """The exact conditional test of two proportions, whatever f_s is; the first case is {1, 8, 4}/13 of safestats."""
    f_c = odds * f_s / (1 - f_s + odds * f_s)
    counts = range(max(0, failures - n_s), min(n_c, failures) + 1)
    logs = [
        math.log(math.comb(n_c, y) * math.comb(n_s, failures - y)) + ratio(f_c, f_s, 0.0, y, n_c, failures - y, n_s)
        for y in counts
    ]
    weights = np.exp(np.array(logs) - max(logs))
    exact = nchypergeom_fisher(M=n_c + n_s, n=failures, N=n_c, odds=odds).pmf(counts)
    assert weights / weights.sum() == pytest.approx(exact, abs=1e-10)


def test_it_gains_as_much_as_the_exact_conditional_test() -> None:
    """2000 blocks with failures of 10 % and 5 %: the mean gains of both tests differ by no more than chance allows."""
    rng = np.random.default_rng(1)
    y_c, y_s = rng.binomial(30, 0.1, 2000), rng.binomial(270, 0.05, 2000)
    counts = np.stack([y_c, np.full(2000, 30), y_s, np.full(2000, 270)], axis=1)[:, None]
    ones = np.ones((2000, 1, 1))
    gains = log_likelihood_ratios(0.1 * ones, 0.05 * ones, np.zeros((2000, 1)), counts)[:, 0]
    odds = (0.1 / 0.9) / (0.05 / 0.95)
    exact = np.empty(2000)
    for m in np.unique(y_c + y_s):
        alike = y_c + y_s == m
        worse, equal = (nchypergeom_fisher(300, m, 30, each).logpmf(y_c[alike]) for each in (odds, 1.0))
        exact[alike] = worse - equal
    apart = gains - exact
    assert abs(apart.mean()) <= 3 * apart.std() / math.sqrt(2000) + 1e-3
    assert apart.std() < 0.1 * exact.std()


@given(RATE, RATE, DIFFERENCE, TRIALS, TRIALS)
def test_the_projection_is_nearest_on_its_line(f_c: float, f_s: float, d: float, n_c: int, n_s: int) -> None:
    def distance(g_s: Array) -> Array:
        return np.asarray(
            sum(
                n / (n_c + n_s) * (f * np.log(f / g) + (1 - f) * np.log((1 - f) / (1 - g)))
                for n, f, g in ((n_c, f_c, g_s + d), (n_s, f_s, g_s))
            )
        )

    g_c, g_s = project(*(np.array([float(value)]) for value in (f_c, f_s, d, n_c, n_s)))
    elsewhere = np.linspace(max(0, -d) + 1e-9, min(1, 1 - d) - 1e-9, 501)
    assert g_c == pytest.approx(g_s + d, abs=1e-15)
    assert np.all(distance(g_s) <= distance(elsewhere) + 1e-12)


def exact_root(f_c: float, f_s: float, d: float, n_c: int, n_s: int) -> Fraction:
    """g_s by halving in exact arithmetic, to 60 bits below the smaller distance from an edge."""
    c, s, apart = Fraction(f_c), Fraction(f_s), Fraction(d)

    def cubic(g: Fraction) -> Fraction:
        return n_c * (g + apart - c) * g * (1 - g) + n_s * (g - s) * (g + apart) * (1 - g - apart)

    low, high = max(Fraction(0), -apart), min(Fraction(1), 1 - apart)
    for _ in range(90):
        middle = (low + high) / 2
        low, high = (low, middle) if cubic(middle) > 0 else (middle, high)
    return (low + high) / 2


@given(
    st.sampled_from([1e-6, 0.001, 0.05, 0.3, 0.9, 0.9999]),
    st.sampled_from([1e-6, 0.001, 0.05, 0.3, 0.9, 0.9999]),
    st.sampled_from([-0.9, -0.5, -0.02, -1e-5, 0.0, 1e-5, 0.001, 0.02, 0.7]),
    st.sampled_from([1, 30, 10**6]),
    st.sampled_from([1, 270, 10**6]),
)
def test_the_projection_is_as_good_as_double_precision_allows(
    f_c: float, f_s: float, d: float, n_c: int, n_s: int
) -> None:
    _, g_s = project(*(np.array([float(value)]) for value in (f_c, f_s, d, n_c, n_s)))
    # The worst of all these combinations is 8.1e-16 off.
    assert abs(Fraction(float(g_s[0])) - exact_root(f_c, f_s, d, n_c, n_s)) <= 1e-15


@given(RATE, RATE, DIFFERENCE, TRIALS, TRIALS)
def test_one_stratum_by_either_method(f_c: float, f_s: float, d: float, n_c: int, n_s: int) -> None:
    of_arms = [np.full((1, 1, 1), float(value)) for value in (f_c, f_s)]
    trials = [np.full((1, 1, 1), float(value)) for value in (n_c, n_s)]
    cubic = project(of_arms[0], of_arms[1], np.full((1, 1, 1), d), trials[0], trials[1])
    multiplier = project_mean(of_arms[0], of_arms[1], np.full((1, 1), d), trials[0], trials[1])
    assert np.abs(np.array(cubic) - np.array(multiplier)).max() <= 1e-11


STRATA = st.integers(2, 4)


@given(STRATA, st.integers(0, 2**32 - 1), DIFFERENCE)
def test_several_strata_are_projected_to_the_near_side_of_the_surface_and_nearest_there(
    strata: int, seed: int, d: float
) -> None:
    """At the minimum every n (f - g) / (g (1 - g)) is the same multiplier, its sign that of the arm."""
    rng = np.random.default_rng(seed)
    f_c, f_s = rng.uniform(0.001, 0.999, (2, 1, strata, 1))
    n_c, n_s = np.round(10 ** rng.uniform(0, 6, (2, 1, strata, 1)))
    g_c, g_s = project_mean(f_c, f_s, np.full((1, 1), d), n_c, n_s)
    left = np.sum(g_c - g_s) - strata * d
    side = np.sign(np.sum(f_c - f_s) - strata * d)
    assert -1e-14 <= side * left <= 1e-11
    pulls = np.concatenate([n_c * (f_c - g_c) / (g_c * (1 - g_c)), n_s * (g_s - f_s) / (g_s * (1 - g_s))])
    assert np.ptp(pulls) <= 1e-6 * np.abs(pulls).max() + 1e-9 * max(n_c.max(), n_s.max())


COUNT = st.builds(lambda y, rest: (y, y + rest), st.integers(0, 40), st.integers(1, 400))


@given(RATE, RATE, DIFFERENCE, COUNT, COUNT)
def test_swapping_the_arms_mirrors_the_ratio(
    f_c: float, f_s: float, d: float, canary: tuple[int, int], stable: tuple[int, int]
) -> None:
    there, back = ratio(f_c, f_s, d, *canary, *stable), ratio(f_s, f_c, -d, *stable, *canary)
    assert there == pytest.approx(back, rel=1e-7, abs=1e-7)


@given(RATE, RATE, DIFFERENCE, COUNT, COUNT)
def test_counting_successes_instead_mirrors_the_ratio(
    f_c: float, f_s: float, d: float, canary: tuple[int, int], stable: tuple[int, int]
) -> None:
    good = [(n - y, n) for y, n in (canary, stable)]
    failures, successes = ratio(f_c, f_s, d, *canary, *stable), ratio(1 - f_c, 1 - f_s, -d, *good[0], *good[1])
    assert failures == pytest.approx(successes, rel=1e-7, abs=1e-6)


@pytest.mark.parametrize(("per_second", "minutes"), [(1, 158), (10, 15.8), (100, 1.58)])
def test_the_shortest_wait_for_95_percent_accuracy_two_points_and_a_tenth_of_the_traffic(
    per_second: int, minutes: float
) -> None:
    growth = divergence_from_margin(0.05, 0.02, 6 * per_second, 54 * per_second)
    assert math.log(20) / growth == pytest.approx(minutes, rel=1e-3)


def test_divergences_of_many_at_once() -> None:
    rates, margins = np.array([0.01, 0.05]), np.array([[0.01], [0.02]])
    many = divergence_from_margin(rates, margins, 60, 540)
    assert many.shape == (2, 2)
    assert many[1, 0] == pytest.approx(divergence_from_margin(0.01, 0.02, 60, 540))
