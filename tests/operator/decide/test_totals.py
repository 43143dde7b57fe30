"""Evidence for worse that is raised as far as a block's totals allow: its mean given them, and where it ends."""

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import hypergeom

from serin_operator.decide import evidence
from serin_operator.decide.evidence import CEILING, Evidence, log_e_worse, start, take, update

LIMIT = math.log(20)
HISTORIES = [(5, 100), (1, 1000), (500, 1000)]
SIZES = [(3, 7), (8, 12), (10, 5), (30, 270)]

Ints = npt.NDArray[np.int64]


def fresh(
    number: int = 1, history: tuple[int, int] = (5, 100), *, tolerance: float = 0.0, phi: float = 1.0
) -> Evidence:
    past = np.broadcast_to(np.array(history), (number, 1, 2))
    return start(tolerance=np.full(number, tolerance), margin=0.05, phi=phi, history=past)


def given(failures: int, n_c: int, n_s: int) -> Ints:
    """A block for each number of these failures that may be the canary's."""
    canary = np.arange(max(0, failures - n_s), min(failures, n_c) + 1)
    return np.stack([canary, 0 * canary + n_c, failures - canary, 0 * canary + n_s], axis=1)[:, None]


def of(block: Ints, state: Evidence) -> Evidence:
    """The evidence after each of the blocks, which are alternatives."""
    return update(take(state, np.zeros(len(block), np.int64)), block, limit=LIMIT)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_its_mean_given_the_totals_is_what_it_was(n_c: int, n_s: int, history: tuple[int, int]) -> None:
    begun = [fresh(history=history)]
    begun.append(update(begun[0], np.array([[[2, 30, 8, 270]]]), limit=LIMIT))
    for state, failures in product(begun, range(0, n_c + n_s + 1, max(1, n_s // 30))):
        block = given(failures, n_c, n_s)
        chances = hypergeom(n_c + n_s, failures, n_c).pmf(block[:, 0, 0])
        before, mean = math.exp(log_e_worse(state)[0]), chances @ np.exp(log_e_worse(of(block, state)))
        assert before * (1 - 2e-6) <= mean <= before * (1 + 1e-12)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_so_it_is_an_e_value_at_every_common_rate_and_look(rate: float) -> None:
    n_c, n_s = 4, 9
    blocks = np.array([[[x, n_c, y, n_s]] for x in range(n_c + 1) for y in range(n_s + 1)])
    chances = np.array(
        [
            math.comb(n_c, x) * math.comb(n_s, y) * rate ** (x + y) * (1 - rate) ** (n_c + n_s - x - y)
            for ((x, _, y, _),) in blocks.tolist()
        ]
    )
    first = of(blocks, fresh())
    assert 1 - 1e-6 <= chances @ np.exp(log_e_worse(first)) <= 1 + 1e-12
    second = [np.exp(log_e_worse(of(blocks, take(first, [number])))) for number in range(len(blocks))]
    assert chances @ (np.array(second) @ chances) <= 1 + 1e-12


def test_with_fewer_failures_of_the_canary_the_mean_is_less() -> None:
    block = given(20, 30, 270)
    odds = np.exp(log_e_worse(of(block, fresh())))
    chances = hypergeom(300, 20, 30).pmf(block[:, 0, 0])
    for ratio in (0.3, 0.7, 0.99):
        tilted = chances * ratio ** block[:, 0, 0]
        assert tilted @ odds / tilted.sum() < 1


def test_it_comes_sooner_than_without() -> None:
    block = np.array([[[24, 300, 130, 2700]]])
    plain, raised = update(fresh(history=(50, 1000)), block), update(fresh(history=(50, 1000)), block, limit=LIMIT)
    assert log_e_worse(plain)[0] < LIMIT
    assert log_e_worse(raised)[0] > log_e_worse(plain)[0] + 0.1


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_more_failures_of_the_canary_never_help_it(n_c: int, n_s: int, history: tuple[int, int]) -> None:
    for stable in range(0, n_s + 1, max(1, n_s // 30)):
        canary = np.arange(n_c + 1)
        block = np.stack([canary, 0 * canary + n_c, 0 * canary + stable, 0 * canary + n_s], axis=1)[:, None]
        assert np.diff(log_e_worse(of(block, fresh(history=history)))).min() > -1e-6  # sums are rounded


def test_nobody_gets_more_odds_than_the_ceiling_at_once_and_then_goes_on_as_before() -> None:
    block = np.array([[[25, 30, 14, 270]]])
    state = update(fresh(), block, limit=LIMIT)
    assert log_e_worse(state)[0] == pytest.approx(LIMIT + math.log(CEILING), abs=1e-5)
    assert evidence.encode(update(state, block, limit=LIMIT)) == evidence.encode(update(state, block))


def test_without_a_limit_of_its_own_a_test_has_no_ceiling() -> None:
    state = update(fresh(), np.array([[[25, 30, 14, 270]]]), limit=math.inf)
    assert log_e_worse(state)[0] > 20


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(fresh(tolerance=0.01), id="tolerance"),
        pytest.param(fresh(phi=1.5), id="bursts"),
        pytest.param(start(tolerance=0.0, margin=0.05), id="no history"),
    ],
)
def test_where_the_totals_do_not_tell_nothing_is_raised(state: Evidence) -> None:
    block = np.array([[[6, 30, 14, 270]]])
    assert evidence.encode(update(state, block, limit=LIMIT)) == evidence.encode(update(state, block))


def test_averages_over_classes_are_not_raised() -> None:
    state, block = start(tolerance=0.0, margin=0.05, strata=2), np.array([[[6, 30, 14, 270], [5, 40, 12, 300]]])
    assert evidence.encode(update(state, block, limit=LIMIT)) == evidence.encode(update(state, block))
    state = update(state, block)
    assert evidence.encode(update(state, block, limit=LIMIT)) == evidence.encode(update(state, block))


def test_tests_of_a_batch_are_raised_each_by_its_own_limit() -> None:
    blocks = np.array([[[9, 30, 14, 270]], [[0, 0, 0, 0]], [[12, 30, 14, 270]], [[80, 900, 300, 8000]]])
    limits = np.array([LIMIT, LIMIT, math.log(60), math.inf])
    together = update(fresh(4), blocks, limit=limits)
    alone = [update(fresh(), block[None], limit=limit) for block, limit in zip(blocks, limits, strict=True)]
    assert evidence.encode(together) == [evidence.encode(one)[0] for one in alone]
