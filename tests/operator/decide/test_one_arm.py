"""Tests of one arm against a bound: exact means, directions, error rates and the stored form."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from serin_operator.decide import one_arm
from serin_operator.decide.one_arm import OneArm, decode, encode, log_e_either, log_e_over, log_e_under, start, update
from serin_operator.decide.projection import Array

ENOUGH = math.log(20)


def follow(blocks: list[tuple[int, int]], bound: float) -> OneArm:
    state = start(1)
    for each in blocks:
        state = update(state, [each], bound)
    return state


@pytest.mark.parametrize("trials", [1, 3, 12, 40])
@pytest.mark.parametrize("bound", [0.001, 0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("phi", [1.0, 1.7])
@pytest.mark.parametrize("past", [(0, 0), (3, 20), (20, 20), (0, 500)])
def test_mean_e_values_are_at_most_1_on_the_other_side_of_the_bound(
    past: tuple[int, int], phi: float, bound: float, trials: int
) -> None:
    failures = np.arange(trials + 1)
    before = update(start(trials + 1), np.tile(past, (trials + 1, 1)), bound, phi)
    after = update(before, np.stack([failures, np.full_like(failures, trials)], axis=1), bound, phi)

    def means(rates: Array, log_e: Array) -> Array:
        return np.asarray(binom.pmf(failures, trials, rates[:, None]) @ np.exp(log_e))

    below, above = np.linspace(0, bound, 30), np.linspace(bound, 1, 30)
    assert np.all(means(below, log_e_over(after) - log_e_over(before)) <= 1 + 1e-9)
    assert np.all(means(above, log_e_under(after) - log_e_under(before)) <= 1 + 1e-9)
    assert means(np.array([bound]), log_e_either(after) - log_e_either(before)) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("blocks", "bound", "over", "under"),
    [
        ([(40, 1000)], 0.01, True, False),
        ([(1, 1000)], 0.01, False, True),
        ([(10, 1000)], 0.01, False, False),
        ([(1, 1), (1, 1)], 0.01, True, False),
        ([(30_000, 250_000)], 0.1, True, False),
        ([(0, 100), (0, 200), (0, 200)], 0.01, False, True),
    ],
)
def test_what_is_over_and_what_is_under(blocks: list[tuple[int, int]], bound: float, over: bool, under: bool) -> None:
    state = follow(blocks, bound)
    assert (log_e_over(state)[0] >= ENOUGH, log_e_under(state)[0] >= ENOUGH) == (over, under)


def test_a_bound_that_changes_with_the_weight_tests_the_share_of_the_traffic() -> None:
    """The canary's share of the requests at 1, 10 and 50 %: as it should be, and a tenth more than it should be."""
    as_it_should, too_much = start(1), start(1)
    for weight in (0.01, 0.1, 0.5):
        for _ in range(20):
            as_it_should = update(as_it_should, [(round(3000 * weight), 3000)], weight)
            too_much = update(too_much, [(round(3300 * weight), 3000)], weight)
    assert log_e_either(as_it_should)[0] < 0
    assert log_e_either(too_much)[0] > 3 * ENOUGH


def test_an_arm_at_its_bound_is_seldom_called_over_or_under() -> None:
    """1000 arms, 100 blocks each; at a true rate of 0.05 more than 75 have probability 0.0003."""
    rng = np.random.default_rng(5)
    state, ever = start(1000), np.zeros((3, 1000), bool)
    for _ in range(100):
        n = rng.poisson(30, 1000)
        state = update(state, np.stack([rng.binomial(n, 0.05), n], axis=1), 0.05)
        ever |= np.array([log_e(state) >= ENOUGH for log_e in (log_e_over, log_e_under, log_e_either)])
    assert np.all(ever.sum(axis=1) <= 75)


BLOCK = st.builds(lambda y, rest: (y, y + rest), st.integers(0, 50), st.integers(0, 5000))


@given(st.lists(BLOCK, min_size=1, max_size=5), st.floats(0.001, 0.999), st.data())
def test_more_failures_are_more_evidence_for_over_and_less_for_under(
    blocks: list[tuple[int, int]], bound: float, data: st.DataObject
) -> None:
    where = data.draw(st.integers(0, len(blocks) - 1))
    failures, trials = blocks[where]
    harmed = [*blocks]
    harmed[where] = (data.draw(st.integers(failures, trials)), trials)
    before, after = follow(blocks, bound), follow(harmed, bound)
    slack = 1e-6 * (1 + np.abs([before.over, before.under]).max())
    assert log_e_over(after) >= log_e_over(before) - slack
    assert log_e_under(after) <= log_e_under(before) + slack


@given(st.lists(BLOCK, max_size=5), st.floats(0.001, 0.999))
def test_what_is_decoded_encodes_equal_and_no_counts_change_nothing(
    blocks: list[tuple[int, int]], bound: float
) -> None:
    state = follow(blocks, bound)
    assert encode(decode(encode(state))) == encode(state) == encode(update(state, [(0, 0)], bound))
    assert len(encode(state)[0]) <= 90


def test_no_tests_at_all() -> None:
    assert len(decode([])) == len(start(0)) == len(log_e_over(start(0))) == 0


@pytest.mark.parametrize("text", ["", "none", "ä", encode(OneArm(*np.full((2, 1, 7), np.inf, np.float32)))[0]])
def test_another_text_than_a_stored_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="state"):
        decode([text])


@pytest.mark.parametrize(
    ("counts", "bound", "phi"),
    [
        ([[2, 1]], 0.1, 1.0),
        ([[-1, 1]], 0.1, 1.0),
        ([[0.0, 1.0]], 0.1, 1.0),
        ([0, 1], 0.1, 1.0),
        ([[0, 1]], 0.0, 1.0),
        ([[0, 1]], 1.0, 1.0),
        ([[0, 1]], math.nan, 1.0),
        ([[0, 1]], 0.1, 0.5),
    ],
)
def test_impossible_blocks_are_refused(counts: list[list[int]], bound: float, phi: float) -> None:
    with pytest.raises(ValueError, match=r"need|expected"):
        one_arm.update(start(1), counts, bound, phi)
