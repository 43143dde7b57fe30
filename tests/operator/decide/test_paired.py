"""The paired tests: exact means under their null hypotheses, agreement with exact tests, properties, stored form."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binom, multinomial

from serin_operator.decide import bets, paired
from serin_operator.decide.grid import GRID
from serin_operator.decide.paired import (
    Paired,
    decode,
    encode,
    interval,
    log_e_non_inferior,
    log_e_superior,
    log_e_worse,
    of_labelled,
    onset,
    start,
    take,
    update,
    with_waiting,
)
from serin_operator.decide.projection import Array, Integers

Row = tuple[int, int, int, int]  # same, b, c, open
TARGETS = [(0.0, 0.02), (0.05, 0.3)]


def follow(rows: list[Row], tolerance: float = 0.0, margin: float = 0.02) -> Paired:
    state = start(tolerance=tolerance, margin=margin)
    for row in rows:
        state = update(state, [row])
    return state


def log_e_values(state: Paired) -> Array:
    """(B, 3 + 2 * len(GRID)): worse, non-inferior, superior, and both sides of every difference of the grid."""
    verdicts = np.stack([log_e_worse(state), log_e_non_inferior(state), log_e_superior(state)], axis=1)
    return np.concatenate([verdicts, *paired._of_grid(state)], axis=1)


# --- Exact means under the null hypotheses


def null_rates() -> Array:
    """(P, 3), shares of pairs that are the same, b and c; differences on all edges of the hypotheses among them."""
    differences = [*GRID, 0.3, 0.05, 0.02, 0.9, -0.9]
    rates = [
        (1 - rate, (rate + d) / 2, (rate - d) / 2)
        for d in differences
        for rate in (0.0, 0.001, 0.02, 0.1, 0.5, 1.0)
        if abs(d) <= rate
    ]
    edges = [(1 - abs(d), max(d, 0), max(-d, 0)) for d in differences]
    return np.array(rates + edges)


@pytest.mark.parametrize(("tolerance", "margin"), TARGETS)
@pytest.mark.parametrize("past", [(0, 0, 0, 0), (50, 3, 1, 0), (2, 9, 0, 1), (400, 0, 8, 2)])
@pytest.mark.parametrize("history", [(0, 0), (1, 1000), (300, 300)])
@pytest.mark.parametrize("pairs", [1, 9])
def test_mean_e_values_grow_by_no_more_than_1_on_the_other_side(
    pairs: int, history: tuple[int, int], past: Row, tolerance: float, margin: float
) -> None:
    before = onset(update(start(tolerance=tolerance, margin=margin, history=[history]), [past]))
    outcomes = np.array([each for each in itertools.product(range(pairs + 1), repeat=3) if sum(each) == pairs])
    rates = null_rates()
    chances = multinomial.pmf(outcomes, pairs, rates[:, None, :])
    counts = np.hstack([outcomes, np.zeros((len(outcomes), 1), int)])
    after = log_e_values(update(take(before, np.zeros(len(counts), np.int64)), counts))
    means = chances @ np.exp(after - log_e_values(before))
    d = (rates[:, 1] - rates[:, 2])[:, None]
    on_side = np.hstack(
        [d <= tolerance + 1e-12, d >= margin - 1e-12, d >= -1e-12, d <= GRID + 1e-12, d >= GRID - 1e-12]
    )
    assert on_side.any(axis=0).all()
    # Sums are rounded down to single precision, and those of the past with them.
    assert np.all(means[on_side] <= 1 + 2e-5)


@pytest.mark.parametrize("limit", [-0.3, -0.02, 0.0, 0.01, 0.05, 0.5])
@pytest.mark.parametrize(("p_b", "p_c"), [(0.01, 0.01), (0.03, 0.001), (0.001, 0.03), (0.5, 0.2), (1e-4, 1e-4)])
def test_a_bet_is_the_likelihood_ratio_to_the_nearest_point_of_the_null_hypothesis(
    p_b: float, p_c: float, limit: float
) -> None:
    p, d = np.array([1 - p_b - p_c, p_b, p_c]), np.array([0, 1, -1])
    strength = float(bets.strengths(np.array(p_b), np.array(p_c), np.array(limit)))
    nearest = p / (1 + strength * (d - limit))
    assert np.all(nearest > 0)
    assert nearest.sum() == pytest.approx(1)
    assert nearest @ d == pytest.approx(limit)
    ends = (-1 / (1 - limit) + 1e-12, 1 / (1 + limit) - 1e-12)
    best = minimize_scalar(
        lambda strength: -(p @ np.log1p(strength * (d - limit))), bounds=ends, method="bounded", options={"xatol": 1e-9}
    )
    assert -best.fun == pytest.approx(p @ np.log1p(strength * (d - limit)), abs=1e-9)


# --- McNemar


@given(st.integers(0, 150), st.integers(0, 150), st.integers(0, 10_000))
def test_without_a_tolerance_it_agrees_with_the_exact_test_of_mcnemar(b: int, c: int, same: int) -> None:
    """1 / E is at least the exact p-value, which was made for one look, and pairs that are the same do not matter."""
    state = update(start(tolerance=0.0, margin=0.02), [(same, b, c, 0)])
    assume(same + b + c < 256)  # later a part of the stake is laid anew
    worse, better = log_e_worse(state)[0], log_e_superior(state)[0]
    assert math.exp(-worse) >= binom.sf(b - 1, b + c, 0.5) * (1 - 1e-6)
    assert math.exp(-better) >= binom.sf(c - 1, b + c, 0.5) * (1 - 1e-6)
    assert worse == pytest.approx(log_e_worse(update(start(tolerance=0.0, margin=0.02), [(0, b, c, 0)]))[0], abs=1e-5)


@pytest.mark.parametrize(("b", "c"), [(8, 0), (16, 2), (40, 15), (100, 60)])
def test_it_wins_nearly_as_much_as_the_bet_that_is_best_in_hindsight(b: int, c: int) -> None:
    best = -(b + c) * math.log(0.5) + xlogy(b, b / (b + c)) + xlogy(c, c / (b + c))
    assert best - 2.5 <= log_e_worse(update(start(tolerance=0.0, margin=0.02), [(0, b, c, 0)]))[0] <= best


# --- What more pairs do

ROW = st.tuples(st.integers(0, 300), st.integers(0, 20), st.integers(0, 20), st.integers(0, 5))
ROWS = st.lists(ROW, min_size=1, max_size=5)


@given(ROWS, st.sampled_from(TARGETS))
def test_neither_the_order_of_scrapes_nor_their_grouping_matters(rows: list[Row], target: tuple[float, float]) -> None:
    together = tuple(int(each) for each in np.sum(rows, axis=0))
    assume(sum(together) < 256)  # later onsets of worse depend on when one looks
    one, other = follow(rows, *target), follow(rows[::-1], *target)
    merged = follow([together], *target)  # type: ignore[list-item]
    np.testing.assert_allclose(log_e_values(one), log_e_values(other), atol=1e-4)
    np.testing.assert_allclose(log_e_values(one), log_e_values(merged), atol=1e-4)


@given(ROWS, st.sampled_from(TARGETS))
def test_for_promotion_and_the_interval_they_never_matter(rows: list[Row], target: tuple[float, float]) -> None:
    together = [tuple(int(each) for each in np.sum(rows, axis=0))]
    one, merged = follow(rows, *target), follow(together, *target)  # type: ignore[arg-type]
    np.testing.assert_array_equal(log_e_values(one)[:, 1:], log_e_values(merged)[:, 1:])


@given(ROWS, st.integers(0, 4), st.sampled_from([0, 2, 3]), st.sampled_from(TARGETS))
def test_a_pair_that_only_the_canary_fails_never_helps_it(
    rows: list[Row], where: int, instead_of: int, target: tuple[float, float]
) -> None:
    where %= len(rows)
    assume(rows[where][instead_of] > 0)
    harmed = [list(row) for row in rows]
    harmed[where][instead_of] -= 1
    harmed[where][1] += 1
    before, after = follow(rows, *target), follow([tuple(row) for row in harmed], *target)  # type: ignore[misc]
    assert log_e_non_inferior(after) <= log_e_non_inferior(before) + 1e-6
    assert log_e_superior(after) <= log_e_superior(before) + 1e-6
    assert log_e_worse(after) >= log_e_worse(before) - 1e-4


@given(ROWS)
def test_with_the_arms_swapped_everything_is_mirrored(rows: list[Row]) -> None:
    assume(np.sum(rows) < 256)
    swapped = follow([(same, c, b, open_) for same, b, c, open_ in rows])
    state = follow(rows)
    of_worse = math.log(paired.WORSE.first) + log_e_superior(swapped)
    assert log_e_worse(state) == pytest.approx(np.logaddexp(of_worse, math.log(1 - paired.WORSE.first)), abs=1e-4)
    above, below = paired._of_grid(state)
    mirrored_above, mirrored_below = paired._of_grid(swapped)
    np.testing.assert_allclose(above, mirrored_below[:, ::-1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(below, mirrored_above[:, ::-1], rtol=1e-6, atol=1e-6)


@given(ROW, st.data())
def test_a_missing_label_never_makes_more_evidence_than_the_label(row: Row, data: st.DataObject) -> None:
    """However the open pairs turn out: for every verdict and every difference of the interval."""
    same, b, c, open_ = row
    turned_b = data.draw(st.integers(0, open_))
    turned_c = data.draw(st.integers(0, open_ - turned_b))
    known = (same + open_ - turned_b - turned_c, b + turned_b, c + turned_c, 0)
    assert np.all(log_e_values(follow([row])) <= log_e_values(follow([known])) + 1e-5)


@given(ROWS, st.tuples(st.integers(0, 500), st.integers(0, 20)), st.data())
def test_pairs_that_wait_are_never_more_evidence_than_when_they_are_counted(
    rows: list[Row], waiting: tuple[int, int], data: st.DataObject
) -> None:
    same, differ = waiting
    b = data.draw(st.integers(0, differ))
    c = data.draw(st.integers(0, differ - b))
    state = follow(rows)
    now = log_e_values(with_waiting(state, [waiting]))
    later = log_e_values(update(state, [(same + differ - b - c, b, c, 0)]))
    assert np.all(now[:, 1:] <= later[:, 1:] + 1e-5)
    assert now[0, 0] == log_e_worse(state)[0]


def test_answers_that_hardly_ever_differ_suffice_without_any_label() -> None:
    nothing = start(tolerance=0.0, margin=0.02)
    assert log_e_non_inferior(with_waiting(nothing, [(300, 0)]))[0] >= math.log(20)
    assert log_e_non_inferior(with_waiting(nothing, [(995, 5)]))[0] >= math.log(20)
    assert log_e_non_inferior(with_waiting(nothing, [(9700, 300)]))[0] < 0


# --- Verdicts and the interval


@given(ROWS)
def test_the_interval_agrees_with_the_verdicts(rows: list[Row]) -> None:
    state = follow(rows)
    low, high = interval(state, alpha=0.05, beta=0.05)[0]
    assert -1 <= low <= high <= 1
    if (low, high) != (-1, 1):
        assert low >= 0 or log_e_worse(state)[0] < math.log(20)
        assert high <= 0.02 or log_e_non_inferior(state)[0] < math.log(20)
        assert high <= 0 or log_e_superior(state)[0] < math.log(20) or log_e_non_inferior(state)[0] < math.log(20)


@pytest.mark.parametrize(
    ("row", "low", "high"),
    [((0, 0, 0, 0), -1.0, 1.0), ((97_000, 2000, 1000, 0), 0.007, 0.015), ((99_000, 500, 500, 0), -0.002, 0.002)],
)
def test_the_interval_closes_in_on_the_difference(row: Row, low: float, high: float) -> None:
    assert interval(follow([row]), alpha=0.05, beta=0.05)[0] == pytest.approx([low, high])
    expected = (row[1] - row[2]) / sum(row) if sum(row) else math.nan
    assert paired.difference(follow([row]))[0] == pytest.approx(expected, nan_ok=True)


def test_labelled_pairs_alone_leave_nothing_open() -> None:
    outcomes: Integers = np.array([[880, 12, 8, 100], [0, 0, 0, 0]])
    assert of_labelled(outcomes).tolist() == [[980, 12, 8, 0], [0, 0, 0, 0]]


def test_earlier_pairs_only_choose_the_bets() -> None:
    plain, told = (start(tolerance=0.0, margin=0.02, history=history) for history in (None, [(20, 1000)]))
    np.testing.assert_allclose([log_e_values(told), log_e_values(plain)], 0, atol=1e-12)
    row = [(490, 5, 5, 0)]
    assert log_e_non_inferior(update(told, row)) > log_e_non_inferior(update(plain, row)) + 0.3


def test_a_test_with_an_edited_margin_starts_again_and_the_others_go_on() -> None:
    state = update(start(tolerance=np.zeros(2), margin=0.02), [[900, 10, 5, 3], [900, 10, 5, 3]])
    edited = paired.retarget(state, tolerance=0.0, margin=[0.02, 0.01])
    assert encode(edited)[0] == encode(state)[0]
    assert encode(edited)[1:] == encode(start(tolerance=0.0, margin=0.01, history=[(18, 918)]))
    assert encode(paired.retarget(edited, tolerance=0.0, margin=[0.02, 0.01])) == encode(edited)


# --- Stored form


@given(ROWS, st.booleans(), st.tuples(st.integers(0, 50), st.integers(50, 3000)), st.sampled_from(TARGETS))
def test_what_is_decoded_goes_on_alike_and_no_pairs_change_nothing(
    rows: list[Row], late: bool, history: tuple[int, int], target: tuple[float, float]
) -> None:
    state = start(tolerance=target[0], margin=target[1], history=[history])
    for row in rows:
        state = update(state, [row])
    state = onset(state) if late else state
    again = decode(encode(state))
    assert encode(again) == encode(state) == encode(update(state, [(0, 0, 0, 0)]))
    assert encode(update(again, [rows[0]])) == encode(update(state, [rows[0]]))
    assert len(encode(state)[0]) <= 300


@given(st.lists(ROW, min_size=2, max_size=4))
def test_a_batch_is_what_its_tests_are_alone(rows: list[Row]) -> None:
    together = update(start(tolerance=np.zeros(len(rows)), margin=0.02), np.array(rows))
    assert encode(together) == [encode(follow([row]))[0] for row in rows]
    assert encode(paired.concat([take(together, [1]), take(together, [0])])) == encode(together)[1::-1]


@pytest.mark.parametrize("text", ["", "none", "ä", encode(start(tolerance=0.0, margin=0.02))[0][:-3]])
def test_another_text_than_a_stored_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="state"):
        decode([text])


@pytest.mark.parametrize("counts", [[[0, 0, 0]], [0, 0, 0, 0], [[0.0, 0.0, 0.0, 0.0]], [[0, -1, 0, 0]]])
def test_impossible_counts_are_refused(counts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"expected|negative"):
        update(start(tolerance=0.0, margin=0.02), counts)


@pytest.mark.parametrize(
    ("tolerance", "margin", "history"),
    [(0.02, 0.02, None), (-0.1, 0.02, None), (0.0, 1.0, None), (0.0, math.nan, None), (0.0, 0.02, [(2, 1)])],
)
def test_impossible_hypotheses_are_refused(tolerance: float, margin: float, history: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"need|more pairs"):
        start(tolerance=tolerance, margin=margin, history=history)
