"""What pairs tell before labels: the share of answers that differ, and shifts between classes."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from serin_operator.decide import disagreement
from serin_operator.decide.disagreement import log_e_shift, log_e_shifts

ENOUGH = math.log(20)


@given(st.integers(0, 2000), st.integers(0, 3000))
def test_the_interval_holds_what_was_seen_and_narrows(differ: int, alike: int) -> None:
    low, high = disagreement.interval([[differ, differ + alike]], alpha=0.05)[0]
    seen = differ / max(differ + alike, 1)
    assert 0 <= low <= seen <= high <= 1
    wider = disagreement.interval([[differ, differ + alike]], alpha=0.01)[0]
    more = disagreement.interval([[100 * differ, 100 * (differ + alike)]], alpha=0.05)[0]
    assert wider[0] <= low
    assert high <= wider[1]
    assert more[1] - more[0] <= high - low


def test_without_pairs_nothing_is_known() -> None:
    assert disagreement.interval([[0, 0]], alpha=0.05).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_at_all_looks_the_interval_misses_the_share_seldom(share: float) -> None:
    rng = np.random.default_rng(1)
    totals = np.cumsum(rng.binomial(20, share, (400, 100)), axis=1)
    missed = np.zeros(400, bool)
    for look in range(100):
        counts = np.stack([totals[:, look], np.full(400, 20 * (look + 1))], axis=1)
        low, high = disagreement.interval(counts, alpha=0.05).T
        missed |= (share < low) | (share > high)
    assert missed.sum() <= 33


@pytest.mark.parametrize("moves", [1, 7])
def test_mean_e_values_for_shifts_are_at_most_1_while_no_class_shifts(moves: int) -> None:
    """Three classes that are answered equally often by both: the moves may go round, and need not be symmetric."""
    ways = list(itertools.permutations(range(3), 2))  # from the stable arm's class to the canary's
    outcomes = np.array(
        [each for each in itertools.product(range(moves + 1), repeat=len(ways)) if sum(each) == moves], np.int64
    )
    counts = np.zeros((len(outcomes), 3, 2), np.int64)
    for number, (source, target) in enumerate(ways):
        counts[:, target, 0] += outcomes[:, number]
        counts[:, source, 1] += outcomes[:, number]
    for chances in ([1 / 6] * 6, [1 / 3, 0, 0, 1 / 3, 1 / 3, 0], [0.5, 0, 0.5, 0, 0, 0]):
        means = multinomial.pmf(outcomes, moves, chances) @ np.exp(
            np.column_stack([log_e_shifts(counts), log_e_shift(counts)])
        )
        assert np.all(means <= 1 + 1e-6)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=5))
def test_which_arm_a_shift_is_seen_from_does_not_matter(moves: list[tuple[int, int]]) -> None:
    counts = np.array([moves])
    assert log_e_shift(counts) == pytest.approx(log_e_shift(counts[..., ::-1]))
    assert log_e_shift(counts) == pytest.approx(np.log(np.exp(log_e_shifts(counts)).mean()))


def test_a_shift_is_found_where_it_is() -> None:
    """Thirty answers of the second class have become the first; the third class changes both ways."""
    counts = np.array([[[40, 10], [10, 40], [20, 20]]])
    assert np.all((log_e_shifts(counts) >= ENOUGH) == [[True, True, False]])
    assert log_e_shift(counts)[0] >= ENOUGH
    p = 2 * binom.sf(39, 50, 0.5)
    assert np.exp(-log_e_shifts(counts)[0, 0]) >= p


@pytest.mark.parametrize("counts", [[[1, 0]], [[-1, 2]], [[0.0, 1.0]], [0, 1]])
def test_impossible_counts_are_refused(counts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"need|expected"):
        disagreement.interval(counts, alpha=0.05)


def test_moves_without_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected counts"):
        log_e_shift([[1, 0]])
