"""The sequential test: published values, exact means under the null hypotheses, laws, error rates and power."""

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, nchypergeom_fisher

from serin_operator.decide.evidence import (
    GRID,
    PLANNING_FACTOR,
    Action,
    Block,
    Counts,
    Evidence,
    Finding,
    Verdict,
    difference,
    finding,
    forecast,
    interval,
    log_e_non_inferior,
    log_e_worse,
    retarget,
    shortest_wait,
    start,
    update,
    verdict,
)
from serin_operator.decide.projection import Array, log_likelihood_ratios, project

ALPHA = BETA = 0.05
ENOUGH = math.log(20)


def block(y_c: int, n_c: int, y_s: int, n_s: int) -> Block:
    return Block(Counts(y_c, n_c), Counts(y_s, n_s))


def follow(evidence: Evidence, blocks: list[Block]) -> Iterator[Evidence]:
    for each in blocks:
        evidence = update(evidence, each)
        yield evidence


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
    states = follow(start(tolerance=tolerance, margin=0.02, phi=phi), THREE_BLOCKS)
    assert [log_e_worse(state) for state in states] == pytest.approx(expected, abs=6e-7)


def test_evidence_for_promotion_has_the_reference_values() -> None:
    states = follow(start(tolerance=0.0, margin=0.02), THREE_BLOCKS)
    expected = [-0.200155, -1.073465, -2.065531]
    assert [log_e_non_inferior(state) for state in states] == pytest.approx(expected, abs=6e-7)


def test_four_equal_blocks_have_the_reference_values() -> None:
    *_, last = follow(start(tolerance=0.0, margin=0.02), [block(2, 200, 18, 1800)] * 4)
    assert log_e_worse(last) == pytest.approx(-0.629600, abs=6e-7)
    assert log_e_non_inferior(last) == pytest.approx(5.372168, abs=6e-7)


def test_safe_2x2_test_of_safestats() -> None:
    """Blocks of one trial per arm, Beta(1, 1) on each rate, successes (1, 1) and (0, 0): e-values 1 and 16/9."""
    log_e, expected = 0.0, [1, 16 / 9]
    for past, e_value in enumerate(expected):
        log_e += log_likelihood_ratios(
            alternatives=np.array([(1 + past) / (2 + past)]),
            f_s=1 / (2 + past),
            differences=np.zeros(1),
            canary=(1, 1),
            stable=(0, 1),
        )[0]
        assert math.exp(log_e) == pytest.approx(e_value)


def test_given_the_total_the_ratio_turns_chance_into_fishers_noncentral_hypergeometric() -> None:
    """Two of two trials per arm fail in all, odds ratio 2: probabilities 1, 8 and 4 of 13 (as in safestats)."""
    f_s = 0.3
    f_c = 2 * f_s / (1 - f_s + 2 * f_s)
    weights = [
        math.comb(2, y)
        * math.comb(2, 2 - y)
        * math.exp(
            log_likelihood_ratios(
                alternatives=np.array([f_c]),
                f_s=f_s,
                differences=np.zeros(1),
                canary=(y, 2),
                stable=(2 - y, 2),
            )[0]
        )
        for y in range(3)
    ]
    probabilities = np.array(weights) / sum(weights)
    assert probabilities == pytest.approx(np.array([1, 8, 4]) / 13)
    assert probabilities == pytest.approx(nchypergeom_fisher(M=4, n=2, N=2, odds=2).pmf([0, 1, 2]))


@pytest.mark.parametrize(("per_second", "minutes"), [(1, 158), (10, 15.8), (100, 1.58)])
def test_the_shortest_wait_for_95_percent_accuracy_two_points_and_a_tenth_of_the_traffic(
    per_second: int, minutes: float
) -> None:
    wait = shortest_wait(
        failure_rate=0.05,
        margin=0.02,
        canary_per_minute=6 * per_second,
        stable_per_minute=54 * per_second,
        log_odds=ENOUGH,
    )
    assert wait == pytest.approx(minutes, rel=1e-3)


# --- Exact means under the null hypotheses

RATES = np.array([0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.99, 1.0])
TRIALS = [(1, 1), (1, 5), (4, 2), (3, 7)]


def outcomes(n_c: int, n_s: int) -> list[Block]:
    return [block(y_c, n_c, y_s, n_s) for y_c in range(n_c + 1) for y_s in range(n_s + 1)]


def chances(n_c: int, n_s: int, f_c: float, f_s: float) -> Array:
    """Probability of each of `outcomes`, in their order."""
    return np.asarray(np.outer(binom.pmf(range(n_c + 1), n_c, f_c), binom.pmf(range(n_s + 1), n_s, f_s)).ravel())


def log_e_values(state: Evidence) -> Array:
    """Shape (2 + 2 * 37,): worse, non-inferior, and both sides of every difference of the grid."""
    return np.array([log_e_worse(state), log_e_non_inferior(state), *state.above, *state.below])


def within_nulls(f_c: float, f_s: float, tolerance: float, margin: float) -> list[bool]:
    """Which of `log_e_values` have a null hypothesis that holds the pair. Rates a rounding error apart are equal."""
    d = f_c - f_s
    return [
        d <= tolerance + 1e-12,
        d >= margin - 1e-12,
        *(d <= GRID + 1e-12),
        *(d >= GRID - 1e-12),
    ]


def null_pairs(tolerance: float, margin: float) -> list[tuple[float, float]]:
    """Pairs (f_c, f_s), those on the edges of the null hypotheses among them."""
    nearby = [(f_s + d, f_s) for f_s in RATES for d in (tolerance, margin, -0.1, 0.01) if 0 <= f_s + d <= 1]
    return [*itertools.product(RATES, RATES), *nearby]


@pytest.mark.parametrize(("n_c", "n_s"), TRIALS)
@pytest.mark.parametrize(("tolerance", "margin"), [(0.0, 0.02), (0.05, 0.3)])
@pytest.mark.parametrize(
    "past",
    [
        Block(),
        block(0, 40, 1, 400),
        block(9, 40, 5, 400),
        block(2, 3, 40, 40),
        block(1, 2000, 1990, 2000),
    ],
)
def test_one_block_has_mean_e_value_at_most_1_whatever_the_past(
    past: Block, tolerance: float, margin: float, n_c: int, n_s: int
) -> None:
    before = update(start(tolerance=tolerance, margin=margin), past)
    after = np.array([log_e_values(update(before, outcome)) for outcome in outcomes(n_c, n_s)])
    gains = np.exp(after - log_e_values(before))
    for f_c, f_s in null_pairs(tolerance, margin):
        means = chances(n_c, n_s, f_c, f_s) @ gains
        assert np.all(means[within_nulls(f_c, f_s, tolerance, margin)] <= 1 + 1e-9), (f_c, f_s)


@pytest.mark.parametrize("phi", [1.0, 1.7])
def test_two_blocks_have_mean_e_value_at_most_1_also_when_both_arms_drift(phi: float) -> None:
    """The rates of the first block come from the prior, those of the second from the first block."""
    tolerance, margin = 0.01, 0.1
    n_first, n_second = (2, 3), (1, 4)
    first = [update(start(tolerance=tolerance, margin=margin, phi=phi), b) for b in outcomes(*n_first)]
    values = np.exp([[log_e_values(update(state, b)) for b in outcomes(*n_second)] for state in first])
    pairs = null_pairs(tolerance, margin)
    of_first = np.array([chances(*n_first, *pair) for pair in pairs])
    of_second = np.array([chances(*n_second, *pair) for pair in pairs])
    holds = np.array([within_nulls(*pair, tolerance, margin) for pair in pairs])
    means = np.einsum("pi,qj,ije->pqe", of_first, of_second, values)
    both = holds[:, None, :] & holds[None, :, :]
    assert both.any(axis=(0, 1)).all()
    assert np.all(means[both] <= 1 + 1e-9)


# --- Laws

RATE = st.floats(1e-7, 1 - 1e-7)
ANY_COUNTS = st.builds(lambda y, rest: Counts(y, y + rest), st.integers(0, 40), st.integers(0, 400))
ANY_BLOCK = st.builds(Block, ANY_COUNTS, ANY_COUNTS)
FULL_BLOCK = ANY_BLOCK.filter(lambda b: b.canary.trials > 0 and b.stable.trials > 0)
TARGETS = st.sampled_from([(0.0, 0.02), (0.005, 0.01), (0.1, 0.5), (0.0, 0.001)])


@st.composite
def states(draw: st.DrawFn) -> Evidence:
    tolerance, margin = draw(TARGETS)
    evidence = start(tolerance=tolerance, margin=margin, phi=draw(st.sampled_from([1.0, 1.5])))
    for each in draw(st.lists(ANY_BLOCK, max_size=4)):
        evidence = update(evidence, each)
    return evidence


@given(RATE, RATE, st.floats(-0.99, 0.99), st.integers(1, 10**7), st.integers(1, 10**7))
def test_the_projection_is_nearest_on_its_line(f_c: float, f_s: float, d: float, n_c: int, n_s: int) -> None:
    def distance(g_s: Array) -> Array:
        return np.asarray(
            sum(
                n / (n_c + n_s) * (f * np.log(f / g) + (1 - f) * np.log((1 - f) / (1 - g)))
                for n, f, g in ((n_c, f_c, g_s + d), (n_s, f_s, g_s))
            )
        )

    g_c, g_s = project(np.array([f_c]), f_s, np.array([d]), n_c, n_s)
    elsewhere = np.linspace(max(0, -d) + 1e-9, min(1, 1 - d) - 1e-9, 501)
    assert g_c == pytest.approx(g_s + d, abs=1e-15)
    assert np.all(distance(g_s) <= distance(elsewhere) + 1e-12)


@given(states())
def test_a_block_without_counts_changes_nothing(state: Evidence) -> None:
    assert update(state, Block()) == state


@given(states(), FULL_BLOCK)
def test_counts_of_one_arm_wait_for_the_other(state: Evidence, full: Block) -> None:
    canary_first = update(update(state, Block(canary=full.canary)), Block(stable=full.stable))
    stable_first = update(update(state, Block(stable=full.stable)), Block(canary=full.canary))
    if state.pending == Block():
        assert canary_first == stable_first == update(state, full)
    assert canary_first.total == stable_first.total == state.total + full


@given(TARGETS, st.lists(FULL_BLOCK, min_size=1, max_size=4), st.data())
def test_more_canary_failures_never_help_the_canary(
    target: tuple[float, float], blocks: list[Block], data: st.DataObject
) -> None:
    """In any block: the rates that later blocks are tested with come from the stable arm alone."""
    where = data.draw(st.integers(0, len(blocks) - 1))
    canary = blocks[where].canary
    failures = data.draw(st.integers(canary.failures, canary.trials))
    worse_blocks = [*blocks]
    worse_blocks[where] = replace(blocks[where], canary=Counts(failures, canary.trials))
    *_, before = follow(start(tolerance=target[0], margin=target[1]), blocks)
    *_, after = follow(start(tolerance=target[0], margin=target[1]), worse_blocks)
    assert log_e_worse(after) >= log_e_worse(before) - 1e-8
    assert log_e_non_inferior(after) <= log_e_non_inferior(before) + 1e-8


@given(states(), FULL_BLOCK, st.data())
def test_more_stable_failures_in_the_latest_block_never_harm_the_canary(
    state: Evidence, latest: Block, data: st.DataObject
) -> None:
    """Only in the latest: later blocks are tested with rates that earlier stable failures have moved."""
    failures = data.draw(st.integers(latest.stable.failures, latest.stable.trials))
    before = update(state, latest)
    after = update(state, replace(latest, stable=Counts(failures, latest.stable.trials)))
    assert log_e_worse(after) <= log_e_worse(before) + 1e-8
    assert log_e_non_inferior(after) >= log_e_non_inferior(before) - 1e-8


@given(states())
def test_json_round_trip_is_exact(state: Evidence) -> None:
    assert Evidence.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_the_stored_form_is_small() -> None:
    state = start(tolerance=0.0, margin=0.02)
    for _ in range(200):
        state = update(state, block(137, 10_000, 1_191, 90_000))
    assert len(json.dumps(state.to_json(), separators=(",", ":"))) < 2000


@pytest.mark.parametrize(
    "change",
    [
        {"layout": 0},
        {"margin": None},
        {"phi": 0.5},
        {"tested": [3, 2, 0, 0]},
        {"pending": [0, 0, 0]},
        {"worse": [0.0]},
        {"nonInferior": [0.0, math.nan, 0.0]},
        {"above": "none"},
    ],
)
def test_a_stored_state_in_another_form_is_refused(change: dict[str, object]) -> None:
    stored = {**start(tolerance=0.0, margin=0.02).to_json(), **change}
    with pytest.raises(ValueError, match=r"layout|state of evidence|phi|failures in|four counts|finite sums"):
        Evidence.from_json(stored)


@pytest.mark.parametrize("value", [{}, [], None])
def test_something_else_than_a_stored_state_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a stored state"):
        Evidence.from_json(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tolerance", "margin", "phi"),
    [(0.02, 0.02, 1.0), (-0.01, 0.02, 1.0), (0.0, 1.0, 1.0), (0.0, math.nan, 1.0), (0.0, 0.02, 0.9)],
)
def test_impossible_hypotheses_are_refused(tolerance: float, margin: float, phi: float) -> None:
    with pytest.raises(ValueError, match="need"):
        start(tolerance=tolerance, margin=margin, phi=phi)


@pytest.mark.parametrize(("failures", "trials"), [(2, 1), (-1, 1)])
def test_impossible_counts_are_refused(failures: int, trials: int) -> None:
    with pytest.raises(ValueError, match="failures in"):
        Counts(failures, trials)


@pytest.mark.parametrize(
    "extreme",
    [
        block(0, 10**7, 0, 10**7),
        block(10**7, 10**7, 10**7, 10**7),
        block(10**7, 10**7, 0, 10**7),
        block(0, 10**7, 10**7, 10**7),
        block(1, 1, 0, 10**7),
        block(0, 1, 10**7, 10**7),
        block(99_999, 10**7, 100_000, 10**7),
    ],
)
@pytest.mark.parametrize(("tolerance", "margin"), [(0.0, 1e-6), (0.0, 0.5), (0.49, 0.5), (0.9, 0.99)])
def test_extreme_counts_keep_everything_finite(extreme: Block, tolerance: float, margin: float) -> None:
    for state in follow(start(tolerance=tolerance, margin=margin), [extreme] * 3):
        assert np.isfinite([*state.worse, *state.non_inferior, *state.above, *state.below]).all()
        low, high = interval(state, alpha=ALPHA, beta=BETA)
        assert -1 <= low < high <= 1
        assert Evidence.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_nothing_counts_as_worse_than_stable_plus_a_tolerance_that_passes_1() -> None:
    state = update(start(tolerance=0.4, margin=0.5), block(10, 10, 990, 1000))
    assert log_e_worse(update(state, block(10, 10, 10, 10))) == pytest.approx(log_e_worse(state))


# --- Edited hypotheses


def test_a_wider_null_hypothesis_starts_again_and_a_narrower_one_keeps_its_evidence() -> None:
    state = update(start(tolerance=0.005, margin=0.02), block(20, 200, 90, 1800))
    wider = retarget(state, tolerance=0.01, margin=0.015)
    assert (log_e_worse(wider), log_e_non_inferior(wider)) == pytest.approx((0, 0))
    narrower = retarget(state, tolerance=0.0, margin=0.03)
    assert (narrower.worse, narrower.non_inferior) == (state.worse, state.non_inferior)
    assert wider.total == narrower.total == state.total
    assert (wider.above, wider.below) == (state.above, state.below)


@given(states())
def test_unchanged_hypotheses_change_nothing(state: Evidence) -> None:
    assert retarget(state, tolerance=state.tolerance, margin=state.margin) == state


# --- Interval, finding, verdict, forecast


@settings(max_examples=25)
@given(
    TARGETS,
    st.integers(10, 40),
    st.sampled_from([0.0, 0.05, 0.1, 0.3]),
    st.sampled_from([(0.05, 0.05), (0.01, 0.2)]),
)
def test_the_interval_agrees_with_the_finding(
    target: tuple[float, float], blocks: int, f_c: float, rates: tuple[float, float]
) -> None:
    alpha, beta = rates
    each = block(round(100 * f_c), 100, 50, 500)
    for state in follow(start(tolerance=target[0], margin=target[1]), [each] * blocks):
        low, high = interval(state, alpha=alpha, beta=beta)
        assert low < high
        if log_e_worse(state) >= -math.log(alpha):
            assert low >= state.tolerance
        if log_e_non_inferior(state) >= -math.log(beta):
            assert high <= state.margin


def test_the_interval_narrows_to_the_difference() -> None:
    *_, last = follow(start(tolerance=0.0, margin=0.1), [block(70, 1000, 500, 10_000)] * 60)
    assert difference(last) == pytest.approx(0.02)
    assert interval(last, alpha=ALPHA, beta=BETA) == (0.015, 0.03)


def test_without_data_the_interval_is_everything() -> None:
    state = update(start(tolerance=0.0, margin=0.02), Block(canary=Counts(1, 5)))
    assert interval(state, alpha=ALPHA, beta=BETA) == (-1, 1)
    assert interval(state, alpha=0.5, beta=0.5) == (-1, 1)
    assert difference(state) is None
    assert finding(state, alpha=ALPHA, beta=BETA) is Finding.NO_DATA


def test_where_every_difference_is_refuted_the_interval_is_everything() -> None:
    state = start(tolerance=0.0, margin=0.02)
    refuted = replace(state, above=(9.0,) * len(GRID), below=(9.0,) * len(GRID))
    assert interval(refuted, alpha=ALPHA, beta=BETA) == (-1, 1)


BASE = update(start(tolerance=0.0, margin=0.02), block(1, 10, 10, 100))


def with_odds(worse: float, non_inferior: float) -> Evidence:
    return replace(
        BASE,
        worse=(math.log(worse),) * len(BASE.worse),
        non_inferior=(math.log(non_inferior),) * len(BASE.non_inferior),
    )


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"errors": with_odds(1, 1)}, Verdict(Action.WAIT)),
        ({"errors": with_odds(20.1, 1)}, Verdict(Action.ROLL_BACK, "errors")),
        ({"errors": with_odds(19.9, 1)}, Verdict(Action.WAIT)),
        ({"errors": with_odds(20.1, 99)}, Verdict(Action.ROLL_BACK, "errors")),
        ({"errors": with_odds(1, 20.1)}, Verdict(Action.PROMOTE)),
        ({"errors": with_odds(1, 19.9)}, Verdict(Action.WAIT)),
        ({"errors": with_odds(1, 99), "latency": with_odds(1, 19)}, Verdict(Action.WAIT)),
        ({"errors": with_odds(1, 99), "latency": with_odds(1, 21)}, Verdict(Action.PROMOTE)),
        ({"errors": with_odds(1, 1), "latency": with_odds(38.9, 1)}, Verdict(Action.WAIT)),
        ({"errors": with_odds(1, 1), "latency": with_odds(39.1, 1)}, Verdict(Action.ROLL_BACK, "latency")),
        ({"errors": with_odds(1e300, 1), "latency": with_odds(1, 1)}, Verdict(Action.ROLL_BACK, "errors")),
    ],
)
def test_the_verdict_over_metrics(metrics: dict[str, Evidence], expected: Verdict) -> None:
    assert verdict(metrics, alpha=ALPHA, beta=BETA) == expected


def test_a_verdict_without_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one metric"):
        verdict({}, alpha=ALPHA, beta=BETA)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (with_odds(21, 21), Finding.WORSE),
        (with_odds(1, 21), Finding.NON_INFERIOR),
        (with_odds(19, 19), Finding.UNDECIDED),
    ],
)
def test_the_finding_of_one_metric(state: Evidence, expected: Finding) -> None:
    assert finding(state, alpha=ALPHA, beta=BETA) is expected


def test_the_forecast_plans_for_the_odds_that_are_missing() -> None:
    state = update(start(tolerance=0.0, margin=0.02, phi=2.0), block(5, 99, 99, 1980))
    wait = shortest_wait(
        failure_rate=100 / 1990,
        margin=0.02,
        canary_per_minute=60,
        stable_per_minute=540,
        log_odds=ENOUGH - log_e_non_inferior(state),
    )
    planned = forecast(state, canary_per_minute=60, stable_per_minute=540, beta=BETA)
    assert planned == pytest.approx(2.0 * PLANNING_FACTOR * wait)
    assert forecast(state, canary_per_minute=0, stable_per_minute=540, beta=BETA) == math.inf
    assert forecast(with_odds(1, 21), canary_per_minute=0, stable_per_minute=540, beta=BETA) == 0


# --- Error rates and power, simulated with fixed seeds


def simulate(seed: int, f_s: Array, extra: float, share: Array, requests: int) -> Iterator[Evidence]:
    """One rollout: per scrape the stable failure rate `f_s`, the canary's being `extra` more, and its `share`."""
    rng = np.random.default_rng(seed)
    state = start(tolerance=0.0, margin=0.02)
    for rate, weight in zip(f_s, share, strict=True):
        n_c = int(rng.binomial(requests, weight))
        canary = Counts(int(rng.binomial(n_c, rate + extra)), n_c)
        stable = Counts(int(rng.binomial(requests - n_c, rate)), requests - n_c)
        state = update(state, Block(canary, stable))
        yield state


def test_false_rollbacks_and_coverage_under_a_ramp_while_both_arms_drift() -> None:
    """80 rollouts of 100 scrapes. At a true rate of 0.05 more than 10 wrong ones have probability 0.002, at the
    interval's 0.10 more than 17 have probability 0.001."""
    drift, ramp = np.linspace(0.03, 0.10, 100), np.repeat([0.05, 0.10, 0.25, 0.50], 25)
    rolled_back = missed = 0
    for seed in range(80):
        states = list(simulate(seed, drift, 0.0, ramp, 300))
        rolled_back += any(log_e_worse(state) >= ENOUGH for state in states)
        shown = [interval(state, alpha=ALPHA, beta=BETA) for state in states]
        missed += not all(low <= 0 <= high for low, high in shown)
    assert rolled_back <= 10
    assert missed <= 17


def test_false_promotions_of_a_canary_that_is_worse_by_just_the_margin() -> None:
    """80 rollouts; at a true rate of 0.05 more than 10 wrong ones have probability 0.002."""
    promoted = sum(
        any(
            log_e_non_inferior(state) >= ENOUGH
            for state in simulate(seed, np.full(80, 0.05), 0.02, np.full(80, 0.1), 300)
        )
        for seed in range(1000, 1080)
    )
    assert promoted <= 10


def test_a_canary_five_points_worse_is_found_within_minutes() -> None:
    """10 requests a second, a tenth to the canary, scrapes of 30 s. The reference's median is 3.5 minutes."""
    minutes = []
    for seed in range(2000, 2031):
        run = simulate(seed, np.full(60, 0.05), 0.05, np.full(60, 0.1), 300)
        found = next((scrape for scrape, state in enumerate(run, 1) if log_e_worse(state) >= ENOUGH), None)
        assert found is not None
        minutes.append(found / 2)
    assert np.median(minutes) == pytest.approx(3.5, abs=1.5)


def test_an_equally_good_canary_is_mostly_promoted_within_the_planned_time() -> None:
    """100 requests a second; the bound on the average is 1.58 minutes. A longer simulation has an average of
    1.2 bounds (standard deviation 0.9) and 72 % within the plan. Over 40 rollouts an average outside of 0.7 to
    1.7 bounds has probability 0.001, and fewer than 21 within the plan 0.003."""
    bound = shortest_wait(
        failure_rate=0.05, margin=0.02, canary_per_minute=600, stable_per_minute=5400, log_odds=ENOUGH
    )
    minutes = []
    for seed in range(3000, 3040):
        run = simulate(seed, np.full(240, 0.05), 0.0, np.full(240, 0.1), 500)
        scrapes = next(n for n, state in enumerate(run, 1) if log_e_non_inferior(state) >= ENOUGH)
        minutes.append(scrapes / 12)
    assert 0.7 * bound <= np.mean(minutes) <= 1.7 * bound
    assert sum(each <= PLANNING_FACTOR * bound for each in minutes) >= 21
