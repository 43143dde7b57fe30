"""Laws of the evidence: what changes nothing, what moves it which way, its interval, and how it is stored."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serin_operator.decide.alternatives import WORSE
from serin_operator.decide.evidence import (
    Counts,
    Evidence,
    concat,
    decode,
    difference,
    encode,
    interval,
    log_e_non_inferior,
    log_e_superior,
    log_e_worse,
    onset,
    retarget,
    start,
    take,
    update,
)
from serin_operator.decide.grid import GRID
from serin_operator.decide.projection import Integers

ALPHA = BETA = 0.05
ENOUGH = math.log(20)


def block(*counts: int) -> Integers:
    """y_c, n_c, y_s, n_s of one stratum, or of several in order, for one test."""
    return np.array(counts, np.int64).reshape(1, -1, 4)


def follow(evidence: Evidence, blocks: list[Integers]) -> list[Evidence]:
    return [evidence := update(evidence, each) for each in blocks]


ARM = st.builds(lambda y, rest: (y, y + rest), st.integers(0, 40), st.integers(0, 400))
FULL_ARM = ARM.filter(lambda arm: arm[1] > 0)
TARGETS = st.sampled_from([(0.0, 0.02), (0.005, 0.01), (0.1, 0.5), (0.0, 0.001)])


@st.composite
def blocks(draw: st.DrawFn, strata: int, arm: st.SearchStrategy[tuple[int, int]] = ARM) -> Integers:
    return block(*(number for _ in range(2 * strata) for number in draw(arm)))


@st.composite
def states(draw: st.DrawFn, strata: int | None = None) -> Evidence:
    tolerance, margin = draw(TARGETS)
    strata = strata or draw(st.integers(1, 3))
    history = [[draw(ARM)] * strata]
    evidence = start(
        tolerance=tolerance, margin=margin, phi=draw(st.sampled_from([1.0, 1.5])), strata=strata, history=history
    )
    for each in draw(st.lists(blocks(strata), max_size=3)):
        evidence = update(evidence, each)
        if draw(st.booleans()):
            evidence = onset(evidence)
    return evidence


# --- What changes nothing


@given(states())
def test_a_block_without_counts_changes_nothing(state: Evidence) -> None:
    assert encode(update(state, np.zeros_like(state.tested))) == encode(state)


@given(states(), st.data())
def test_counts_of_one_arm_wait_for_the_other(state: Evidence, data: st.DataObject) -> None:
    """So a scrape that saw only some pods, and the next one with the rest, are one block."""
    state = replace(state, pending=np.zeros_like(state.pending))
    full = data.draw(blocks(state.strata, FULL_ARM))
    canary, stable = full * np.array([1, 1, 0, 0]), full * np.array([0, 0, 1, 1])
    at_once = encode(update(state, full))
    assert encode(follow(state, [canary, stable])[-1]) == at_once
    assert encode(follow(state, [stable, canary])[-1]) == at_once
    assert np.array_equal(update(state, canary).total, state.total + canary)


@given(st.lists(states(strata=2), min_size=1, max_size=3), st.data())
def test_every_test_of_a_batch_is_on_its_own(several: list[Evidence], data: st.DataObject) -> None:
    counts = [data.draw(blocks(2)) for _ in several]
    alone = [text for state, each in zip(several, counts, strict=True) for text in encode(update(state, each))]
    together = update(concat(several), np.concatenate(counts))
    assert encode(together) == alone
    order = list(reversed(range(len(several))))
    assert encode(take(together, order)) == alone[::-1]


@given(states())
def test_an_onset_with_nothing_tested_since_the_last_one_changes_nothing(state: Evidence) -> None:
    once = onset(state)
    assert encode(onset(once)) == encode(once)
    assert encode(onset(state, [False])) == encode(state)


@given(states())
def test_unchanged_hypotheses_change_nothing(state: Evidence) -> None:
    assert encode(retarget(state, tolerance=state.tolerance, margin=state.margin)) == encode(state)


# --- What moves it which way


@given(TARGETS, st.integers(1, 2), st.data())
def test_more_canary_failures_never_help_the_canary(
    target: tuple[float, float], strata: int, data: st.DataObject
) -> None:
    """In any block, with any blocks after it: the alternatives of later blocks come from the stable arm alone."""
    counted = data.draw(st.lists(blocks(strata, FULL_ARM), min_size=1, max_size=4))
    where, of = data.draw(st.integers(0, len(counted) - 1)), data.draw(st.integers(0, strata - 1))
    harmed = [each.copy() for each in counted]
    failures, trials = counted[where][0, of, :2]
    harmed[where][0, of, 0] = data.draw(st.integers(int(failures), int(trials)))
    fresh = start(tolerance=target[0], margin=target[1], strata=strata)
    before, after = (follow(fresh, each)[-1] for each in (counted, harmed))
    slack = 1e-6 * (1 + np.abs(before.worse).max() + np.abs(before.superior).max())  # sums are rounded
    assert log_e_worse(after) >= log_e_worse(before) - slack
    assert log_e_non_inferior(after) <= log_e_non_inferior(before) + slack
    assert log_e_superior(after) <= log_e_superior(before) + slack


@given(states(strata=1), st.data())
def test_more_stable_failures_in_the_latest_block_never_harm_the_canary(state: Evidence, data: st.DataObject) -> None:
    """Only in the latest: later blocks are tested with rates that earlier stable failures have moved. And not in the
    first if nothing is known of the time before: there a part of the stable trials gives the rate."""
    state = update(state, block(1, 20, 9, 180))
    latest = data.draw(blocks(1, FULL_ARM))
    harmed = latest.copy()
    harmed[0, 0, 2] = data.draw(st.integers(int(latest[0, 0, 2]), int(latest[0, 0, 3])))
    before, after = update(state, latest), update(state, harmed)
    slack = 1e-6 * (1 + np.abs(before.worse).max() + np.abs(before.superior).max())
    assert log_e_worse(after) <= log_e_worse(before) + slack
    assert log_e_non_inferior(after) >= log_e_non_inferior(before) - slack
    assert log_e_superior(after) >= log_e_superior(before) - slack


def test_nothing_counts_as_worse_than_stable_plus_a_tolerance_that_passes_1() -> None:
    state = update(start(tolerance=0.4, margin=0.5), block(10, 10, 990, 1000))
    assert log_e_worse(update(state, block(10, 10, 10, 10))) == pytest.approx(log_e_worse(state))


def test_a_better_canary_becomes_superior_and_an_equal_one_does_not() -> None:
    fresh = start(tolerance=0.0, margin=0.02)
    assert log_e_superior(follow(fresh, [block(20, 1000, 500, 9000)] * 5)[-1]) > ENOUGH
    assert log_e_superior(follow(fresh, [block(50, 1000, 450, 9000)] * 5)[-1]) < 0


def test_harm_that_begins_late_is_found_sooner_with_an_onset_at_its_beginning() -> None:
    good = follow(start(tolerance=0.0, margin=0.02), [block(5, 100, 45, 900)] * 20)[-1]
    harm = [block(12, 100, 45, 900)] * 8
    assert log_e_worse(follow(onset(good), harm)[-1]) > log_e_worse(follow(good, harm)[-1]) + 1


def test_a_long_step_has_onsets_whenever_its_trials_have_doubled() -> None:
    states = follow(start(tolerance=0.0, margin=0.02), [block(3, 64, 27, 576)] * 20)
    assert [int(state.onsets[0]) for state in states] == [0] * 3 + [1] * 4 + [2] * 8 + [3] * 5


def test_the_stake_is_never_spent() -> None:
    state = start(tolerance=0.0, margin=0.02)
    spent = WORSE.first
    for each in range(1, 50):
        state = onset(update(state, block(0, 1, 0, 1)))
        spent += WORSE.first * float(WORSE.share(np.array(each)))
        assert spent + float(WORSE.unspent(state.onsets)[0]) == pytest.approx(1)
    assert state.onsets == 49


# --- Edited hypotheses


def test_a_wider_null_hypothesis_starts_again_and_a_narrower_one_keeps_its_evidence() -> None:
    state = onset(update(start(tolerance=0.005, margin=0.02), block(20, 200, 90, 1800)))
    wider = retarget(state, tolerance=0.01, margin=0.015)
    assert (log_e_worse(wider)[0], log_e_non_inferior(wider)[0]) == pytest.approx((0, 0))
    narrower = retarget(state, tolerance=[0.0], margin=0.03)
    assert np.array_equal(narrower.worse, state.worse)
    assert np.array_equal(narrower.non_inferior, state.non_inferior)
    for edited in (wider, narrower):
        assert np.array_equal(edited.total, state.total)
        assert np.array_equal([edited.above, edited.below], [state.above, state.below])
        assert np.array_equal(edited.superior, state.superior)


# --- The interval and the difference


@settings(max_examples=25)
@given(
    TARGETS,
    st.integers(10, 40),
    st.sampled_from([0.0, 0.05, 0.1, 0.3]),
    st.sampled_from([(0.05, 0.05), (0.01, 0.2)]),
)
def test_the_interval_agrees_with_the_verdicts(
    target: tuple[float, float], count: int, f_c: float, rates: tuple[float, float]
) -> None:
    alpha, beta = rates
    each = block(round(100 * f_c), 100, 50, 500)
    for state in follow(start(tolerance=target[0], margin=target[1]), [each] * count):
        low, high = interval(state, alpha=alpha, beta=beta)[0]
        assert low < high
        if log_e_worse(state) >= -math.log(alpha):
            assert low >= state.tolerance
        if log_e_non_inferior(state) >= -math.log(beta):
            assert high <= state.margin
        if log_e_superior(state) >= -math.log(beta) and log_e_non_inferior(state) >= -math.log(beta):
            assert high <= 0


def test_the_interval_narrows_to_the_difference() -> None:
    last = follow(
        start(tolerance=[0.0] * 2, margin=[0.1, 0.02]), [block(*[70, 1000, 500, 10_000] * 2)[0, :, None]] * 60
    )
    assert difference(last[-1]) == pytest.approx([0.02, 0.02])
    assert interval(last[-1], alpha=ALPHA, beta=BETA) == pytest.approx(np.array([[0.015, 0.03], [0.015, 0.03]]))


def test_the_interval_of_an_average_narrows_to_the_mean_difference() -> None:
    last = follow(start(tolerance=0.0, margin=0.2, strata=2), [block(70, 1000, 500, 10_000, 80, 400, 400, 4000)] * 60)
    assert difference(last[-1]) == pytest.approx([0.06])
    low, high = interval(last[-1], alpha=ALPHA, beta=BETA)[0]
    assert 0.03 <= low < 0.06 < high <= 0.1


def test_without_data_the_interval_is_everything() -> None:
    state = update(start(tolerance=0.0, margin=0.02), block(1, 5, 0, 0))
    assert interval(state, alpha=ALPHA, beta=BETA).tolist() == [[-1, 1]]
    assert interval(state, alpha=0.5, beta=0.5).tolist() == [[-1, 1]]
    assert np.isnan(difference(state)).all()


def test_where_every_difference_is_refuted_the_interval_is_everything() -> None:
    nines = np.full((1, len(GRID)), 9.0, np.float32)
    refuted = replace(start(tolerance=0.0, margin=0.02), above=nines, below=nines)
    assert interval(refuted, alpha=ALPHA, beta=BETA).tolist() == [[-1, 1]]


# --- The stored form


@given(states())
def test_what_is_decoded_encodes_equal_and_goes_on_equal(state: Evidence) -> None:
    texts = encode(state)
    again = decode(json.loads(json.dumps(texts)))
    assert encode(again) == texts
    more = np.tile([3, 30, 14, 270], (1, state.strata, 1))
    assert encode(update(again, more)) == encode(update(state, more))


def test_ten_metrics_take_less_than_3600_characters() -> None:
    state = start(tolerance=0.0, margin=np.full(10, 0.02), history=np.full((10, 1, 2), [7_123, 100_000]))
    rng = np.random.default_rng(1)
    for _ in range(200):
        y_c, y_s = rng.binomial(10_000, 0.07, 10), rng.binomial(90_000, 0.0717, 10)
        state = update(state, np.stack([y_c, np.full(10, 10_000), y_s, np.full(10, 90_000)], axis=1)[:, None])
    assert len(json.dumps(encode(state))) < 3600


def altered(**fields: object) -> str:
    return encode(replace(update(start(tolerance=0.0, margin=0.02), block(3, 30, 14, 270)), **fields))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none",
        "ä",
        altered()[:-3],
        altered(phi=np.array([0.5])),
        altered(tolerance=np.array([0.5])),
        altered(tested=np.array([[[3, 2, 0, 0]]])),
        altered(superior=np.full((1, 5), np.nan, np.float32)),
        altered(superior=np.zeros((1, 4), np.float32)),
        altered(pending=np.zeros((1, 2, 4), np.int64)),
    ],
)
def test_another_text_than_a_stored_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"state|phi|failures in|tolerance"):
        decode([text])


def test_states_of_other_strata_are_not_one_batch() -> None:
    texts = [*encode(start(tolerance=0.0, margin=0.1)), *encode(start(tolerance=0.0, margin=0.1, strata=2))]
    with pytest.raises(ValueError, match="equal strata"):
        decode(texts)


# --- What is refused, and extremes


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
    with pytest.raises(ValueError, match="failures in"):
        update(start(tolerance=0.0, margin=0.02), block(0, 1, failures, trials))


@pytest.mark.parametrize("counts", [np.zeros((1, 4), np.int64), np.zeros((1, 2, 4), np.int64), np.zeros((1, 1, 4))])
def test_counts_of_another_shape_or_kind_are_refused(counts: Integers) -> None:
    with pytest.raises(ValueError, match="expected integers of shape"):
        update(start(tolerance=0.0, margin=0.02), counts)


@pytest.mark.parametrize(
    "extreme",
    [
        (0, 10**7, 0, 10**7),
        (10**7, 10**7, 10**7, 10**7),
        (10**7, 10**7, 0, 10**7),
        (0, 10**7, 10**7, 10**7),
        (1, 1, 0, 10**7),
        (0, 1, 10**7, 10**7),
        (99_999, 10**7, 100_000, 10**7),
    ],
)
@pytest.mark.parametrize("strata", [1, 2])
@pytest.mark.parametrize(("tolerance", "margin"), [(0.0, 1e-6), (0.0, 0.5), (0.49, 0.5), (0.9, 0.99)])
def test_extreme_counts_keep_everything_finite(
    extreme: tuple[int, ...], strata: int, tolerance: float, margin: float
) -> None:
    for state in follow(start(tolerance=tolerance, margin=margin, strata=strata), [block(*extreme * strata)] * 3):
        low, high = interval(state, alpha=ALPHA, beta=BETA)[0]
        assert -1 <= low < high <= 1
        assert encode(decode(encode(state))) == encode(state)
