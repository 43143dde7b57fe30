"""The arithmetic of the traffic driver's counts."""

import pytest
from demo.tally import MOST_KINDS, Tally, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ({}, 0.5, None),
        ({7.0: 1}, 0.99, 7.0),
        ({1.0: 1, 2.0: 1}, 0.5, 1.0),
        ({1.0: 98, 5.0: 1, 9.0: 1}, 0.99, 5.0),
        ({9.0: 1, 1.0: 99}, 0.99, 1.0),
        ({9.0: 2, 1.0: 98}, 0.99, 9.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: dict[float, int], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_answers_are_counted_by_the_revision_that_gave_them() -> None:
    tally = Tally(sent=3)
    tally.answered("aaa", right=True, seconds=0.002, now_ms=1000)
    tally.answered("bbb", right=False, seconds=0.004, now_ms=1010)
    tally.answered("bbb", right=True, seconds=0.014, now_ms=1020)
    counts = tally.cumulative()
    assert (counts["sent"], counts["ok"], counts["failed"], counts["late"]) == (3, 3, 0, 0)
    assert counts["by_revision"] == {
        "aaa": {"n": 1, "wrong": 0, "first_seen": 1000, "last_seen": 1000, "last_sent": 998},
        "bbb": {"n": 2, "wrong": 1, "first_seen": 1010, "last_seen": 1020, "last_sent": 1006},
    }
    assert (counts["p50"], counts["p99"]) == (4.0, 14.0)


def test_an_interval_has_its_own_percentiles_and_the_counts_since_the_start() -> None:
    tally = Tally()
    tally.answered("aaa", right=True, seconds=1.0, now_ms=0)
    tally.interval()
    tally.answered("aaa", right=True, seconds=0.001, now_ms=1)
    assert (tally.interval()["p99"], tally.cumulative()["p99"], tally.cumulative()["ok"]) == (1.0, 1000.0, 2)
    assert tally.interval()["p99"] is None


def test_a_snapshot_does_not_change_afterwards() -> None:
    tally = Tally()
    tally.answered("aaa", right=True, seconds=0.001, now_ms=1)
    before = tally.cumulative()
    tally.answered("aaa", right=False, seconds=0.001, now_ms=2)
    tally.feedback.posted += 1
    assert before["by_revision"]["aaa"]["n"] == 1
    assert before["feedback"]["posted"] == 0


def test_kinds_of_errors_are_bounded_but_every_error_is_counted() -> None:
    tally = Tally()
    for number in range(MOST_KINDS + 5):
        tally.not_answered(f"kind {number}", seconds=0.1)
    tally.not_answered("kind 0", seconds=0.1)
    assert tally.failed == sum(tally.errors.values()) == MOST_KINDS + 6
    assert tally.errors["other"] == 5
    assert tally.errors["kind 0"] == 2
