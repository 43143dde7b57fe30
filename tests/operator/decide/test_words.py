"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.decide.words import (
    MOST_ODDS,
    about,
    between,
    count,
    duration,
    odds,
    percent,
    points,
    sentence,
    shares,
    to_one,
    within,
)


@pytest.mark.parametrize(("value", "text"), [(28904, "28,904"), (10.4, "10"), (0.042, "0.042"), (3, "3"), (0, "0")])
def test_counts(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,200"), (98_765, "99,000"), (7.2, "8"), (0.1, "1"), (0.0, "0"), (12, "12")]
)
def test_rough_counts(value: float, text: str) -> None:
    assert about(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (37.4, "37 : 1"),
        (19.99, "19 : 1"),
        (20, "20 : 1"),
        (0.4, "0.4 : 1"),
        (0.001, "0.00 : 1"),
        (1e6, "1,000,000 : 1"),
    ],
)
def test_odds_to_one(value: float, text: str) -> None:
    assert to_one(value) == text


def test_huge_odds_are_capped() -> None:
    assert odds(1e6) == odds(math.inf) == MOST_ODDS
    assert odds(0) == 1


@pytest.mark.parametrize(
    ("fraction", "text"), [(0, "0 points"), (0.01, "1 point"), (0.013, "1.3 points"), (0.5, "50 points")]
)
def test_points(fraction: float, text: str) -> None:
    assert points(fraction) == text


@pytest.mark.parametrize(("share", "text"), [(0.01, "1 %"), (0.0025, "0.25 %"), (0.9, "90 %")])
def test_declared_shares(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.0512, 0.0493), ["5.1 %", "4.9 %"]),
        ((0.00042, 0.0493), ["0.042 %", "4.930 %"]),
        ((0.0, 0.25), ["0.0 %", "25.0 %"]),
        ((0.0, 0.0), ["0.0 %", "0.0 %"]),
        ((1e-9, 0.5), ["0.0000 %", "50.0000 %"]),
    ],
)
def test_shares_side_by_side(values: tuple[float, float], texts: list[str]) -> None:
    assert shares(*values) == texts


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.002, -0.006, 0.01), "+0.2 points, between -0.6 and +1.0"),
        ((0.0, -1.0, 1.0), "+0.0 points, between -100.0 and +100.0"),
        ((0.0002, -0.0005, 0.0005), "+0.02 points, between -0.05 and +0.05"),
    ],
)
def test_differences_are_as_fine_as_they_are_known(values: tuple[float, float, float], text: str) -> None:
    assert within(*values) == text


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0, "0 s"), (0.5, "30 s"), (15.8, "16 min"), (119, "119 min"), (150, "2.5 h"), (5000, "3.5 days")],
)
def test_durations(minutes: float, text: str) -> None:
    assert duration(minutes) == text


@given(st.floats(0, 1e12))
def test_nothing_is_shown_with_an_exponent(value: float) -> None:
    for text in (count(value), about(value), to_one(value), duration(value)):
        assert "e" not in text.replace(" : 1", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no module named 'x'", "No module named 'x'."),
        ("It took too long.", "It took too long."),
        ("cut short…", "Cut short…"),
        ("ended (Error)", "Ended (Error)."),
        ("So it is. (And more.)", "So it is. (And more.)"),
        ("0/3 nodes are available", "0/3 nodes are available."),
        ("", ""),
    ],
)
def test_what_others_say_as_a_sentence(text: str, expected: str) -> None:
    assert sentence(text) == expected


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1 / 89, 0.000017, 0.093), ("1.1 %", "0.0 %", "9.3 %")),
        ((0.0, 0.0, 0.267), ("0.0 %", "0.0 %", "26.7 %")),
        ((0.0203, 0.0201, 0.0205), ("2.030 %", "2.010 %", "2.050 %")),
    ],
)
def test_a_share_is_told_as_finely_as_it_is_known(
    values: tuple[float, float, float], texts: tuple[str, str, str]
) -> None:
    assert between(*values) == texts
