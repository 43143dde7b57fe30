"""The peers' rules and the reference tests: cases by hand, and the published figures of the same rules."""

from collections.abc import Callable

import numpy as np
import pytest
from bench.decisions import peers, references
from bench.decisions.outcomes import Outcome, Table, promoted_at_the_end
from scipy import stats

LOOKS = 120
RUNS = 1000
MARGIN = 0.02


def counted(failures: list[int], trials: list[int]) -> Table:
    """One run in which the canary counted this, and the stable 5 failures in 100 at every look."""
    return np.array([[(y, n, 5, 100) for y, n in zip(failures, trials, strict=True)]])


def simulated(rate: float, worse_by: float, *, runs: int = RUNS, seed: int = 1) -> Table:
    """Looks every 30 s at `rate` requests a second, a tenth of them to the canary, 5 % failures of the stable."""
    rng = np.random.default_rng(seed)
    trials = rng.poisson(rate * 30, (runs, LOOKS))
    n_c = rng.binomial(trials, 0.1)
    n_s = trials - n_c
    return np.stack([rng.binomial(n_c, 0.05 + worse_by), n_c, rng.binomial(n_s, 0.05), n_s], axis=-1)


def ended(outcome: Outcome) -> tuple[str, int]:
    """What became of the only run, and at which look."""
    if outcome.rolled_back[0] < outcome.looks:
        return "rolled back", int(outcome.rolled_back[0])
    return ("promoted", int(outcome.promoted[0])) if outcome.promoted[0] < outcome.looks else ("held", outcome.looks)


@pytest.mark.parametrize(
    ("failures", "trials", "failure_limit", "every", "expected"),
    [
        pytest.param([0, 0, 0], [10, 10, 10], 0, 1, ("promoted", 2), id="all good"),
        pytest.param([0, 1, 0], [10, 10, 10], 0, 1, ("rolled back", 1), id="the default limit tolerates no failure"),
        pytest.param([1, 1, 0], [10, 10, 10], 1, 1, ("rolled back", 1), id="more than the limit"),
        pytest.param([1, 0, 0], [10, 10, 10], 1, 1, ("promoted", 2), id="as many as the limit"),
        pytest.param([0, 0, 0], [0, 0, 0], 0, 1, ("promoted", 2), id="NaN is a success, as isNaN says"),
        pytest.param([7, 7], [100, 100], 0, 1, ("promoted", 1), id="exactly at the threshold"),
        pytest.param([1, 0, 0, 0], [10, 10, 10, 10], 0, 2, ("promoted", 3), id="over the interval it is good enough"),
        pytest.param([0, 0, 2, 0], [10, 10, 10, 10], 0, 2, ("rolled back", 3), id="seen when the interval ends"),
    ],
)
def test_argo_rollouts(
    failures: list[int], trials: list[int], failure_limit: int, every: int, expected: tuple[str, int]
) -> None:
    outcome = peers.argo_rollouts(counted(failures, trials), at_least=0.93, failure_limit=failure_limit, every=every)
    assert ended(outcome) == expected


@pytest.mark.parametrize(
    ("failures", "trials", "threshold", "expected"),
    [
        pytest.param([0, 0, 0], [10, 10, 10], 2, ("promoted", 2), id="all good"),
        pytest.param([5, 0, 5], [10, 10, 10], 2, ("rolled back", 2), id="a success in between resets nothing"),
        pytest.param([5, 0, 0], [10, 10, 10], 2, ("promoted", 2), id="fewer than the threshold"),
        pytest.param([0, 0, 0], [0, 10, 0], 2, ("rolled back", 2), id="no values is a failed check"),
    ],
)
def test_flagger(failures: list[int], trials: list[int], threshold: int, expected: tuple[str, int]) -> None:
    assert ended(peers.flagger(counted(failures, trials), at_least=0.93, threshold=threshold)) == expected


def test_flagger_checks_over_its_interval() -> None:
    outcome = peers.flagger(counted([2, 0, 2, 0], [10, 10, 10, 10]), at_least=0.93, threshold=2, every=2)
    assert ended(outcome) == ("rolled back", 3)


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        pytest.param([5] * 10, ("promoted", 9), id="the same values"),
        pytest.param([50] * 5 + [51] * 5, ("rolled back", 9), id="far above"),
        pytest.param([0] * 5 + [1] * 5, ("promoted", 9), id="far below is no increase"),
    ],
)
def test_kayenta(canary: list[int], expected: tuple[str, int]) -> None:
    assert ended(peers.kayenta(counted(canary, [100] * 10), points=10)) == expected


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        pytest.param([0] * 10, ("rolled back", 9), id="no data fails the canary"),
        pytest.param([0] * 9 + [100], ("promoted", 9), id="one point is data"),
    ],
)
def test_kayenta_without_requests(trials: list[int], expected: tuple[str, int]) -> None:
    assert ended(peers.kayenta(counted([0] * 10, trials), points=10)) == expected


@pytest.mark.parametrize("rate", [0.3, 3.0, 30.0])
def test_kayentas_test_is_the_mann_whitney_test_of_scipy(rate: float) -> None:
    """With no tolerance the interval lies above 0 exactly when the two-sided test at 2 % finds the canary above."""
    table = simulated(rate, 0.05, runs=60)
    got = peers.kayenta(table, points=LOOKS, tolerance=0.0).rolled_back < LOOKS
    expected = []
    for y_c, n_c, y_s, n_s in np.moveaxis(table, -1, 1):
        canary, stable = y_c[n_c > 0] / n_c[n_c > 0], y_s[n_s > 0] / n_s[n_s > 0]
        test = stats.mannwhitneyu(canary, stable, alternative="two-sided", method="asymptotic")
        above = test.statistic > len(canary) * len(stable) / 2 and canary.mean() >= stable.mean()
        expected.append(above and test.pvalue < 0.02)
    assert got.tolist() == expected
    assert sum(expected) > 0 or rate < 1


ARGO = "Argo Rollouts"
FLAGGER = "Flagger"
KAYENTA = "Kayenta"
Z_TEST = "z-test"
MSPRT = "mSPRT"
RULES: dict[str, Callable[[Table], Outcome]] = {
    ARGO: lambda table: peers.argo_rollouts(table, at_least=0.95 - MARGIN),
    FLAGGER: lambda table: peers.flagger(table, at_least=0.95 - MARGIN),
    KAYENTA: peers.kayenta,
    Z_TEST: references.z_test,
    MSPRT: lambda table: references.msprt(table, tau=MARGIN, alpha=0.05),
}


@pytest.mark.parametrize(
    ("rule", "rate", "worse_by", "share", "median"),
    [
        # False rollbacks, then the canary found 2 and 5 points worse, with the median minutes.
        (ARGO, 1, 0.0, 1.00, None),
        (ARGO, 100, 0.0, 1.00, None),
        (FLAGGER, 10, 0.0, 1.00, None),
        (FLAGGER, 100, 0.0, 0.89, None),
        (KAYENTA, 1, 0.0, 0.0, None),
        (KAYENTA, 100, 0.0, 0.003, None),
        (Z_TEST, 1, 0.0, 0.39, None),
        (Z_TEST, 10, 0.0, 0.34, None),
        (Z_TEST, 100, 0.0, 0.34, None),
        (MSPRT, 1, 0.0, 0.009, None),
        (MSPRT, 10, 0.0, 0.016, None),
        (MSPRT, 100, 0.0, 0.007, None),
        (ARGO, 10, 0.02, 1.00, 1.0),
        (FLAGGER, 10, 0.02, 1.00, 5.5),
        (KAYENTA, 10, 0.02, 0.64, 35.0),
        (Z_TEST, 10, 0.02, 1.00, 3.5),
        (MSPRT, 10, 0.02, 0.98, 17.5),
        (ARGO, 10, 0.05, 1.00, 0.5),
        (FLAGGER, 10, 0.05, 1.00, 3.5),
        (KAYENTA, 10, 0.05, 1.00, 25.0),
        (Z_TEST, 10, 0.05, 1.00, 1.0),
        (MSPRT, 10, 0.05, 1.00, 4.5),
    ],
)
def test_the_published_figures_within_monte_carlo_error(
    rule: str, rate: float, worse_by: float, share: float, median: float | None
) -> None:
    """Published without the number of runs: taken as 1000, so 3 standard errors of the difference, and one look."""
    outcome = RULES[rule](simulated(rate, worse_by))
    assert outcome.rollbacks == pytest.approx(share, abs=3 * (2 * max(share * (1 - share), 0.005) / RUNS) ** 0.5)
    if median is not None:
        assert np.median(outcome.rollback_delays(0.5)) == pytest.approx(median, abs=1.0)


def test_pooling_breaks_the_msprt_when_traffic_ramps_while_both_arms_drift() -> None:
    rng = np.random.default_rng(3)
    weight, failing = np.linspace(0.01, 0.5, LOOKS), np.linspace(0.02, 0.10, LOOKS)
    n_c = rng.binomial(300, np.broadcast_to(weight, (200, LOOKS)))
    table = np.stack([rng.binomial(n_c, failing), n_c, rng.binomial(300 - n_c, failing), 300 - n_c], axis=-1)
    assert references.msprt(table, tau=MARGIN, alpha=0.05).rollbacks > 0.9


def test_bounds() -> None:
    growing = references.growth(0.07, 0.05, canary_per_minute=60, stable_per_minute=540)
    assert references.power_one_bound(growing, 0.05) == pytest.approx(14.9, abs=0.05)
    growing = references.growth(0.10, 0.05, canary_per_minute=60, stable_per_minute=540)
    assert references.power_one_bound(growing, 0.05) == pytest.approx(2.8, abs=0.05)
    assert references.wald_bound(growing, 0.05, miss=1e-9) == pytest.approx(references.power_one_bound(growing, 0.05))
    assert references.wald_bound(growing, 0.05, miss=0.05) < references.power_one_bound(growing, 0.05)
    assert references.power_one_bound(0.0, 0.05) == references.wald_bound(0.0, 0.05, miss=0.05) == float("inf")


def test_harm_is_counted_until_the_rollback_and_on_everything_after_a_promotion() -> None:
    table = np.tile([0, 10, 0, 90], (1, 4, 1))
    never, second = np.array([4]), np.array([1])
    assert Outcome(4, second, never).harmed(table, 0.1) == pytest.approx(0.1 * 20)
    assert Outcome(4, never, second).harmed(table, 0.1) == pytest.approx(0.1 * (20 + 200))
    assert Outcome(4, never, never).harmed(table, 0.1) == pytest.approx(0.1 * 40)


def test_what_is_not_rolled_back_is_promoted_at_the_last_look() -> None:
    outcome = promoted_at_the_end(np.array([0, 3]), 3)
    assert outcome.rollbacks == outcome.promotions == 0.5
    assert outcome.rollback_delays(2.0).tolist() == [2.0]
    assert outcome.promotion_delays(2.0).tolist() == [6.0]
