"""The watch for drift: periods, what they say, what is remembered, and that rollouts do not notice it."""

from dataclasses import replace

import numpy as np
import pytest
from tests.operator.decide.world import World
from tests.operator.definition import Json, status_problems

from serin_operator.api.status import Status, dump_status, parse_status
from serin_operator.decide import drift_watch
from serin_operator.decide.drift import Feature
from serin_operator.decide.observed import DriftReading, Observed
from serin_operator.decide.rollout import decide, wants

BINS = ("[-Inf, 1)", "[1, 2)", "[2, +Inf)", "missing")
FEATURES = (
    Feature("income", BINS, (2500, 5000, 2500, 0)),
    Feature("colour", ("= blue", "= red", "missing", "other"), (5000, 5000, 0, 0)),
)
ALIKE = ((250, 500, 250, 0), (500, 500, 0, 0))
RICHER = ((100, 300, 600, 0), (500, 500, 0, 0))
PERIOD = 600.0
PROFILE = {"uri": "https://models.example.com/iris.profile.json", "sha256": "2" * 64}
NOTHING = ((0, 0, 0, 0), (0, 0, 0, 0))


def serving(**drift: object) -> tuple[Observed, float]:
    """What is seen of a model with a profile that serves, and the time."""
    world = World()
    world.change(**spec_with(**drift))
    world.apply("v1")
    world.run(30)
    seen = world.passes[-1].observed
    return replace(seen, status=world.memory, generation=world.generation), world.now


def spec_with(**drift: object) -> Json:
    return {"model": {"profile": PROFILE}, "analysis": {"drift": {"period": "10m", **drift}}}


def read(*counts: tuple[int, ...], at: float, features: tuple[Feature, ...] = FEATURES) -> DriftReading:
    return DriftReading(at, features, tuple(np.array(each, np.int64) for each in counts))


def look(observed: Observed, reading: DriftReading | None, now: float) -> Observed:
    """One pass over this reading; gives what the next pass starts from."""
    status = decide(replace(observed, drift=reading), now).status
    assert status_problems(dump_status(status)) == []
    return replace(observed, status=parse_status(dump_status(status)))


def told(status: Status) -> tuple[str, str]:
    condition = status.condition("Drifted")
    assert condition is not None
    return condition.status, condition.reason


def periods(observed: Observed, now: float, *each: tuple[tuple[int, ...], ...]) -> Observed:
    """A first reading, then one at the end of each period."""
    observed = look(observed, read(*NOTHING, at=now), now)
    for place, counts in enumerate(each, start=1):
        observed = look(observed, read(*counts, at=now + place * PERIOD), now + place * PERIOD)
    return observed


def test_the_bins_are_read_while_a_model_with_a_profile_serves() -> None:
    observed, now = serving()
    assert wants(observed.status, observed.spec, observed.served, now).drift
    after = look(observed, read(*NOTHING, at=now), now)
    assert not wants(after.status, after.spec, after.served, now + 59).drift
    assert wants(after.status, after.spec, after.served, now + 60).drift


def test_without_a_profile_nothing_is_read_or_told() -> None:
    world = World()
    world.apply("v1")
    world.run(30)
    assert not wants(world.memory, world.passes[-1].observed.spec, None, world.now).drift
    assert world.memory.condition("Drifted") is None
    assert world.memory.drift is None


def test_traffic_like_the_reference_has_not_drifted() -> None:
    observed, now = serving()
    observed = periods(observed, now, ALIKE, ALIKE)
    assert told(observed.status) == ("False", "NoDriftFound")
    assert observed.status.drift is not None
    assert (observed.status.drift.periods, observed.status.drift.rows) == (2, 0)


def test_drift_is_told_in_words_and_ends_when_it_does() -> None:
    observed, now = serving()
    observed = periods(observed, now, ALIKE, RICHER)
    assert told(observed.status) == ("True", "DriftFound")
    condition = observed.status.condition("Drifted")
    assert condition is not None
    assert condition.message == (
        "Of 1,000 rows, income 2 or more: 60.0 %, 25.0 % in the reference. That is further from the reference than 5 % "
        "of the rows, with odds of 100 : 1 or more."
    )
    assert observed.status.drift is not None and observed.status.drift.odds >= 100
    later = now + 3 * PERIOD
    observed = look(observed, read(*ALIKE, at=later), later)
    assert told(observed.status) == ("False", "NoDriftFound")


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.01, 0.003])
def test_one_feature_alone_makes_the_alarm_with_what_is_kept_of_its_sum(rate: float) -> None:
    observed, now = serving(falseAlarmRate=rate)
    for features in (FEATURES[:1], (FEATURES[0], *(replace(FEATURES[1], name=f"colour {i}") for i in range(40)))):
        seen = look(observed, read(*[NOTHING[0]] * len(features), at=now, features=features), now)
        counts = [RICHER[0], *[ALIKE[1]] * (len(features) - 1)]
        for period in range(1, 4):
            reading = read(*(10 * np.array(counts)).tolist(), at=now + period * PERIOD, features=features)
            seen = look(seen, reading, now + period * PERIOD)
            assert told(seen.status) == ("True", "DriftFound")


def test_a_period_goes_on_until_it_has_rows_enough() -> None:
    observed, now = serving()
    few = tuple(tuple(count // 2 for count in each) for each in RICHER)
    observed = periods(observed, now, few)
    assert told(observed.status) == ("Unknown", "GatheringRows")
    observed = look(observed, read(*few, at=now + 2 * PERIOD), now + 2 * PERIOD)
    assert told(observed.status) == ("True", "DriftFound")


def test_the_same_reading_counts_once() -> None:
    observed, now = serving()
    reading = read(*RICHER, at=now + 60)
    once = look(look(observed, read(*NOTHING, at=now), now), reading, now + 60)
    twice = look(once, reading, now + 61)
    assert once.status.drift == twice.status.drift
    assert twice.status.drift is not None and twice.status.drift.rows == 1000


def test_another_revision_begins_anew() -> None:
    observed, now = serving()
    observed = periods(observed, now, RICHER)
    assert observed.status.stable is not None
    stable = replace(observed.status.stable, revision="f" * 10)
    status, told_ = drift_watch.follow(observed, replace(observed.status, stable=stable), now)
    assert status.drift is None
    assert told_ is not None
    assert (told_.status, told_.reason) == ("Unknown", "GatheringRows")
    gone, nothing = drift_watch.follow(observed, replace(observed.status, stable=replace(stable, profile=None)), now)
    assert (gone.drift, nothing) == (None, None)


@pytest.mark.parametrize("features", [FEATURES[:1], (FEATURES[0], Feature("colour", ("= red", "other"), (1, 1)))])
def test_bins_that_are_others_than_before_begin_anew(features: tuple[Feature, ...]) -> None:
    observed, now = serving()
    observed = periods(observed, now, RICHER)
    reading = read(*[(9,) * len(each.bins) for each in features], at=now + 2 * PERIOD, features=features)
    observed = look(observed, reading, now + 2 * PERIOD)
    assert observed.status.drift is not None
    assert (observed.status.drift.periods, observed.status.drift.since) == (0, now + 2 * PERIOD)


@pytest.mark.parametrize(("tolerance", "kept"), [(0.04, True), (0.4, False)])
def test_a_greater_tolerance_begins_the_odds_anew_and_a_smaller_one_does_not(tolerance: float, kept: bool) -> None:
    drifted, now = serving()
    drifted = periods(drifted, now, RICHER)
    fresh, _ = serving(tolerance=tolerance)
    drifted = look(replace(drifted, spec=fresh.spec), read(*ALIKE, at=now + 2 * PERIOD), now + 2 * PERIOD)
    fresh = periods(fresh, now, ALIKE)
    assert drifted.status.drift is not None and fresh.status.drift is not None
    assert (drifted.status.drift.odds > fresh.status.drift.odds) is kept


def test_what_can_not_be_read_is_told_once_it_is_old() -> None:
    observed, now = serving()
    blind = DriftReading(now, problem="no pod serves")
    assert told(look(observed, blind, now).status) == ("Unknown", "CannotSee")
    observed = periods(observed, now, RICHER)
    soon, late = now + PERIOD + 60, now + 3 * PERIOD
    assert told(look(observed, replace(blind, at=soon), soon).status) == ("True", "DriftFound")
    observed = look(observed, replace(blind, at=late), late)
    assert told(observed.status) == ("Unknown", "CannotSee")
    after = look(observed, read(*NOTHING, at=late + 60), late + 60)
    assert told(after.status)[0] == "Unknown"


def test_a_look_at_nothing_counted_is_told() -> None:
    observed, now = serving()
    assert told(look(observed, DriftReading(now), now).status) == ("Unknown", "CannotSee")


def test_what_is_remembered_is_small() -> None:
    bins = (*(f"[{low}, {low + 1})" for low in range(10)), "missing")
    features = tuple(Feature(f"x{place:02}", bins, (1000,) * 11) for place in range(60))
    rng = np.random.default_rng(1)
    observed, now = serving()
    observed = look(observed, read(*[(0,) * 11] * 60, at=now, features=features), now)
    counts = [tuple(rng.integers(0, 100_000, 11).tolist()) for _ in features]
    observed = look(observed, read(*counts, at=now + 60, features=features), now + 60)
    assert observed.status.drift is not None
    assert len(observed.status.drift.evidence) < 2500


def test_a_rollout_does_not_notice() -> None:
    """The same world with drift and without takes the same decisions."""
    histories = []
    for drifts in (False, True):
        world = World()
        world.change(**spec_with())
        world.apply("v1")
        world.run(30)
        world.apply("v2")
        world.run(120)
        before = replace(world.passes[-1].observed, status=world.memory)
        after = look(before, read(*NOTHING, at=world.now), world.now)
        after = look(after, read(*(RICHER if drifts else ALIKE), at=world.now + PERIOD), world.now + PERIOD)
        assert told(after.status)[0] == str(drifts)
        histories.append([(record.decision, record.weight) for record in after.status.history])
    assert histories[0] == histories[1]


def test_a_profile_is_part_of_the_revision() -> None:
    world = World()
    world.apply("v1")
    world.run(30)
    world.change(**spec_with())
    world.run(5)
    assert world.memory.canary is not None
    assert world.memory.canary.profile is not None
