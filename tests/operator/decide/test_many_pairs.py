"""The pairs of many rollouts at once: each as the operator has those of one."""

from dataclasses import replace

import numpy as np
import pytest
from tests.operator.policies import ACCURACY, ANALYSIS

from serin_operator.decide import many_pairs, pairs
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import pair_keys
from serin_operator.decide.projection import Integers

STABLE = "5" * 10
ALONE = replace(ANALYSIS, metrics=(ACCURACY,))


def drawn(looks: int, rollouts: int) -> Integers:
    """(looks, rollouts, 7), in the order of `Totals`."""
    rng = np.random.default_rng(1)
    labelled, unlabelled = (rng.poisson(30, (looks, rollouts)) for _ in range(2))
    _, both, b, c = np.moveaxis(rng.multinomial(labelled, [0.8, 0.1, 0.06, 0.04]), -1, 0)
    different = b + c + rng.binomial(unlabelled, 0.1)
    return np.stack([labelled + unlabelled, different, labelled, b + c, both + b, both + c, b], axis=-1)


def as_read(new: list[int]) -> dict[str, tuple[Counts, Counts]]:
    """What a look of the operator finds of the same pairs."""
    every, different, labelled, settled, canary, stable, only_canary = new
    counts = Counts(different, every), Counts(only_canary, settled), Counts(canary, labelled), Counts(stable, labelled)
    return {key: (count, Counts()) for key, count in zip(pair_keys(STABLE), counts, strict=True)}


def test_each_rollout_has_the_odds_that_the_operator_has_of_it_alone() -> None:
    blocks = drawn(6, 3)
    many = many_pairs.start(ACCURACY, 3)
    singles = [pairs.start(ALONE, STABLE) for _ in range(3)]
    for number, block in enumerate(blocks):
        many = many_pairs.counted(many, block)
        singles = [pairs.counted(one, as_read(new)) for one, new in zip(singles, block.tolist(), strict=True)]
        if number == 2:
            many = many_pairs.onset(many, np.array([True, True, False]))
            singles = [*map(pairs.onset, singles[:2]), singles[2]]
    odds = np.stack(many_pairs.odds(many), axis=1)
    for single, row in zip(singles, odds, strict=True):
        numbers = pairs.numbers(single, alpha=0.05, beta=0.05)["accuracy"]
        assert row.tolist() == pytest.approx(
            [numbers.log_e_worse, numbers.log_e_non_inferior, numbers.log_e_superior], rel=1e-12
        )


def test_some_of_them_go_on_as_before() -> None:
    blocks = drawn(2, 4)
    whole = many_pairs.counted(many_pairs.counted(many_pairs.start(ACCURACY, 4), blocks[0]), blocks[1])
    chosen = np.array([3, 1])
    part = many_pairs.take(many_pairs.counted(many_pairs.start(ACCURACY, 4), blocks[0]), chosen)
    part = many_pairs.counted(part, blocks[1][chosen])
    for all_, some in zip(many_pairs.odds(whole), many_pairs.odds(part), strict=True):
        assert all_[chosen].tolist() == some.tolist()
