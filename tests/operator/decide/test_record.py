"""How high a rate a record still allows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln

from serin_operator.decide.record import upper_limit

LOG_ODDS = math.log(1000)


def log_e(failures: int, trials: int, rate: float) -> float:
    """Of the mixture over Jeffreys' prior against a rate, computed apart."""
    mixture = betaln(failures + 0.5, trials - failures + 0.5) - betaln(0.5, 0.5)
    return float(mixture - failures * math.log(rate) - (trials - failures) * math.log1p(-rate))


@given(st.integers(0, 5000), st.integers(1, 5000), st.sampled_from([1.0, 2.5]))
def test_the_odds_against_the_limit_are_the_level(failures: int, successes: int, phi: float) -> None:
    limit = upper_limit(failures, failures + successes, log_odds=LOG_ODDS, phi=phi)
    assert failures / (failures + successes) < limit <= 1
    if limit < 1 - 1e-12:
        assert log_e(failures, failures + successes, limit) == pytest.approx(phi * LOG_ODDS, rel=1e-5)


def test_no_record_allows_everything_and_a_long_one_little() -> None:
    assert upper_limit(0, 0, log_odds=LOG_ODDS) == 1
    assert upper_limit(5, 5, log_odds=LOG_ODDS) == 1
    assert upper_limit(1445, 28_904, log_odds=LOG_ODDS) == pytest.approx(0.056, abs=0.001)


@pytest.mark.parametrize("trials", [1, 7, 30])
def test_the_odds_have_mean_1_under_every_rate(trials: int) -> None:
    """By exhaustion: so a limit is ever wrong with probability at most 1 - exp(-log_odds) at any moment."""
    for rate in (0.01, 0.3, 0.9):
        chances = [math.comb(trials, y) * rate**y * (1 - rate) ** (trials - y) for y in range(trials + 1)]
        odds = [math.exp(log_e(y, trials, rate)) for y in range(trials + 1)]
        assert np.dot(chances, odds) == pytest.approx(1)
