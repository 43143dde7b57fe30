"""Rounding of sums before they are stored."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.decide.sums import rounded_down

SUMS = st.lists(st.just(0.0) | st.floats(1e-30, 1e6) | st.floats(-1e6, -1e-30), min_size=1)


@given(SUMS)
def test_a_sum_is_rounded_to_the_next_lower_single(sums: list[float]) -> None:
    exact = np.array(sums)
    single = rounded_down(exact)
    assert np.all(single <= exact)
    assert np.all(np.nextafter(single, np.float32(np.inf)) > exact)


@given(SUMS)
def test_where_it_is_to_be_short_the_last_byte_is_0(sums: list[float]) -> None:
    exact, short = np.array(sums), np.arange(len(sums)) % 2 == 0
    single = rounded_down(exact, short=short)
    assert np.all(single.view(np.uint32)[short] & 0xFF == 0)
    assert np.all(single <= exact)
    assert np.all(exact - single <= np.abs(exact) * 2.0**-15)
    assert np.array_equal(single[~short], rounded_down(exact)[~short])
