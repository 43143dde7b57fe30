"""What the status of a shadow forecasts, against when shadows that are as good as stable are promoted. Seeded."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from tests.operator.decide.test_shadow import ACCURACY, FIRST, SHADOW, shadow
from tests.operator.decide.world import World
from tests.operator.definition import make_spec

from serin_operator.api.spec import Spec
from serin_operator.api.status import Forecast, Rollout
from serin_operator.decide import analysis
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import pair_keys
from serin_operator.decide.observed import Samples, Snapshot
from serin_operator.decide.outlook import foreseen
from serin_operator.decide.projection import Integers
from serin_operator.decide.verdict import Action

STABLE, CANARY = "a" * 10, "b" * 10
POD, OF_STABLE = "canary-0/1750000000", "stable-0/1750000000"
BEGIN = 1_750_000_000.0
PERCENT, RUNS = 20, 24
STEPS = [{"weight": 10, "duration": "2m"}, {"weight": 50, "duration": "5m"}]
WRONG = 0.1  # of stable's answers, and of the canary's


@dataclass(frozen=True)
class Pairs:
    """What becomes of pairs. Shares: whose answers differ, of those and of the others the part with a label."""

    differ: float
    of_different: float
    of_same: float

    def draw(self, rng: np.random.Generator, pairs: int) -> Integers:
        """Counts of the keys of pairs, each (failures, trials)."""
        only_canary, only_stable, _ = rng.multinomial(pairs, [self.differ / 2, self.differ / 2, 1 - self.differ])
        different = only_canary + only_stable
        by_canary, by_stable = (rng.binomial(each, self.of_different) for each in (only_canary, only_stable))
        same = rng.binomial(pairs - different, self.of_same)
        both = rng.binomial(same, (WRONG - self.differ / 2) / (1 - self.differ))
        settled = by_canary + by_stable
        labelled = same + settled
        counts = [(different, pairs), (by_canary, settled), (both + by_canary, labelled), (both + by_stable, labelled)]
        return np.array(counts)


def snapshot(samples: Samples) -> Snapshot:
    processes = frozenset({POD, OF_STABLE})
    return Snapshot(samples=samples, processes=processes, pods=frozenset(each.partition("/")[0] for each in processes))


def looks(spec: Spec, kind: Pairs, rng: np.random.Generator, pairs: int) -> Iterator[tuple[Forecast, bool]]:
    """What each look at a shadow forecasts, and whether it is the one that promotes. pairs: of a minute, and a look."""
    state = analysis.begin(spec.analysis, snapshot({}), CANARY, STABLE, BEGIN, shadow=True)
    rollout = Rollout(strategy=spec.rollout.strategy, started_at=BEGIN, step=0, step_started_at=BEGIN, mirror=PERCENT)
    total = np.zeros((4, 2), np.int64)
    for minute in range(1, 1000):
        now = BEGIN + 60 * minute
        total += kind.draw(rng, pairs)
        samples: dict[str, Mapping[str, Mapping[str, Counts]]] = {
            key: {CANARY: {POD: Counts(int(failures), int(trials))}}
            for key, (failures, trials) in zip(pair_keys(STABLE), total, strict=True)
        }
        # Both count their labels as without a shadow, and stable those of all that it answers.
        samples["accuracy@0"] = {
            CANARY: {POD: samples[pair_keys(STABLE)[2]][CANARY][POD]},
            STABLE: {OF_STABLE: Counts(*(int(each) * 100 // PERCENT for each in total[3]))},
        }
        seen = snapshot(samples)
        judged = analysis.judge(spec.analysis, state, seen, CANARY, STABLE, now, weight=None, mirror=PERCENT)
        state = judged.state
        rollout = foreseen(rollout, spec.rollout, judged.prospects, 60.0 * minute, now)
        assert rollout.forecast
        yield rollout.forecast, judged.verdict.action is Action.PROMOTE
        if judged.verdict.action is not Action.WAIT:
            return


def spec(**changes: float) -> Spec:
    shadow = {"strategy": "Shadow", "shadow": {"percent": PERCENT, "duration": "1s"}}
    return make_spec(rollout=shadow, analysis={"metrics": [{"name": "accuracy", "margin": 0.02, **changes}]})


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        (Pairs(0.02, 1, 1), 50),
        (Pairs(0.02, 0.25, 0.25), 200),
        (Pairs(0.005, 0.25, 0.25), 50),
        pytest.param(Pairs(0.02, 1, 0.05), 50, id="labels are asked for where answers differ"),
    ],
)
def test_the_first_forecasts_are_about_when_such_shadows_are_promoted(kind: Pairs, pairs: int) -> None:
    """Their median is within a factor of two of that of the promotions, and most are within a factor of three."""
    rng = np.random.default_rng(1)
    first, promoted = [], []
    for _ in range(RUNS):
        told = list(looks(spec(), kind, rng, pairs))
        known = [minute + each.minutes for minute, (each, _) in enumerate(told, 1) if each.minutes is not None]
        first += known[:1]
        promoted += [len(told)] if told[-1][1] else []
    median = np.median(promoted)
    assert len(first) > 0.8 * RUNS
    assert 1 / 2 < np.median(first) / median < 2
    assert np.mean((first > median / 3) & (first < 3 * median)) > 2 / 3


@pytest.mark.parametrize(("labelled", "minutes"), [(1.0, 4), (0.01, 10)])  # 4 pairs in a margin; and five labels
def test_nothing_is_told_before_enough_pairs_and_labels_were_counted(labelled: float, minutes: int) -> None:
    told = looks(spec(), Pairs(0.02, labelled, labelled), np.random.default_rng(2), 50)
    before = list(itertools.takewhile(lambda each: each.minutes is None, (each for each, _ in told)))
    assert len(before) + 1 == pytest.approx(minutes, rel=0.5 if labelled < 1 else 0)
    assert {(each.detectable, each.per_minute) for each in before} == {(None, 0)}
    assert {each.message for each in before} == {
        "Too few labelled pairs of answers were counted yet for accuracy to say how long it takes."
    }


def test_it_names_pairs_and_what_they_find() -> None:
    told = [each for each, _ in looks(spec(), Pairs(0.02, 1, 1), np.random.default_rng(1), 50)]
    known = next(each for each in told if each.minutes is not None)
    assert known.per_minute == pytest.approx(50)
    assert known.message.startswith("At 50 pairs of answers a minute a verdict takes about ")
    assert known.detectable is not None and 0 < known.detectable < 0.01


def test_a_bound_waits_for_the_labels_of_the_copies() -> None:
    for bound, least, most in ((0.3, 0.0, 0.1), (0.12, 1.0, 30.0)):
        told, _ = next(looks(spec(bound=bound), Pairs(0.005, 0.25, 0.25), np.random.default_rng(1), 5000))
        assert told.minutes is not None and least <= told.minutes <= most


def test_before_the_shadow_nobody_knows_how_often_answers_differ() -> None:
    world = shadow(rollout=SHADOW["rollout"], analysis={**ACCURACY, "calibration": "1m"})
    told = [rollout.forecast for rollout in _rollouts(world) if rollout.step is None and rollout.forecast]
    assert told and {each.minutes for each in told} == {None}
    assert "Too few labelled pairs of answers" in told[0].message


def test_the_steps_that_follow_are_waited_for() -> None:
    alone, before = shadow(), shadow(rollout={**FIRST["rollout"], "steps": STEPS}, analysis=ACCURACY)
    for world, after in ((alone, 0), (before, 7)):
        world.until("Promoted")
        told = [each.forecast.minutes for each in _rollouts(world) if each.mirror and each.forecast]
        known = [minutes for minutes in told if minutes is not None]
        assert known and after <= known[-1] < after + 0.5
    assert not [each for each in _rollouts(before) if each.step and "pairs" in str(each.forecast)]


def _rollouts(world: World) -> list[Rollout]:
    return [each.before.rollout for each in world.passes if each.before.rollout]
