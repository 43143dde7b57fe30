"""Many rollouts at once go the way that each would go alone, by the operator's own tests and verdicts."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from tests.operator.policies import ACCURACY, ANALYSIS, ROLLOUT

from serin_operator import batch
from serin_operator.api.spec import OnInconclusive, Shadow, Strategy
from serin_operator.batch import SHADOW, Batch, Decision, Policy
from serin_operator.decide import evidence, many_pairs
from serin_operator.decide.verdict import Action, log_odds_alone, verdict

Ints = npt.NDArray[np.int64]
LIMITS = log_odds_alone(ANALYSIS.metrics, alpha=ANALYSIS.false_rollback_rate)


def counts(rollouts: int, looks: int, canary: float = 0.05, stable: float = 0.05, seed: int = 1) -> Ints:
    """(looks, metrics, rollouts, 1, 4), now and then without a canary's trial."""
    rng = np.random.default_rng(seed)
    trials = rng.poisson([[30.0], [270.0]], (looks, 2, rollouts, 1, 2, 1)) * (
        rng.random((looks, 2, rollouts, 1, 1, 1)) < 0.9
    )
    failures = rng.binomial(trials, np.array([[canary], [stable]]))
    return np.concatenate([failures, trials], axis=-1).reshape(looks, 2, rollouts, 1, 4)


def follow(state: Batch, blocks: Ints, *, interval: float = 30.0) -> tuple[Batch, list[Decision]]:
    decisions = []
    for number, block in enumerate(blocks):
        elapsed = np.full(len(state), number * interval)
        state = batch.look(state, list(block), elapsed)
        decisions.append(batch.decide(state, batch.standings(state), elapsed))
    return state, decisions


def test_a_batch_is_what_its_rollouts_are_alone() -> None:
    policy, blocks = Policy(ANALYSIS, ROLLOUT), counts(5, 12)
    together, decided = follow(batch.begin(policy, 5), blocks)
    for number in range(5):
        alone, decided_alone = follow(batch.begin(policy, 1), blocks[:, :, [number]])
        for one, all_ in zip(alone.tests, together.tests, strict=True):
            assert evidence.encode(one) == [evidence.encode(all_)[number]]
        for one_bound, bound in zip(alone.bounds, together.bounds, strict=True):
            assert (one_bound is None) == (bound is None)
            if one_bound and bound:
                np.testing.assert_array_equal(one_bound.canary.over[0], bound.canary.over[number])
                np.testing.assert_array_equal(one_bound.stable.over[0], bound.stable.over[number])
        assert [d.roll_back[0] for d in decided_alone] == [d.roll_back[number] for d in decided]
        assert [d.promote[0] for d in decided_alone] == [d.promote[number] for d in decided]


def test_without_a_rollout_part_the_tests_are_those_of_direct_calls() -> None:
    blocks = counts(3, 6)
    state, _ = follow(batch.begin(Policy(ANALYSIS), 3), blocks)
    for index, metric in enumerate(ANALYSIS.metrics):
        direct = evidence.start(tolerance=np.full(3, metric.tolerance), margin=metric.margin)
        for block in blocks:
            direct = evidence.update(direct, block[index], limit=LIMITS[metric.name])
        assert evidence.encode(direct) == evidence.encode(state.tests[index])


def test_each_step_is_an_onset_and_rollouts_reach_it_by_their_own_clocks() -> None:
    blocks = counts(2, 6)
    state = batch.begin(Policy(ANALYSIS, ROLLOUT), 2)
    for block in blocks[:3]:
        state = batch.look(state, list(block), np.array([0.0, 60.0]))
    assert state.step.tolist() == [0, 1]
    direct = evidence.start(tolerance=0.0, margin=0.02)
    for number, block in enumerate(blocks[:3]):
        direct = evidence.update(direct, block[0][1:], limit=LIMITS["accuracy"])
        direct = evidence.onset(direct) if number == 0 else direct
    assert evidence.encode(direct) == [evidence.encode(state.tests[0])[1]]


def test_a_warm_up_drops_the_first_scrapes_of_every_step() -> None:
    policy = Policy(replace(ANALYSIS, warm_up=1), ROLLOUT)
    state, _ = follow(batch.begin(policy, 1), np.full((5, 2, 1, 1, 4), [1, 10, 1, 10]))
    # Looks at 0, 30, ..., 120 s; steps begin with the looks at 60 and 120 s, so the looks at 0 and 90 s are dropped.
    assert state.tests[0].total[0, 0].tolist() == [3, 30, 3, 30]


def test_decisions_are_the_operators_verdicts() -> None:
    policy = Policy(ANALYSIS)
    for canary, seed in ((0.05, 1), (0.03, 2), (0.12, 3)):
        state = batch.begin(policy, 4)
        for block in counts(4, 40, canary, 0.05, seed):
            state = batch.look(state, list(block), np.zeros(4))
            standings = batch.standings(state)
            decision = batch.decide(state, standings, np.zeros(4))
            for number in range(4):
                action = verdict(batch.standings_of(standings, number), alpha=0.05, beta=0.05).action
                assert decision.roll_back[number] == (action is Action.ROLL_BACK)
                assert decision.promote[number] == (action is Action.PROMOTE)


@pytest.mark.parametrize(
    ("elapsed", "on_inconclusive", "expected"),
    [
        (150.0, OnInconclusive.HOLD, "nothing"),  # the steps have not lasted
        (180.0, OnInconclusive.HOLD, "promote"),
        (3600.0, OnInconclusive.HOLD, "nothing"),  # never promoted at the end of maxDuration
        (3600.0, OnInconclusive.ROLLBACK, "inconclusive"),
    ],
)
def test_time_decides_when_a_promotion_may_come(elapsed: float, on_inconclusive: OnInconclusive, expected: str) -> None:
    policy = Policy(replace(ANALYSIS, metrics=(ACCURACY,)), replace(ROLLOUT, on_inconclusive=on_inconclusive))
    at = np.array([elapsed])
    state = batch.look(batch.begin(policy, 1), [np.array([[[40, 4000, 50, 4000]]])], at)
    decision = batch.decide(state, batch.standings(state), at)
    assert decision.promote[0] == (expected == "promote")
    assert decision.inconclusive[0] == decision.roll_back[0] == (expected == "inconclusive")


@pytest.mark.parametrize("strategy", [Strategy.SHADOW, Strategy.CANARY])
def test_a_shadow_that_has_passed_is_promoted_or_gets_its_first_step(strategy: Strategy) -> None:
    shadowed = replace(ROLLOUT, strategy=strategy, shadow=Shadow(20, 60))
    policy = Policy(replace(ANALYSIS, metrics=(ACCURACY,), warm_up=1), shadowed)
    no_arms, pairs = np.zeros((1, 1, 4), np.int64), np.array([[1000, 4, 1000, 4, 102, 102, 2]])
    state, decisions = batch.begin(policy, 1), []
    for elapsed in (np.array([30.0]), np.array([60.0])):
        state = batch.look(state, [no_arms], elapsed, [pairs])
        decisions.append(batch.decide(state, batch.standings(state), elapsed))
    assert [bool(each.promote[0] or each.first_step[0]) for each in decisions] == [False, True]  # it lasts 60 s
    assert decisions[1].promote[0] == (strategy is Strategy.SHADOW)
    state = batch.to_first_step(state, decisions[1].first_step, np.array([60.0]))
    assert state.step.tolist() == [SHADOW if strategy is Strategy.SHADOW else 0]


def test_in_the_steps_the_odds_of_the_shadow_multiply_those_of_the_arms() -> None:
    shadowed = replace(ROLLOUT, shadow=Shadow(20, 60))
    state = batch.begin(Policy(replace(ANALYSIS, metrics=(ACCURACY,)), shadowed), 1)
    arms, pairs = np.array([[[5, 100, 50, 1000]]]), np.array([[300, 6, 300, 6, 33, 33, 3]])
    state = batch.look(state, [arms], np.array([60.0]), [pairs])
    state = batch.to_first_step(state, np.array([True]), np.array([60.0]))
    state = batch.look(state, [arms], np.array([90.0]), [np.zeros_like(pairs)])
    direct = evidence.update(evidence.start(tolerance=0.0, margin=0.02), arms, limit=LIMITS["accuracy"])
    of_pairs = many_pairs.counted(many_pairs.start(ACCURACY, 1), pairs)
    of_pairs = many_pairs.onset(of_pairs, np.array([True]))
    worse, good, _ = many_pairs.odds(of_pairs)
    (standing,) = batch.standings(state)
    assert standing.log_e_worse == pytest.approx(evidence.log_e_worse(direct) + worse)
    assert standing.log_e_non_inferior == pytest.approx(evidence.log_e_non_inferior(direct) + good)


def test_the_worst_excess_is_everything_until_all_guards_have_data() -> None:
    state = batch.begin(Policy(ANALYSIS), 1)
    assert batch.worst_excess(state).tolist() == [1.0]
    block = np.array([[[5, 1000, 5, 1000]]])
    seen_one = batch.look(state, [block, np.zeros_like(block)], np.zeros(1))
    assert batch.worst_excess(seen_one).tolist() == [1.0]
    seen_both = batch.look(state, [block, block], np.zeros(1))
    assert 0 < batch.worst_excess(seen_both)[0] < 0.1


def test_taking_rollouts_leaves_them_as_they_are() -> None:
    blocks = counts(4, 8)
    state, _ = follow(batch.begin(Policy(ANALYSIS, ROLLOUT), 4), blocks[:4])
    chosen = np.array([3, 1])
    then, _ = follow(batch.take(state, chosen), blocks[4:, :, chosen])
    everything, _ = follow(state, blocks[4:])
    for one, all_ in zip(then.tests, everything.tests, strict=True):
        assert evidence.encode(one) == [evidence.encode(all_)[number] for number in chosen]


def test_what_stable_counted_before_tells_its_rate_to_the_first_look() -> None:
    history, block = np.array([[[50, 1000]]]), np.array([[[5, 30, 14, 270]]])
    analysis = replace(ANALYSIS, metrics=(ACCURACY,))
    state = batch.begin(Policy(analysis), 1, history=[history])
    state = batch.look(state, [block], np.zeros(1))
    limit = log_odds_alone(analysis.metrics, alpha=analysis.false_rollback_rate)["accuracy"]
    direct = evidence.update(evidence.start(tolerance=0.0, margin=0.02, history=history), block, limit=limit)
    assert evidence.encode(state.tests[0]) == evidence.encode(direct)
