"""Coins that fall the same way every time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.observe.coins import heads


@given(st.text(max_size=20), st.integers(0, 10**9))
def test_every_toss_shows_heads_or_tails(coin: str, tosses: int) -> None:
    assert heads(coin, tosses + 1) - heads(coin, tosses) in (0, 1)
    assert heads(coin, 0) == 0


def test_coins_are_fair_and_independent() -> None:
    """1000 coins of 400 tosses each: mean 200, standard deviation 10, as chance has them, and so for a toss of all."""
    shown = np.array([[heads(f"pod-{coin}", tosses) for tosses in range(401)] for coin in range(1000)])
    assert abs(shown[:, -1].mean() - 200) < 2
    assert abs(shown[:, -1].std() - 10) < 1
    of_one_toss = np.diff(shown, axis=1).sum(axis=0)
    assert abs(of_one_toss.mean() - 500) < 5
    assert abs(of_one_toss.std() - np.sqrt(250)) < 4
