"""The sequential tests: published values, and exact means under the null hypotheses."""

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom, multinomial

from serin_operator.decide.alternatives import Prior
from serin_operator.decide.evidence import (
    Evidence,
    log_e_non_inferior,
    log_e_superior,
    log_e_worse,
    onset,
    start,
    take,
    update,
)
from serin_operator.decide.grid import GRID
from serin_operator.decide.projection import Array, Integers

Bools = npt.NDArray[np.bool_]

# The prior of the reference values: half-normal over log odds ratios, all of the stake at the start.
LOG_ODDS = (np.arange(1, 25) - 0.5) / 8
HALF_NORMAL = Prior.of([0.0] * 24, LOG_ODDS.tolist(), np.exp(-(LOG_ODDS**2) / (2 * 0.5**2)).tolist())


def block(*counts: int) -> Integers:
    """y_c, n_c, y_s, n_s of one stratum, or of several in order, for one test."""
    return np.array(counts, np.int64).reshape(1, -1, 4)


def follow(evidence: Evidence, blocks: list[Integers]) -> list[Evidence]:
    return [evidence := update(evidence, each) for each in blocks]


THREE_BLOCKS = [block(3, 30, 14, 270), block(5, 33, 13, 267), block(6, 28, 16, 272)]


# --- Values known from elsewhere


@pytest.mark.parametrize(
    ("tolerance", "phi", "expected"),
    [
        (0.0, 1.0, [0.298961, 1.471261, 3.577253]),
        (0.005, 1.0, [0.230012, 1.277845, 3.186806]),
        (0.0, 2.0, [0.146504, 0.681868, 1.562999]),
    ],
)
def test_evidence_for_worse_has_the_reference_values(tolerance: float, phi: float, expected: list[float]) -> None:
    states = follow(start(tolerance=tolerance, margin=0.02, phi=phi, prior=HALF_NORMAL), THREE_BLOCKS)
    assert [log_e_worse(state)[0] for state in states] == pytest.approx(expected, abs=1e-6)


def test_evidence_for_promotion_has_the_reference_values() -> None:
    states = follow(start(tolerance=0.0, margin=0.02, prior=HALF_NORMAL), THREE_BLOCKS)
    expected = [-0.200155, -1.073465, -2.065531]
    assert [log_e_non_inferior(state)[0] for state in states] == pytest.approx(expected, abs=1e-6)


def test_four_equal_blocks_have_the_reference_values() -> None:
    last = follow(start(tolerance=0.0, margin=0.02, prior=HALF_NORMAL), [block(2, 200, 18, 1800)] * 4)[-1]
    assert log_e_worse(last)[0] == pytest.approx(-0.629600, abs=1e-6)
    assert log_e_non_inferior(last)[0] == pytest.approx(5.372168, abs=1e-6)


def test_with_all_of_the_stake_at_the_start_an_onset_changes_nothing() -> None:
    state = follow(start(tolerance=0.0, margin=0.02, prior=HALF_NORMAL), THREE_BLOCKS)[-1]
    assert log_e_worse(onset(state)) == log_e_worse(state)


# --- Exact means under the null hypotheses

RATES = np.array([0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99, 1.0])
TARGETS = [(0.0, 0.02), (0.05, 0.3)]


def outcomes(*trials: tuple[int, int]) -> Integers:
    """All that can be counted, (O, K, 4), in strata of so many trials (n_c, n_s)."""
    ranges = [range(n + 1) for pair in trials for n in pair]
    failures = np.array(list(itertools.product(*ranges))).reshape(-1, len(trials), 2)
    counts = np.empty((len(failures), len(trials), 4), np.int64)
    counts[..., ::2], counts[..., 1::2] = failures, trials
    return counts


def chances(counts: Integers, f_c: Array, f_s: Array) -> Array:
    """Probability of each of `counts`. f_c, f_s: (..., K). Returns (..., O)."""
    y_c, n_c, y_s, n_s = np.moveaxis(counts, 2, 0)
    each = binom.pmf(y_c, n_c, np.expand_dims(f_c, -2)) * binom.pmf(y_s, n_s, np.expand_dims(f_s, -2))
    return np.asarray(each.prod(axis=-1))


def log_e_values(state: Evidence) -> Array:
    """(B, 3 + 2 * len(GRID)): worse, non-inferior, superior, and both sides of every difference of the grid."""
    verdicts = np.stack([log_e_worse(state), log_e_non_inferior(state), log_e_superior(state)], axis=1)
    return np.concatenate([verdicts, state.above, state.below], axis=1)


def within_nulls(f_c: Array, f_s: Array, tolerance: float, margin: float) -> Bools:
    """Which of `log_e_values` have a null hypothesis that holds the rates. Those a rounding error apart are equal."""
    d = np.mean(f_c - f_s, axis=-1, keepdims=True)
    limits = np.array([tolerance, margin, 0.0])
    on_side = np.array([1, -1, -1]) * (d - limits) <= 1e-12
    return np.concatenate([on_side, d <= GRID + 1e-12, d >= GRID - 1e-12], axis=-1)


def null_pairs(tolerance: float, margin: float) -> tuple[Array, Array]:
    """Rates (f_c, f_s) of one stratum, those on the edges of the null hypotheses among them. (P, 1) each."""
    nearby = [(f_s + d, f_s) for f_s in RATES for d in (tolerance, margin, -0.1, 0.01) if 0 <= f_s + d <= 1]
    f_c, f_s = np.array([*itertools.product(RATES, RATES), *nearby]).T[..., None]
    return f_c, f_s


def null_strata(strata: int, limits: Array, seed: int) -> tuple[Array, Array]:
    """Random rates (f_c, f_s) of several strata whose mean difference is one of `limits`. (P, K)."""
    rng = np.random.default_rng(seed)
    d = np.repeat(limits, 4000)[:, None]
    f_s = rng.uniform(0, 1, (len(d), strata)) ** rng.choice([0.3, 1, 3], (len(d), 1))
    spread = rng.normal(0, 0.1, f_s.shape)
    f_c = f_s + d + spread - spread.mean(axis=1, keepdims=True)
    possible = np.flatnonzero(np.all((f_c >= 0) & (f_c <= 1), axis=1))
    chosen = rng.choice(possible, 1000, replace=False)
    return f_c[chosen], f_s[chosen]


def assert_fair(before: Evidence, trials: list[tuple[int, int]], f_c: Array, f_s: Array) -> None:
    """One more block multiplies no e-value by more than 1 on average while its null hypothesis holds."""
    counts = outcomes(*trials)
    after = log_e_values(update(take(before, np.zeros(len(counts), np.int64)), counts))
    means = chances(counts, f_c, f_s) @ np.exp(after - log_e_values(before))
    holds = within_nulls(f_c, f_s, before.tolerance[0], before.margin[0])
    assert holds.any(axis=0).all()
    assert np.all(means[holds] <= 1 + 1e-9)


@pytest.mark.parametrize("trials", [(1, 1), (1, 5), (4, 2), (3, 12), (2, 30)])
@pytest.mark.parametrize(("tolerance", "margin"), TARGETS)
@pytest.mark.parametrize("phi", [1.0, 1.7])
@pytest.mark.parametrize(
    "past",
    [
        block(0, 0, 0, 0),
        block(0, 40, 1, 400),
        block(9, 40, 5, 400),
        block(2, 3, 40, 40),
        block(1, 2000, 1990, 2000),
    ],
)
def test_one_block_has_mean_e_value_at_most_1_whatever_the_past(
    past: Integers, phi: float, tolerance: float, margin: float, trials: tuple[int, int]
) -> None:
    before = update(start(tolerance=tolerance, margin=margin, phi=phi), past)
    assert_fair(before, [trials], *null_pairs(tolerance, margin))


@pytest.mark.parametrize("history", [(0, 0), (1, 20), (70, 100), (5000, 100_000)])
def test_whatever_is_known_of_the_time_before_the_mean_is_at_most_1(history: tuple[int, int]) -> None:
    before = start(tolerance=0.01, margin=0.1, history=np.array([[history]]))
    assert_fair(before, [(3, 9)], *null_pairs(0.01, 0.1))


@pytest.mark.parametrize("trials", [[(2, 2), (1, 3)], [(1, 1), (5, 4)], [(1, 2), (2, 1), (1, 1)]])
@pytest.mark.parametrize(("tolerance", "margin"), TARGETS)
@pytest.mark.parametrize("phi", [1.0, 1.7])
def test_strata_have_mean_e_value_at_most_1(
    trials: list[tuple[int, int]], phi: float, tolerance: float, margin: float
) -> None:
    strata = len(trials)
    f_c, f_s = null_strata(strata, np.array([tolerance, margin, *GRID]), seed=strata)
    fresh = start(tolerance=tolerance, margin=margin, phi=phi, strata=strata)
    past = np.array([[[2, 10, 9, 90], [3, 5, 8, 40], [0, 4, 1, 7]][:strata]])
    for before in (fresh, update(fresh, past)):
        assert_fair(before, trials, f_c, f_s)


@pytest.mark.parametrize("phi", [1.0, 1.7])
def test_two_blocks_with_an_onset_between_have_mean_e_value_at_most_1_also_when_both_arms_drift(phi: float) -> None:
    """The rates of the first block come from the prior, those of the second from the first block."""
    tolerance, margin = 0.01, 0.1
    first, second = outcomes((2, 3)), outcomes((1, 4))
    fresh = start(tolerance=np.full(len(first), tolerance), margin=margin, phi=phi)
    states = onset(update(fresh, first))
    both = update(take(states, np.repeat(np.arange(len(first)), len(second))), np.tile(second, (len(first), 1, 1)))
    values = np.exp(log_e_values(both)).reshape(len(first), len(second), -1)
    pairs = null_pairs(tolerance, margin)
    means = np.einsum("pi,qj,ije->pqe", chances(first, *pairs), chances(second, *pairs), values)
    holds = within_nulls(*pairs, tolerance, margin)
    holds_twice = holds[:, None, :] & holds[None, :, :]
    assert holds_twice.any(axis=(0, 1)).all()
    assert np.all(means[holds_twice] <= 1 + 1e-9)


def test_an_average_of_f1_has_mean_e_value_at_most_1_with_each_wrong_prediction_in_one_of_its_classes() -> None:
    """Four labels per arm, each right for class a or b, or wrong and then counted for either by a fair coin. How many
    trials a class has is by chance here, and depends on what fails."""
    labels = 4
    cells = np.array([c for c in itertools.product(range(labels + 1), repeat=4) if sum(c) == labels])
    of_classes = np.stack([cells[:, 2:], cells[:, :2] + cells[:, 2:]], axis=2)  # failures and trials
    counts = np.concatenate(np.broadcast_arrays(of_classes[:, None], of_classes[None]), axis=3).reshape(-1, 2, 4)
    before = update(start(tolerance=0.0, margin=0.1, strata=2), block(2, 10, 9, 90, 3, 5, 8, 40))
    after = log_e_values(update(take(before, np.zeros(len(counts), np.int64)), counts))
    gains = np.exp(after - log_e_values(before)).reshape(len(cells), len(cells), -1)

    rng = np.random.default_rng(7)
    right_a, right_b, wrong = np.moveaxis(rng.dirichlet([1, 1, 0.7], (2, 3000)), 2, 0)
    shares = np.stack([right_a, right_b, wrong / 2, wrong / 2], axis=2)
    canary, stable = (multinomial.pmf(cells, labels, each[:, None]) for each in shares)
    failing = shares[..., 2:] / (shares[..., :2] + shares[..., 2:])
    means = np.einsum("pi,pj,ije->pe", canary, stable, gains)
    holds = within_nulls(failing[0], failing[1], 0.0, 0.1)
    assert holds.any(axis=0).all()
    assert np.all(means[holds] <= 1 + 1e-9)
