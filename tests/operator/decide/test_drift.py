"""The test for drift: its events, that it is an e-value, and by simulation its false alarms and its delays."""

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.decide import drift
from serin_operator.decide.drift import Feature, advance, events, furthest, log_e, log_mean, upper_limit

ORDERED = ("[-Inf, 1)", "[1, 2)", "[2, +Inf)", "missing")
COLOURS = ("= blue", "= red", "missing", "other")
TOLERANCE, ALPHA = 0.05, 0.01
DECILES = (*(f"[{low}, {low + 1})" for low in range(10)), "missing")


def named(bins: tuple[str, ...]) -> dict[str, set[str]]:
    words, matrix = events(bins)
    return {word: {bins[i] for i in np.flatnonzero(row)} for word, row in zip(words, matrix, strict=True)}


def test_the_events_of_ordered_bins_are_bins_and_tails() -> None:
    found = named(ORDERED)
    assert found["from 1 to 2"] == {"[1, 2)"}
    assert found["below 2"] == {"[-Inf, 1)", "[1, 2)"}
    assert found["1 or more"] == {"[1, 2)", "[2, +Inf)"}
    assert found["missing"] == {"missing"}
    assert found["not missing"] == set(ORDERED) - {"missing"}
    assert found["not from 1 to 2"] == set(ORDERED) - {"[1, 2)"}


def test_the_events_of_categories_are_bins() -> None:
    assert named(COLOURS) == {
        "blue": {"= blue"},
        "red": {"= red"},
        "missing": {"missing"},
        "other": {"other"},
        "not blue": set(COLOURS) - {"= blue"},
        "not red": set(COLOURS) - {"= red"},
        "not missing": set(COLOURS) - {"missing"},
        "not other": set(COLOURS) - {"other"},
    }


@given(st.permutations(list(ORDERED)))
def test_the_order_of_the_bins_does_not_matter(bins: list[str]) -> None:
    assert {frozenset(each) for each in named(tuple(bins)).values()} == {
        frozenset(each) for each in named(ORDERED).values()
    }


def test_a_feature_of_one_bin_has_no_events() -> None:
    assert events(("missing",))[1].shape == (0, 1)
    assert log_e([Feature("x", ("missing",), (5,))], [np.array([5])], 0.0).tolist() == [0.0]


@given(st.integers(1, 400), st.data())
def test_the_upper_limit_is_that_of_chernoffs_bound(total: int, data: st.DataObject) -> None:
    share, bound = data.draw(st.integers(0, total)) / total, data.draw(st.floats(1e-4, 3))
    (limit,) = upper_limit(np.array([share]), bound)
    assert share <= limit <= 1
    if share == 0:
        assert limit == pytest.approx(1 - math.exp(-bound))
    if share == 1:
        assert limit == 1


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("total", [30, 300])
def test_the_limit_of_a_sample_holds_as_often_as_it_says(share: float, total: int) -> None:
    from scipy.stats import binom  # type: ignore[import-untyped,unused-ignore]

    chance = 0.01
    counts = np.arange(total + 1)
    limits = upper_limit(counts / total, math.log(1 / chance) / total)
    assert binom.pmf(counts, total, share)[limits < share].sum() <= chance


def mean_e(feature: Feature, live: npt.NDArray[np.float64], rows: int, tolerance: float) -> float:
    """The expectation of the e-value, over all counts of so many rows that are drawn from these shares."""
    total = 0.0
    for counts in product(range(rows + 1), repeat=len(live)):
        if sum(counts) == rows:
            ways = math.factorial(rows) // math.prod(math.factorial(each) for each in counts)
            chance = ways * float(np.prod(live ** np.array(counts)))
            total += chance * math.exp(log_e([feature], [np.array(counts)], tolerance)[0])
    return total


@pytest.mark.parametrize("rows", [1, 4, 7])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
@pytest.mark.parametrize("reference", [(200, 500, 250, 50), (3, 1, 0, 0), (1000, 0, 0, 0), (0, 0, 0, 0)])
def test_it_is_an_e_value_of_all_that_is_within_the_tolerance(
    rows: int, tolerance: float, reference: tuple[int, ...]
) -> None:
    feature = Feature("x", ORDERED, reference)
    shares = np.array(reference) / max(1, sum(reference)) if sum(reference) else np.full(4, 0.25)
    for grown in range(4):
        live = shares * (1 - tolerance)
        live[grown] += tolerance  # as far as the tolerance allows
        assert mean_e(feature, live, rows, tolerance) <= 1 + 1e-9
        assert mean_e(feature, shares, rows, tolerance) <= 1 + 1e-9


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 0.2))
def test_a_day_counts_by_its_average(chances: list[float], tolerance: float) -> None:
    """Rows of one day come from different shares, of which only the average is within the limit."""
    feature = Feature("x", ("= a", "other"), (5000, 5000))
    limit = min(1.0, float(drift._limits(feature, tolerance, 1)[0]))
    chances = [each * limit / max(1e-9, float(np.mean(chances))) for each in chances]
    if max(chances) > 1:
        return
    total = 0.0
    for outcome in product((0, 1), repeat=len(chances)):
        chance = math.prod(p if hit else 1 - p for p, hit in zip(chances, outcome, strict=True))
        one_event = outcome.count(1) * np.log1p(drift._PARTS * (1 - limit) / limit)
        total += chance * float(np.exp(one_event + outcome.count(0) * np.log1p(-drift._PARTS)).mean())
    assert total <= 1 + 1e-9


def test_many_rows_count_as_fewer() -> None:
    feature = Feature("x", ("= a", "other"), (5000, 5000))
    at_most = log_e([feature], [np.array([drift.MOST_ROWS * 7 // 10, drift.MOST_ROWS * 3 // 10])], TOLERANCE)
    more = log_e([feature], [np.array([drift.MOST_ROWS * 7, drift.MOST_ROWS * 3])], TOLERANCE)
    assert more == pytest.approx(at_most)


def test_the_sum_of_the_processes_that_begin_at_each_period() -> None:
    sums = np.array([-math.inf])
    values = [2.0, 0.5, 3.0]
    for value in values:
        sums = advance(sums, np.array([math.log(value)]), log_most=99)
    assert math.exp(sums[0]) == pytest.approx(3.0 + 0.5 * 3 + 2 * 0.5 * 3)
    assert advance(sums, np.array([1000.0]), log_most=5.0).tolist() == [5.0]
    assert log_mean(np.log([1.0, 3.0])) == pytest.approx(math.log(2))
    assert log_mean(np.array([])) == -math.inf


def test_the_furthest_event() -> None:
    found = furthest(Feature("x", ORDERED, (25, 25, 50, 0)), np.array([5, 15, 80, 0]))
    assert (found.event, found.live, found.reference) == ("2 or more", 0.8, 0.5)


# --- by simulation ---------------------------------------------------------------------------------------------


def first_alarm(
    rng: np.random.Generator, rows: int, shifts: list[float], periods: int, reference: int, tolerance: float = TOLERANCE
) -> float:
    """The period of the first alarm, infinity without one; a feature per shift, in standard deviations.

    The reference is a sample itself, and the bins lie at its own deciles.
    """
    features, edges = [], []
    for place in range(len(shifts)):
        sample = np.sort(rng.normal(size=reference))
        edges.append(sample[np.arange(1, 10) * reference // 10])
        counts = np.bincount(np.searchsorted(edges[-1], sample, side="right"), minlength=11)
        features.append(Feature(f"x{place}", DECILES, tuple(counts.tolist())))
    sums = np.full(len(shifts), -math.inf)
    for period in range(1, periods + 1):
        live = [
            np.bincount(np.searchsorted(cut, rng.normal(shift, size=rows), side="right"), minlength=11)
            for cut, shift in zip(edges, shifts, strict=True)
        ]
        sums = advance(sums, log_e(features, live, tolerance), log_most=math.log(len(shifts) / ALPHA))
        if log_mean(sums) >= -math.log(ALPHA):
            return period
    return math.inf


@pytest.mark.parametrize(("reference", "rows"), [(100, 2000), (2000, 300), (2000, 2000)])
def test_no_drift_makes_no_alarm(reference: int, rows: int) -> None:
    """A hundred periods are the average time to a false alarm at the least; the tolerance makes it much longer."""
    rng = np.random.default_rng(5)
    alarms = [first_alarm(rng, rows, [0.0] * 3, 10, reference) for _ in range(30)]
    assert sum(map(math.isfinite, alarms)) <= 1


def test_without_a_tolerance_the_reference_of_few_rows_is_not_taken_for_the_truth() -> None:
    """A test against the shares of these 200 rows as if they were exact would alarm almost at once."""
    rng = np.random.default_rng(6)
    alarms = [first_alarm(rng, 2000, [0.0] * 3, 10, 200, tolerance=0.0) for _ in range(30)]
    assert sum(map(math.isfinite, alarms)) <= 1


def test_drift_is_found_also_when_one_feature_alone_drifts() -> None:
    rng = np.random.default_rng(7)
    assert [first_alarm(rng, 2000, [0.5, 0.0, 0.0], 5, 5000) for _ in range(20)] == [1] * 20
    assert [first_alarm(rng, 500, [1.0] + [0.0] * 9, 5, 1000) for _ in range(10)] == [1] * 10
