"""Error rates of the paired tests by simulation: many rollouts, a look at each scrape, verdicts at 20 : 1."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from serin_operator.decide import paired
from serin_operator.decide.paired import Paired, log_e_non_inferior, log_e_worse, start, update, with_waiting
from serin_operator.decide.projection import Array, Integers

RUNS = 400
ENOUGH = math.log(20)
MOST = 33  # of 400 at a true rate of 0.05: more have probability 0.002


def scrapes(
    rate: npt.ArrayLike, d: npt.ArrayLike, *, scrapes: int = 60, per_scrape: int = 60, seed: int = 1
) -> Iterator[Integers]:
    """Counts (RUNS, 4) of each scrape. rate: of pairs with d = 1 or -1. d: its mean. Scalars, or one per scrape."""
    rng = np.random.default_rng(seed)
    for each_rate, each_d in zip(np.broadcast_to(rate, scrapes), np.broadcast_to(d, scrapes), strict=True):
        chances = [1 - each_rate, (each_rate + each_d) / 2, (each_rate - each_d) / 2, 0.0]
        yield rng.multinomial(rng.poisson(per_scrape, RUNS), chances)


def ever(blocks: Iterator[Integers], *, steps: int = 0, tolerance: float = 0.0, margin: float = 0.02) -> Array:
    """(2, RUNS), the scrape at which worse and non-inferior were first shown; inf for never. Onsets every `steps`."""
    state = start(tolerance=np.full(RUNS, tolerance), margin=margin)
    shown = np.full((2, RUNS), np.inf)
    for scrape, block in enumerate(blocks):
        state = update(state, block)
        if steps and scrape % steps == 0:
            state = paired.onset(state)
        now = np.array([log_e_worse(state), log_e_non_inferior(state)]) >= ENOUGH
        shown = np.where(now, np.minimum(shown, scrape), shown)
    return shown


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.1, 0.3, np.linspace(0.01, 0.3, 60)])
@pytest.mark.parametrize("steps", [0, 12])
def test_a_canary_as_good_is_seldom_called_worse(rate: npt.ArrayLike, steps: int) -> None:
    assert np.isfinite(ever(scrapes(rate, 0.0), steps=steps)[0]).sum() <= MOST


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 0.3, np.linspace(0.02, 0.3, 60)])
def test_one_that_is_worse_by_the_margin_is_seldom_called_good_enough(rate: npt.ArrayLike) -> None:
    assert np.isfinite(ever(scrapes(rate, 0.02))[1]).sum() <= MOST


def test_one_that_is_worse_by_the_tolerance_is_seldom_called_worse() -> None:
    assert np.isfinite(ever(scrapes(0.05, 0.01), tolerance=0.01)[0]).sum() <= MOST


@pytest.mark.parametrize(("rate", "d", "which"), [(0.02, 0.0, 1), (0.02, 0.02, 0), (0.08, 0.05, 0)])
def test_what_is_there_is_found(rate: float, d: float, which: int) -> None:
    assert np.isfinite(ever(scrapes(rate, d))[which]).mean() > 0.95


def test_harm_that_begins_late_is_found_sooner_by_bets_that_begin_then() -> None:
    d = np.repeat([0.0, 0.05], [40, 40])
    at_doublings, there_too = (ever(scrapes(0.08, d, scrapes=80), steps=steps)[0] for steps in (0, 40))
    assert there_too.mean() < at_doublings.mean() < 70


def labelled_late(state: Paired, d: float, *, labelled: float, seed: int) -> tuple[Array, Array]:
    """(RUNS,) each: whether it was ever called good enough, and how many labels had been used by then, else by the end.

    Answers differ in 5 % of 40 pairs per scrape. Labels come after 20 scrapes, if at all. Those of pairs that only the
    canary fails are missing ten times as often.
    """
    rng = np.random.default_rng(seed)
    waiting, good, labels = [], np.zeros(RUNS, bool), np.zeros(RUNS)
    for _ in range(100):
        same, b, c = rng.multinomial(40, [0.95, (0.05 + d) / 2, (0.05 - d) / 2], RUNS).T
        kept_b, kept_c = rng.binomial(b, labelled), rng.binomial(c, 1 - (1 - labelled) / 10)
        waiting.append(np.stack([same, kept_b, kept_c, b - kept_b + c - kept_c], axis=1))
        if len(waiting) > 20:
            state = update(state, waiting.pop(0))
        differing = np.sum(waiting, axis=0)
        seen = with_waiting(state, np.stack([differing[:, 0], differing[:, 1:].sum(axis=1)], axis=1))
        labels = np.where(good, labels, state.pairs[:, 1:3].sum(axis=1))
        good |= log_e_non_inferior(seen) >= ENOUGH
    return good, labels


def test_labels_that_are_late_or_missing_for_a_reason_promote_nothing_bad() -> None:
    bad, _ = labelled_late(start(tolerance=np.zeros(RUNS), margin=0.03), 0.03, labelled=0.5, seed=1)
    assert bad.sum() <= MOST


def test_labels_are_needed_where_answers_differ_only() -> None:
    """Of 3200 pairs that could have labels by the end, two hundred differ."""
    good, labels = labelled_late(start(tolerance=np.zeros(RUNS), margin=0.03), 0.0, labelled=1.0, seed=2)
    assert good.mean() > 0.95
    assert labels.mean() < 100
