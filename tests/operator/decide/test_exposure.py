"""The adaptive ramp's rule: what it grants, and that it never grants more than the budget allows."""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.definition import make_spec

from serin_operator.decide import evidence
from serin_operator.decide.evidence import Evidence
from serin_operator.decide.exposure import (
    FIRST_WEIGHT,
    LEAST_RAISE,
    ROUTE_SECONDS,
    STEEPEST,
    Limits,
    limits,
    next_weight,
)

ALPHA = BETA = 0.05
LIMITS = Limits(budget=100, max_weight=50, react=8.0, settle=8.0)
weights = st.integers(0, 99)
counts = st.integers(0, 10**7)
excesses = st.floats(-1.0, 1.0)
rates = st.one_of(st.none(), st.just(0.0), st.floats(1e-3, 1e5))
some_limits = st.builds(
    lambda budget, most, react, labels: Limits(budget, most, react, react + labels),
    st.integers(1, 10**6),
    st.integers(1, 99),
    st.floats(1.0, 600.0),
    st.sampled_from([0.0, 10.0, 3600.0, 604800.0]),
)


def granted(weight: int, exposed: int, excess: float, rate: float | None, limits: Limits) -> int:
    return next_weight(weight, exposed=exposed, worst_excess=excess, per_second=rate, limits=limits)


@given(weights, counts, excesses, st.floats(1e-3, 1e5), some_limits)
def test_what_is_granted_keeps_to_the_budget_until_the_next_look_can_act(
    weight: int, exposed: int, excess: float, rate: float, limits: Limits
) -> None:
    after = granted(weight, exposed, excess, rate, limits)
    assert 0 <= after <= limits.max_weight
    if after:
        assert (exposed + after / 100 * rate * limits.react) * excess <= limits.budget * (1 + 1e-9)
    else:
        assert (exposed + 0.01 * rate * limits.react) * excess > limits.budget * (1 - 1e-9)


@given(weights, counts, excesses, rates, some_limits)
def test_a_raise_is_neither_steep_nor_small(
    weight: int, exposed: int, excess: float, rate: float | None, limits: Limits
) -> None:
    after = granted(weight, exposed, excess, rate, limits)
    if after > weight > 0:
        assert after <= STEEPEST * weight
        assert after >= LEAST_RAISE * weight or after == limits.max_weight
        assert rate
    if weight == 0:
        assert after <= (FIRST_WEIGHT if rate else 1)


@given(weights, counts, excesses, st.floats(1e-3, 1e5), some_limits)
def test_a_raise_lasts_until_its_labels_are_known(
    weight: int, exposed: int, excess: float, rate: float, limits: Limits
) -> None:
    after = granted(weight, exposed, excess, rate, limits)
    if after > max(weight, 1):
        assert (exposed + after / 100 * rate * limits.settle) * excess <= limits.budget * (1 + 1e-9)


@given(weights, counts, st.floats(0.001, 1.0), st.floats(1e-3, 1e5), some_limits, st.floats(0.1, 1.0))
def test_a_smaller_worst_effect_never_grants_less(
    weight: int, exposed: int, excess: float, rate: float, limits: Limits, factor: float
) -> None:
    assert granted(weight, exposed, factor * excess, rate, limits) >= granted(weight, exposed, excess, rate, limits)


@pytest.mark.parametrize(
    ("weight", "exposed", "excess", "rate", "expected"),
    [
        pytest.param(0, 0, 1.0, None, 1, id="unknown traffic begins with one per cent"),
        pytest.param(0, 0, 1.0, 0.1, 10, id="little traffic begins with the most"),
        pytest.param(0, 0, 1.0, 400.0, 3, id="much traffic begins with what the budget can bear"),
        pytest.param(0, 0, 1.0, 2000.0, 0, id="not even one per cent"),
        pytest.param(10, 40, 0.2, 100.0, 30, id="three times at most"),
        pytest.param(10, 40, 0.9, 1000.0, 0, id="spent"),
        pytest.param(10, 30, 0.9, 100.0, 10, id="kept while it lasts"),
        pytest.param(10, 70, 1.0, 100.0, 3, id="lowered to what lasts"),
        pytest.param(40, 0, 0.01, 100.0, 50, id="the last raise may be small"),
        pytest.param(50, 10**6, 0.0, 1e5, 50, id="shown to be no worse"),
        pytest.param(60, 10, 0.01, 100.0, 50, id="maxWeight was lowered"),
        pytest.param(9, 10, 0.5, None, 9, id="unknown traffic keeps the weight"),
        pytest.param(9, 10, 0.5, 0.0, 9, id="no traffic raises nothing"),
        pytest.param(9, 201, 0.5, None, 0, id="over the budget, whatever the traffic"),
    ],
)
def test_cases(weight: int, exposed: int, excess: float, rate: float | None, expected: int) -> None:
    assert granted(weight, exposed, excess, rate, LIMITS) == expected


def test_slow_labels_allow_one_per_cent_at_first_and_no_raise_before_they_come() -> None:
    slow = Limits(budget=100, max_weight=50, react=8.0, settle=3608.0)
    assert granted(0, 0, 1.0, 100.0, slow) == 1
    assert granted(1, 50, 1.0, 100.0, slow) == 1
    assert granted(1, 95, 1.0, 100.0, slow) == 0
    assert granted(0, 95, 0.001, 100.0, slow) == FIRST_WEIGHT


def test_a_ramp_has_few_raises() -> None:
    steps = list(itertools.accumulate(range(20), lambda weight, _: granted(weight, 0, 0.001, 10.0, LIMITS), initial=1))
    assert steps[:5] == [1, 3, 9, 27, 50]
    assert set(steps[5:]) == {50}


# --- the upper limit that it stands on


def observed(rates: Iterable[tuple[float, float]], rollouts: int = 1, margin: float = 0.02) -> Iterator[Evidence]:
    """The evidence after each look, with these failure rates of canary and stable; 50 requests each on average."""
    rng = np.random.default_rng(7)
    state = evidence.start(tolerance=np.zeros(rollouts), margin=np.full(rollouts, margin))
    for canary, stable in rates:
        in_canary = rng.binomial(100, 0.5, rollouts)
        arms = ((in_canary, canary), (100 - in_canary, stable))
        counts = [column for trials, rate in arms for column in (rng.binomial(trials, rate), trials)]
        state = evidence.update(state, np.stack(counts, axis=1)[:, None, :])
        yield state


@pytest.mark.parametrize(("canary", "stable"), [(0.05, 0.05), (0.07, 0.05), (0.03, 0.05), (0.35, 0.3)])
def test_the_limit_is_above_the_true_excess_at_all_looks(canary: float, stable: float) -> None:
    rollouts, rate = 1000, ALPHA + BETA
    missed = np.zeros(rollouts, bool)
    for state in observed(30 * [(canary, stable)], rollouts):
        missed |= evidence.upper_limit(state, alpha=ALPHA, beta=BETA) < canary - stable - 1e-9
    assert missed.mean() <= rate + 3 * np.sqrt(rate * (1 - rate) / rollouts)


def test_the_limit_agrees_with_the_verdicts_and_is_never_above_the_interval() -> None:
    for state in observed(60 * [(0.05, 0.05)], 50):
        limit = evidence.upper_limit(state, alpha=ALPHA, beta=BETA)
        shown = evidence.log_e_non_inferior(state) >= -np.log(BETA)
        assert (limit[shown] <= 0.02).all()
        assert (limit <= evidence.interval(state, alpha=ALPHA, beta=BETA)[:, 1]).all()


def test_the_limit_follows_a_difference_that_has_changed() -> None:
    *_, last = observed([*60 * [(0.02, 0.05)], *400 * [(0.05, 0.05)]], margin=0.01)
    assert -0.01 < evidence.upper_limit(last, alpha=ALPHA, beta=BETA)[0] < 0.02


def test_without_evidence_nothing_is_excluded() -> None:
    start = evidence.start(tolerance=0.0, margin=0.02)
    assert evidence.upper_limit(start, alpha=ALPHA, beta=BETA).tolist() == [1]
    (state,) = observed([(0.05, 0.05)])
    assert evidence.upper_limit(state, alpha=0.5, beta=0.5).tolist() == [1]


def test_limits_come_from_the_spec() -> None:
    spec = make_spec(
        rollout={"mode": "Adaptive", "exposureBudget": 7, "maxWeight": 20},
        analysis={"interval": "30s", "labelWindow": "1m", "warmUp": 2},
    )
    found = limits(spec.rollout, spec.analysis)
    assert found == Limits(budget=7, max_weight=20, react=30 + ROUTE_SECONDS, settle=150 + ROUTE_SECONDS)
