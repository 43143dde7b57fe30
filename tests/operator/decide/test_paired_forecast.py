"""How many pairs a shadow needs: the bounds that the records of the decisions have, and simulations."""

import math

import numpy as np
import pytest

from serin_operator.decide import paired_forecast
from serin_operator.decide.forecast import PLANNING_FACTOR, Answers, minutes_to_promotion
from serin_operator.decide.paired_forecast import detectable_worsening, observed, pairs_to_promotion
from serin_operator.decide.pairs import Totals

ENOUGH = math.log(20)


def answers_of(differ: float, labelled: float) -> Answers:
    return Answers(differ, labelled, settled=labelled)


def to_promotion(differ: float, labelled: float = 1.0, margin: float = 0.02) -> float:
    return pairs_to_promotion(answers_of(differ, labelled), margin=margin, log_odds=ENOUGH)


def test_the_bound_is_that_of_the_decision_record() -> None:
    assert to_promotion(0.02) / PLANNING_FACTOR == pytest.approx(393, abs=1)
    a_tenth = minutes_to_promotion([(10.0, 0.0)], failure_rate=0.1, margin=0.02, per_minute=1, log_odds=ENOUGH)
    assert 0.1 * a_tenth / PLANNING_FACTOR == pytest.approx(1638, abs=1)


@pytest.mark.parametrize(
    ("differ", "labelled", "mean"),
    [
        # docs/benchmarks.md, without earlier requests: every plan is above the average, and not by half as much again.
        (0.02, 1.0, 480),
        (0.05, 1.0, 980),
        (0.005, 1.0, 292),
    ],
)
def test_a_plan_is_a_little_above_the_measured_average(differ: float, labelled: float, mean: float) -> None:
    assert mean < to_promotion(differ, labelled) < 1.5 * mean


@pytest.mark.parametrize(("labelled", "median"), [(0.25, 2000), (0.05, 10_300)])
def test_a_part_of_the_labels_costs_as_many_pairs_more(labelled: float, median: float) -> None:
    assert median < to_promotion(0.02, labelled) < 1.5 * median


def test_the_rarer_the_answers_differ_the_fewer_pairs_and_where_they_hardly_do_no_label_is_needed() -> None:
    plans = [to_promotion(differ) for differ in (0.1, 0.05, 0.02, 0.005, 0.001)]
    assert plans == sorted(plans, reverse=True)
    assert to_promotion(0.001, labelled=0.0) < 1.4 * to_promotion(0.001)
    assert to_promotion(0.02, labelled=0.0) == math.inf  # as often as the margin: somebody has to say who is right


def test_of_two_ways_to_count_the_better_one_decides() -> None:
    """The mean of both has to reach what is asked, so it is at most ln 2 behind the better one."""
    answers = answers_of(0.005, 0.05)
    pairs = pairs_to_promotion(answers, margin=0.02, log_odds=ENOUGH)
    alone = PLANNING_FACTOR * ENOUGH / paired_forecast.growth(0.02, *_counted(answers), below=True)
    assert alone < pairs < alone * (1 + math.log(2) / (PLANNING_FACTOR * ENOUGH))


def _counted(answers: Answers) -> tuple[float, float]:
    """The shares of pairs that count against a promotion, open ones included, and for it."""
    known = answers.differ * answers.labelled / 2
    return known + answers.differ * (1 - answers.labelled), known


def test_what_is_to_be_better_takes_longer_the_less_it_is() -> None:
    answers = answers_of(0.02, 1.0)
    much, little = (
        pairs_to_promotion(answers, margin=0.02, log_odds=ENOUGH, better_by=better) for better in (0.02, 0.01)
    )
    assert much < little < math.inf
    assert pairs_to_promotion(answers, margin=0.02, log_odds=ENOUGH, better_by=0.0) == math.inf


def test_a_worsening_is_found_in_so_many_pairs_and_not_in_fewer() -> None:
    def found(pairs: float, labelled: float = 1.0) -> float | None:
        return detectable_worsening(answers_of(0.02, labelled), pairs, tolerance=0.0, most=0.9, log_odds=ENOUGH)

    assert found(325) == pytest.approx(0.02, rel=0.01)  # measured: 301 on average
    assert found(1) is None
    few, many = found(500, 0.25), found(5000, 0.25)
    assert few is not None and many is not None and few > 2 * many > 0


def test_the_growth_is_the_largest_mean_of_any_bet() -> None:
    b, c, limit = 0.013, 0.007, 0.02
    strengths = np.linspace(-0.99 / (1 - limit), 0, 2001)
    means = b * np.log1p(strengths * (1 - limit)) + c * np.log1p(-strengths * (1 + limit))
    means += (1 - b - c) * np.log1p(-strengths * limit)
    assert paired_forecast.growth(limit, b, c, below=True) == pytest.approx(means.max(), rel=1e-5)
    assert paired_forecast.growth(limit, b, c, below=False) == 0


@pytest.mark.parametrize(("different", "settled"), [(20, 20), (30, 30)])  # of the last, both answers of ten are wrong
def test_pairs_that_were_counted_give_the_plan_of_pairs_that_are_like_them(different: int, settled: int) -> None:
    totals = Totals(1000, different, 1000, settled, canary_wrong=100, stable_wrong=100, only_canary=10)
    found = observed(totals, 0.02)
    assert found is not None
    plan = pairs_to_promotion(found, margin=0.02, log_odds=ENOUGH)
    assert plan == pytest.approx(to_promotion(0.02), rel=0.03)


def test_labels_where_answers_differ_are_worth_nearly_those_of_all() -> None:
    every, asked_for = (
        observed(Totals(1000, 20, labelled, 20, labelled // 10, labelled // 10, 10), 0.02) for labelled in (1000, 60)
    )
    assert every is not None and asked_for is not None
    plans = [pairs_to_promotion(each, margin=0.02, log_odds=ENOUGH) for each in (every, asked_for)]
    assert plans[0] < plans[1] < 1.2 * plans[0]


@pytest.mark.parametrize(("pairs", "labelled", "known"), [(199, 199, False), (200, 4, False), (200, 5, True)])
def test_few_pairs_and_few_labels_tell_nothing(pairs: int, labelled: int, known: bool) -> None:
    assert (observed(Totals(pairs, 0, labelled), 0.02) is not None) is known


def test_what_is_shown_already_takes_no_more_pairs() -> None:
    assert pairs_to_promotion(answers_of(0.02, 1.0), margin=0.02, log_odds=-0.5) == 0
