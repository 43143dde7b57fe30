"""Waits and what they can show: published values, schedules by hand, and the sentence that people read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.api.spec import Goal
from serin_operator.decide.course import Split
from serin_operator.decide.forecast import (
    PLANNING_FACTOR,
    Prospect,
    canary_trials,
    detectable_worsening,
    divergence,
    forecast,
    minutes_to_promotion,
    waits,
)

ENOUGH = math.log(20)
TENTH = Split([(10, 0)], [(10, 0)])


def wait(schedule: list[tuple[float, float]], per_minute: float = 600.0, log_odds: float = ENOUGH) -> float:
    return minutes_to_promotion(schedule, failure_rate=0.05, margin=0.02, per_minute=per_minute, log_odds=log_odds)


@pytest.mark.parametrize(("per_second", "minutes"), [(1, 158), (10, 15.8), (100, 1.58)])
def test_the_published_waits_times_the_planning_factor(per_second: int, minutes: float) -> None:
    """95 percent accuracy, two points, a tenth of the traffic: the method page's forecast."""
    assert wait([(10, 0)], 60.0 * per_second) == pytest.approx(PLANNING_FACTOR * minutes, rel=1e-3)


def test_the_least_wait_for_a_worsening_of_five_points_is_the_published_bound() -> None:
    """Power-one bound ln(20)/G: 14.9 min at -2 points, 2.8 min at -5, with 600 requests a minute."""
    assert ENOUGH / (600 * divergence(0.07, 0.05, 0.0, 10)) == pytest.approx(14.9, abs=0.05)
    assert ENOUGH / (600 * divergence(0.10, 0.05, 0.0, 10)) == pytest.approx(2.8, abs=0.05)


def test_a_schedule_is_done_before_anything_is_promoted() -> None:
    assert wait([(5, 10), (25, 30)], 1e9) == 40
    assert wait([(5, 10), (25, 30)], 0.0, log_odds=0.0) == 40


def test_each_weight_adds_its_own_evidence() -> None:
    ten, fifty = (600 * divergence(0.05, 0.05, 0.02, weight) for weight in (10, 50))
    expected = 5 + (PLANNING_FACTOR * ENOUGH - 5 * ten) / fifty
    assert wait([(10, 5), (50, 0)]) == pytest.approx(expected)
    assert wait([(10, 5), (50, 2)]) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [[(0, 5)], [(100, 5)], [(10, 5), (0, 5)]])
def test_one_arm_alone_never_decides(schedule: list[tuple[float, float]]) -> None:
    assert wait(schedule) == math.inf


def test_no_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        wait([])


@given(st.floats(1, 99), st.floats(1, 1e5), st.floats(1, 20))
def test_overdispersion_takes_its_factor_longer(weight: float, per_minute: float, phi: float) -> None:
    waits = [
        minutes_to_promotion(
            [(weight, 0)], failure_rate=0.05, margin=0.02, per_minute=per_minute, log_odds=ENOUGH, phi=each
        )
        for each in (1.0, phi)
    ]
    assert waits[1] == pytest.approx(phi * waits[0])


def test_superiority_is_forecast_for_a_canary_that_is_better_by_the_margin() -> None:
    minutes = minutes_to_promotion(
        [(10, 0)], failure_rate=0.07, margin=0.02, per_minute=600, log_odds=ENOUGH, goal=Goal.SUPERIOR
    )
    assert minutes == pytest.approx(PLANNING_FACTOR * ENOUGH / (600 * divergence(0.05, 0.07, 0.0, 10)))
    rare = minutes_to_promotion(
        [(10, 0)], failure_rate=0.01, margin=0.02, per_minute=600, log_odds=ENOUGH, goal=Goal.SUPERIOR
    )
    assert math.isfinite(rare)


def test_a_bound_is_forecast_from_the_canarys_own_trials() -> None:
    kl = 0.01 * math.log(0.01 / 0.02) + 0.99 * math.log(0.99 / 0.98)
    bounded = gate(failure_rate=0.01, bound=0.02, missing=-1.0, missing_under=ENOUGH)
    assert waits([bounded], [(10, 0)])[0] == pytest.approx(PLANNING_FACTOR * ENOUGH / (60 * kl))
    broken = gate(failure_rate=0.03, bound=0.02, missing=-1.0, missing_under=ENOUGH)
    shown = gate(failure_rate=0.03, bound=0.02, missing=-1.0, missing_under=-1.0)
    assert waits([broken, shown], [(10, 7)]) == [math.inf, 7]


def test_gates_are_forecast_as_if_each_were_alone() -> None:
    gates = [gate(), gate(goal=Goal.SUPERIOR, failure_rate=0.1), gate(phi=2.0, bound=0.06, missing_under=2.0)]
    schedule = [(5, 3), (25, 4), (50, 0)]
    assert waits(gates, schedule) == pytest.approx([waits([each], schedule)[0] for each in gates])
    alone = minutes_to_promotion(
        schedule, failure_rate=0.1, margin=0.02, per_minute=600, log_odds=ENOUGH, goal=Goal.SUPERIOR
    )
    assert waits(gates, schedule)[1] == pytest.approx(alone)


def test_the_canary_trials_that_are_missing_pass_in_the_time_that_is_forecast() -> None:
    gates = [gate(), gate(bound=0.06, missing_under=ENOUGH), gate(missing=-1.0)]
    ten, fifty, none = canary_trials(gates, [10, 50, 10])
    assert ten == pytest.approx(60 * waits(gates[:1], [(10, 0)])[0])
    assert fifty == pytest.approx(300 * waits(gates[1:2], [(50, 0)])[0])
    assert none == 0


def detectable(
    schedule: list[tuple[float, float]], minutes: float, tolerance: float = 0.0, per_minute: float = 600
) -> float | None:
    return detectable_worsening(
        schedule, minutes, failure_rate=0.05, tolerance=tolerance, per_minute=per_minute, log_odds=ENOUGH
    )


@pytest.mark.parametrize("tolerance", [0.0, 0.01])
def test_the_detectable_worsening_is_just_found_in_its_time(tolerance: float) -> None:
    found = detectable([(10, 5), (50, 5)], 60, tolerance)
    assert found is not None and found > tolerance
    gains = [600 * divergence(0.05 + found, 0.05, tolerance, weight) for weight in (10, 50)]
    assert 5 * gains[0] + 55 * gains[1] == pytest.approx(PLANNING_FACTOR * ENOUGH, rel=1e-2)


def test_more_time_shows_less_and_too_little_shows_nothing() -> None:
    known = [detectable([(10, 0)], minutes) for minutes in (5, 60, 1440)]
    assert all(each is not None for each in known)
    assert known == sorted(known, key=lambda each: -(each or 0))
    assert detectable([(10, 5), (50, 5)], 0.0) is None
    assert detectable([(10, 5), (50, 5)], 60, per_minute=0.0) is None
    assert detectable([(10, 5)], 60, tolerance=0.96) is None


def test_time_beyond_max_duration_shows_nothing() -> None:
    """The second weight is not reached."""
    assert detectable([(10, 60), (50, 60)], 30) == detectable([(10, 0)], 30)


def gate(name: str = "accuracy", **changes: object) -> Prospect:
    known = {
        "name": name,
        "trials": "labelled predictions",
        "goal": Goal.NON_INFERIOR,
        "tolerance": 0.0,
        "margin": 0.02,
        "failure_rate": 0.05,
        "per_minute": 600.0,
        "phi": 1.0,
        "missing": ENOUGH,
        "for_rollback": ENOUGH,
    }
    return Prospect(**(known | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        (
            [gate()],
            "At 600 labelled predictions a minute a verdict takes about 24 min if the canary is good (longest for "
            "accuracy); a worsening of accuracy by 0.24 points or more is mostly found within maxDuration (24 h).",
        ),
        ([gate(), gate("errors", trials="requests", per_minute=60)], "At 60 requests a minute a verdict takes about 4"),
        ([gate(goal=Goal.SUPERIOR)], "if the canary is better by 2 points"),
        ([gate(per_minute=0.0)], "Too few labelled predictions were counted yet for accuracy"),
        ([gate(for_rollback=None)], "if the canary is good (longest for accuracy)."),
        ([gate(bound=0.04, missing_under=ENOUGH)], "accuracy never allows promotion: even the stable revision breaks"),
        ([gate(per_minute=0.001)], "no worsening of accuracy is likely to be found within maxDuration (24 h)"),
        ([gate(missing=-1.0)], "a verdict takes about 0 s"),
        ([gate(delay=30.0)], "about 54 min if the canary is good (longest for accuracy, whose labels count 30 min"),
    ],
)  # fmt: skip
def test_what_people_read(gates: list[Prospect], says: str) -> None:
    assert says in forecast(gates, TENTH, max_minutes=1440, time=0).message


def test_the_slowest_gate_limits_the_forecast() -> None:
    told = forecast([gate(), gate("errors", per_minute=60.0)], TENTH, max_minutes=1440, time=7.0)
    assert (told.limited_by, told.per_minute, told.time) == ("errors", 60.0, 7.0)
    assert told.minutes == pytest.approx(wait([(10, 0)], 60.0))
    assert told.detectable == detectable([(10, 0)], 1440, per_minute=60.0)


def test_evidence_that_comes_late_comes_as_fast_afterwards() -> None:
    schedule = [(10.0, 5.0), (50.0, 2.0)]
    at_once = waits([gate()], schedule)[0]
    assert waits([gate(delay=30.0)], schedule)[0] == pytest.approx(at_once + 30)
    assert waits([gate(delay=30.0, under_way=20.0)], schedule)[0] == pytest.approx(at_once + 10)
    assert waits([gate(delay=30.0, under_way=40.0)], schedule)[0] == at_once


@pytest.mark.parametrize("delay", [0.0, 1.0, 3.0, 60.0])
def test_a_schedule_that_lasts_longer_than_the_evidence_takes_hides_a_delay(delay: float) -> None:
    """At so much traffic the evidence suffices in the first moments, and then its labels are waited for."""
    assert waits([gate(per_minute=6e8, delay=delay)], [(10, 2), (50, 2)])[0] == pytest.approx(max(4, delay), abs=1e-3)
    assert waits([gate(missing=0.0, delay=delay)], [(10, 2), (50, 2)])[0] == 4


@given(
    st.lists(st.tuples(st.floats(1, 99), st.floats(0, 30)), min_size=1, max_size=4),
    st.floats(0, 60),
    st.floats(0.1, 1e4),
)
def test_a_delay_costs_at_most_itself(schedule: list[tuple[float, float]], delay: float, per_minute: float) -> None:
    at_once = waits([gate(per_minute=per_minute)], schedule)[0]
    late = waits([gate(per_minute=per_minute, delay=delay)], schedule)[0]
    assert at_once <= late <= at_once + delay + 1e-6 * late


def test_nothing_is_found_in_time_that_ends_before_the_first_label_counts() -> None:
    told = forecast([gate(delay=30.0)], TENTH, max_minutes=60, time=0)
    assert told.detectable == detectable([(10, 0)], 30)
    assert forecast([gate(delay=90.0)], TENTH, max_minutes=60, time=0).detectable is None


def test_what_never_comes_has_no_minutes() -> None:
    told = forecast([gate(per_minute=0.0)], TENTH, max_minutes=1440, time=0)
    assert (told.minutes, told.detectable) == (None, None)
