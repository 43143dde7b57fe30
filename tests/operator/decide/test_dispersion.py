"""Overdispersion between two halves of one arm: known values, simulations, and the stored form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import hypergeom

from serin_operator.decide.dispersion import Dispersion, decode, encode, grow, phi, start
from serin_operator.decide.projection import Integers


def block(*counts: int) -> Integers:
    """y_1, n_1, y_2, n_2 of one stratum, or of several in order, for one metric."""
    return np.array(counts, np.int64).reshape(1, -1, 4)


def test_one_block_has_the_variance_of_fishers_exact_test() -> None:
    state = grow(start(1), block(3, 30, 14, 270))
    assert state.variance == pytest.approx(hypergeom(300, 17, 30).var())
    assert state.squares == pytest.approx((3 - hypergeom(300, 17, 30).mean()) ** 2)
    assert state.blocks == 1


def test_strata_add_up() -> None:
    together = grow(start(1), block(3, 30, 14, 270, 1, 10, 2, 9))
    apart = grow(grow(start(1), block(3, 30, 14, 270)), block(1, 10, 2, 9))
    assert together.squares == pytest.approx(apart.squares)
    assert together.variance == pytest.approx(apart.variance)
    assert [*together.blocks, *apart.blocks] == [1, 2]


@pytest.mark.parametrize("silent", [(0, 0, 0, 0), (0, 30, 0, 30), (30, 30, 30, 30), (3, 30, 0, 0), (1, 1, 0, 0)])
def test_a_block_that_says_nothing_changes_nothing(silent: tuple[int, ...]) -> None:
    assert encode(grow(start(1), block(*silent))) == encode(start(1))


def test_it_is_1_below_ten_blocks_and_never_less() -> None:
    state = start(1)
    for _ in range(9):
        state = grow(state, block(10, 30, 0, 30))
        assert phi(state) == 1
    assert phi(grow(state, block(10, 30, 0, 30))) > 5
    even = start(1)
    for _ in range(20):
        even = grow(even, block(5, 30, 5, 30))
    assert phi(even) == 1


def simulated(noise: float, per_half: int, drift: float, runs: int = 400, blocks: int = 60) -> Dispersion:
    """Each half's log odds of failure have normal noise in each block, and both share a drift."""
    rng = np.random.default_rng(3)
    state = start(runs)
    for t in range(blocks):
        rates = expit(logit(0.05) + drift * t / blocks + noise * rng.normal(size=(runs, 2)))
        failures = rng.binomial(per_half, rates)
        trials = np.full_like(failures, per_half)
        state = grow(state, np.stack([failures[:, 0], trials[:, 0], failures[:, 1], trials[:, 1]], axis=1)[:, None])
    return state


@pytest.mark.parametrize("drift", [0.0, 1.5])
def test_independent_trials_have_1_also_when_both_halves_drift(drift: float) -> None:
    assert np.median(phi(simulated(0.0, 1500, drift))) == pytest.approx(1.0, abs=0.05)
    state = simulated(0.0, 1500, drift)
    assert state.squares.sum() / state.variance.sum() == pytest.approx(1.0, abs=0.03)


def test_noise_of_the_log_odds_is_found() -> None:
    """Per half of 1500 requests and 5 %, noise 0.3: the variance is 1 + n f (1 - f) 0.09 = 7.4 times that of
    independent trials, and some more, because the noise is not small."""
    found = phi(simulated(0.3, 1500, 0.0))
    assert np.mean(found) == pytest.approx(7.9, abs=0.4)
    assert np.quantile(found, 0.02) > 4


COUNTS = st.builds(lambda y, rest: (y, y + rest), st.integers(0, 40), st.integers(0, 400))


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=12))
def test_what_is_decoded_encodes_equal(blocks: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
    state = start(1)
    for one, other in blocks:
        state = grow(state, block(*one, *other))
    again = decode(encode(state))
    assert encode(again) == encode(state)
    assert phi(again) == phi(state)


def test_no_metrics_at_all() -> None:
    assert len(decode([])) == len(phi(start(0))) == 0


@pytest.mark.parametrize(
    "text", ["", "none", "ä", encode(Dispersion(np.array([-1.0]), np.array([1.0]), np.array([3])))[0]]
)
def test_another_text_than_a_stored_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="state"):
        decode([text])


@pytest.mark.parametrize("counts", [block(2, 1, 0, 0), block(-1, 1, 0, 0), np.zeros((1, 4), int), np.zeros((1, 1, 4))])
def test_impossible_blocks_are_refused(counts: Integers) -> None:
    with pytest.raises(ValueError, match=r"need|expected"):
        grow(start(1), counts)
