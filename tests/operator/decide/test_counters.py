"""Laws of the accounting of counters: nothing counts twice, whatever is read again, late or of an earlier moment."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.decide.counters import Ledger, NotACounter, advance, baseline
from serin_operator.decide.evidence import Counts

SERIES = st.sampled_from(["pod-a@1", "pod-b@1", "pod-b@7"])
COUNTS = st.builds(
    lambda failures, successes: Counts(failures, failures + successes), st.integers(0, 50), st.integers(0, 50)
)
SNAPSHOTS = st.lists(st.dictionaries(SERIES, COUNTS), max_size=8)
STEPS = st.lists(st.dictionaries(SERIES, COUNTS), min_size=1, max_size=8)


def run(ledger: Ledger, snapshots: list[Mapping[str, Counts]]) -> tuple[Ledger, Counts]:
    total = Counts()
    for snapshot in snapshots:
        ledger, counts = advance(ledger, snapshot)
        total += counts
    return ledger, total


def accumulate(steps: list[dict[str, Counts]]) -> list[Mapping[str, Counts]]:
    """Cumulative snapshots of counters that only ever grow by the given steps."""
    now: dict[str, Counts] = {}
    snapshots: list[Mapping[str, Counts]] = []
    for step in steps:
        now = {**now, **{series: now.get(series, Counts()) + counts for series, counts in step.items()}}
        snapshots.append(now)
    return snapshots


def test_history_before_the_rollout_is_not_counted() -> None:
    ledger = baseline({"old": Counts(40, 1000)})
    _, counts = advance(ledger, {"old": Counts(41, 1010), "new": Counts(2, 5)})
    assert counts == Counts(3, 15)


def test_a_process_older_than_the_baseline_that_was_unread_then_starts_at_its_first_reading() -> None:
    ledger, first = advance(baseline({}), {"old": Counts(40, 1000)}, historic={"old"})
    _, second = advance(ledger, {"old": Counts(41, 1010)}, historic={"old"})
    assert (first, second) == (Counts(), Counts(1, 10))


@pytest.mark.parametrize("earlier", [Counts(0, 7), Counts(3, 99), Counts(4, 98), Counts(0, 100)])
def test_a_reading_of_an_earlier_moment_counts_nothing_and_nothing_twice_later(earlier: Counts) -> None:
    ledger, counts = advance(baseline({"pod": Counts(4, 99)}), {"pod": earlier})
    assert counts == Counts()
    assert advance(ledger, {"pod": Counts(5, 102)})[1] == Counts(1, 3)


def test_a_process_that_starts_anew_counts_from_zero_beside_what_it_had_counted_before() -> None:
    ledger, counts = advance(baseline({"pod/1": Counts(4, 99)}), {"pod/7": Counts(1, 5)})
    assert counts == Counts(1, 5)
    assert advance(ledger, {"pod/1": Counts(4, 97)})[1] == Counts()


def test_a_missed_scrape_is_caught_up_with() -> None:
    ledger, missed = advance(baseline({"pod": Counts(1, 10)}), {})
    _, counts = advance(ledger, {"pod": Counts(4, 30)})
    assert (missed, counts) == (Counts(), Counts(3, 20))


def test_a_series_is_forgotten_only_when_it_is_gone_and_no_longer_reported() -> None:
    ledger = baseline({"pod": Counts(1, 10), "other": Counts(2, 20)})
    reported, counts = advance(ledger, {"pod": Counts(1, 11)}, gone={"pod"})
    forgotten, _ = advance(reported, {}, gone={"pod"})
    assert counts == Counts(0, 1)
    assert reported.counted == {"pod": Counts(1, 11), "other": Counts(2, 20)}
    assert forgotten.counted == {"other": Counts(2, 20)}


def test_failures_ahead_of_their_trials_are_held_over() -> None:
    ledger = baseline({"pod": Counts(0, 10)})
    ledger, first = advance(ledger, {"pod": Counts(5, 12)})
    ledger, second = advance(ledger, {"pod": Counts(5, 20)})
    assert (first, second) == (Counts(2, 2), Counts(3, 8))


@given(STEPS, st.data())
def test_fewer_scrapes_count_the_same_in_total(steps: list[dict[str, Counts]], data: st.DataObject) -> None:
    snapshots = accumulate(steps)
    kept = [snapshot for snapshot in snapshots[:-1] if data.draw(st.booleans())]
    expected = sum((counts for step in steps for counts in step.values()), Counts())
    assert run(baseline({}), [*kept, snapshots[-1]])[1] == run(baseline({}), snapshots)[1] == expected


@given(STEPS, st.data())
def test_in_whatever_order_and_however_often_counters_are_read_each_trial_counts_once(
    steps: list[dict[str, Counts]], data: st.DataObject
) -> None:
    """As from several Prometheus servers that lag each other."""
    snapshots = accumulate(steps)
    read = data.draw(st.lists(st.sampled_from(snapshots), max_size=12))
    expected = sum((counts for step in steps for counts in step.values()), Counts())
    assert run(baseline({}), [*read, snapshots[-1]])[1] == expected


@given(SNAPSHOTS, st.dictionaries(SERIES, COUNTS))
def test_a_snapshot_seen_twice_counts_nothing_and_changes_nothing(
    before: list[Mapping[str, Counts]], snapshot: dict[str, Counts]
) -> None:
    ledger, _ = run(baseline({}), before)
    once, _ = advance(ledger, snapshot)
    assert advance(once, snapshot) == (once, Counts())


@given(SNAPSHOTS)
def test_whatever_the_counters_do_counts_stay_possible_and_within_what_was_read(
    snapshots: list[Mapping[str, Counts]],
) -> None:
    ledger = baseline({})
    for snapshot in snapshots:
        ledger, counts = advance(ledger, snapshot)  # Counts itself refuses impossible numbers
        assert counts.trials <= sum(reading.trials for reading in snapshot.values())
        for series, reading in snapshot.items():
            assert ledger.counted[series].trials >= reading.trials or ledger.counted[series].failures > reading.failures


def test_a_series_that_does_not_tell_its_start_begins_at_its_first_reading_and_after_a_reset() -> None:
    clockless = {"orders"}
    ledger, first = advance(baseline({}), {"orders": Counts(4, 100)}, unclocked=clockless)
    ledger, second = advance(ledger, {"orders": Counts(5, 140)}, unclocked=clockless)
    ledger, reset = advance(ledger, {"orders": Counts(1, 30)}, unclocked=clockless)
    ledger, third = advance(ledger, {"orders": Counts(2, 33)}, unclocked=clockless)
    assert (first, second, reset, third) == (Counts(), Counts(1, 40), Counts(), Counts(1, 3))


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (Counts(5, 90), "went from 100 to 90"),
        (Counts(0, 51), "went from 100 to 51"),
        (Counts(9, 120), "went from 10 to 9"),
        (Counts(5, 50), None),
        (Counts(0, 0), None),
        (Counts(5, 100), None),
    ],
)
def test_a_series_that_falls_by_less_than_a_restart_does_is_no_counter(after: Counts, text: str | None) -> None:
    ledger = baseline({"gauge": Counts(10, 100)})
    if text is None:
        assert advance(ledger, {"gauge": after}, unclocked={"gauge"})[1] == Counts()
    else:
        with pytest.raises(NotACounter, match=text):
            advance(ledger, {"gauge": after}, unclocked={"gauge"})
