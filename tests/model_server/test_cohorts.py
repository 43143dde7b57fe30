"""Counts that wait for their prediction's age: tables of cases, and the laws that make revisions comparable."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_server.monitor import cohorts
from serin_server.monitor.cohorts import WINDOWS, Cohorts, bucket_width

START = 1_814_400_000  # a multiple of every window's bucket width
assert all(START % bucket_width(window) == 0 for window in WINDOWS)
LONGEST = WINDOWS[-1] + bucket_width(WINDOWS[-1])


@dataclass(frozen=True)
class Event:
    """A label or a prediction: what, of which second, when it came."""

    key: str
    made: int
    now: float


def play(events: list[Event], looks: list[float]) -> Cohorts[str]:
    """What is there after these events in the order of time, with looks in between."""
    found: Cohorts[str] = Cohorts()
    for now, event in sorted([(e.now, e) for e in events] + [(at, None) for at in looks], key=lambda step: step[0]):
        if event is None:
            found.settled(now)
        else:
            found.add(event.key, event.made, event.now)
    return found


def counts(found: Cohorts[str], now: float) -> dict[str, list[float]]:
    """Per key that has settled anything, the settled counts."""
    return {key: amounts for key, amounts in found.settled(now) if any(amounts)}


def by_definition(events: list[Event], now: float) -> dict[str, list[float]]:
    """The same, word by word as the module says."""
    found: dict[str, list[float]] = {}
    for event in events:
        for index, window in enumerate(WINDOWS):
            made = min(event.made, int(event.now))
            width = bucket_width(window)
            end = made // width * width + width
            if event.now - made <= window and end + window <= now:
                found.setdefault(event.key, [0.0] * len(WINDOWS))[index] += 1
    return found


@st.composite
def stories(draw: st.DrawFn) -> tuple[list[Event], list[float], float]:
    """Events of a while, times to look at before the end, and the end."""
    span = draw(st.sampled_from([30, 400, 10_000, 2 * LONGEST]))
    moment = st.floats(0, span, allow_nan=False).map(lambda at: START + at)
    age = st.one_of(st.integers(0, 12), st.sampled_from(WINDOWS), st.integers(-3, LONGEST))
    events = [
        Event(draw(st.sampled_from("abc")), int(now) - draw(age), now) for now in draw(st.lists(moment, max_size=30))
    ]
    looks = draw(st.lists(moment, max_size=10))
    end = START + span + draw(st.integers(0, LONGEST))
    return events, looks, end


@given(stories())
def test_what_has_settled_is_what_the_definition_says_whenever_one_looks(
    story: tuple[list[Event], list[float], float],
) -> None:
    events, looks, end = story
    assert counts(play(events, looks), end) == counts(play(events, []), end) == by_definition(events, end)


@given(stories())
def test_every_event_in_time_settles_once_and_stays(story: tuple[list[Event], list[float], float]) -> None:
    events, looks, end = story
    found = play(events, looks)
    before = counts(found, end)
    after = counts(found, end + LONGEST)
    in_time = {
        key: [float(sum(e.now - e.made <= window for e in events if e.key == key)) for window in WINDOWS]
        for key in "abc"
    }
    assert after == {key: amounts for key, amounts in in_time.items() if any(amounts)}
    assert all(np.less_equal(before[key], after[key]).all() for key in before)
    assert counts(found, end + 9 * LONGEST) == after


@given(stories(), st.integers(0, 60))
def test_events_of_one_second_close_at_one_time_however_old_they_came(
    story: tuple[list[Event], list[float], float], delay: int
) -> None:
    """Two arms whose labels take different times: what counts of each closes with the predictions."""
    events, looks, end = story
    pairs = [Event(key, START + 5, START + 5 + late) for key, late in (("canary", 0), ("stable", delay))]
    found = counts(play(events + pairs, looks), end)
    canary, stable = found.get("canary", [0.0] * len(WINDOWS)), found.get("stable", [0.0] * len(WINDOWS))
    assert stable == [count if window >= delay else 0.0 for count, window in zip(canary, WINDOWS, strict=True)]


@given(stories(), st.integers(1, 40))
def test_pods_that_share_the_events_settle_the_same_together(
    story: tuple[list[Event], list[float], float], split: int
) -> None:
    events, looks, end = story
    one, other = counts(play(events[:split], looks), end), counts(play(events[split:], []), end)
    zeros = [0.0] * len(WINDOWS)
    together = {key: np.add(one.get(key, zeros), other.get(key, zeros)).tolist() for key in one.keys() | other.keys()}
    assert together == counts(play(events, []), end)


@given(stories())
def test_how_many_events_may_wait_changes_nothing(story: tuple[list[Event], list[float], float]) -> None:
    events, looks, end = story
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "_MOST_RECENT", 2)
        early = counts(play(events, looks), end)
    assert early == by_definition(events, end)


@pytest.mark.parametrize(
    ("window", "made", "now", "settles"),
    [
        (10, 0, 0.5, 11), (10, 0, 10.0, 11), (10, 0, 10.5, None), (60, 0, 59.9, 61), (60, 59, 60.0, 120),
        (300, 4, 5.0, 305), (300, 5, 5.0, 310), (3600, 61, 3000.0, 3720), (604_800, 0, 1.0, 614_880),
    ],
)  # fmt: skip
def test_when_a_bucket_settles(window: int, made: int, now: float, settles: int | None) -> None:
    found: Cohorts[str] = Cohorts([window])
    found.add("a", START + made, START + now)
    if settles is None:
        assert dict(found.settled(START + LONGEST)) == {}
        return
    assert dict(found.settled(START + settles - 0.001)) == {"a": [0.0]}
    assert dict(found.settled(START + settles)) == {"a": [1.0]}


def test_a_key_that_is_expected_is_told_with_zeros() -> None:
    found: Cohorts[str] = Cohorts()
    found.expect("a")
    assert dict(found.settled(START)) == {"a": [0.0] * len(WINDOWS)}
    assert dict(Cohorts[str]().settled(START)) == {}


def test_amounts_add_up() -> None:
    found: Cohorts[str] = Cohorts([10])
    for rows in (3, 2.5):
        found.add("a", START, START, rows)
    assert dict(found.settled(START + 60)) == {"a": [5.5]}


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 80)), max_size=30))
def test_a_clock_that_goes_back_loses_nothing(steps: list[tuple[int, int]]) -> None:
    found: Cohorts[str] = Cohorts([60])
    for now, age in steps:
        found.add("a", START + now - age, START + now)
        found.settled(START + now)
    assert counts(found, START + 999).get("a", [0.0]) == [float(sum(age <= 60 for _, age in steps))]


def test_what_open_buckets_take_does_not_grow_with_time_or_events() -> None:
    found: Cohorts[int] = Cohorts()
    rng = np.random.default_rng(7)
    for now in rng.integers(0, LONGEST, 20_000):
        found.add(int(now) % 40, START + int(now), START + int(now))
    held = sum(window._open.nbytes + window.settled.nbytes for window in found._windows)
    assert held <= 40 * 1.25 * 4500
    assert len(found._recent) < cohorts._MOST_RECENT
