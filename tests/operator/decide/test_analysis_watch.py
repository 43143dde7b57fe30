"""The watch after a promotion: late labels are compared, all else is held against the old stable's record."""

import math

import numpy as np
import pytest
from tests.operator.decide.lab import Lab, metric, policy

from serin_operator.api.spec import Metric, Role
from serin_operator.decide import analysis, evidence, looks, one_arm, tracks
from serin_operator.decide.keys import class_key
from serin_operator.decide.record import upper_limit
from serin_operator.decide.verdict import WATCH_SHARE, Action

GOOD = ((5, 100), (45, 900))
ALL_GOOD, ALL_BAD = ((50, 1000), (0, 0)), ((120, 1000), (0, 0))


def promoted(*metrics: Metric, window: float = 0.0, warm_up: int = 0, times: int = 60) -> Lab:
    """A rollout with good evidence on errors, just promoted."""
    lab = Lab(policy(*metrics, window=window, warm_up=warm_up)).begin()
    judged = lab.repeat(times, {"errors": GOOD})
    assert judged.verdict.action is Action.PROMOTE or len(metrics) > 1
    lab.state = analysis.watch(lab.analysis, judged.state)
    return lab


def test_a_promoted_revision_that_stays_good_is_never_promoted_again_nor_rolled_back() -> None:
    lab = promoted(metric())
    assert analysis.recall(lab.analysis, lab.state, None).verdict.action is Action.WAIT
    judged = lab.repeat(100, {"errors": ALL_GOOD})
    assert judged.verdict.action is Action.WAIT
    assert "Since the promotion 5.0 % of 100,000, where the old stable's record allows 7." in judged.reports[0].message


def test_a_promoted_revision_that_gets_worse_is_rolled_back() -> None:
    lab = promoted(metric())
    judged = lab.repeat(30, {"errors": ALL_BAD})
    assert judged.verdict.action is Action.ROLL_BACK
    reason, sentence = judged.reason_for_rollback()
    assert reason == "MoreErrors"
    assert "Since the promotion 12.0 % of 30,000" in sentence


def test_what_comes_after_the_promotion_is_not_compared_with_an_arm_without_traffic() -> None:
    lab = promoted(metric())
    before = analysis.recall(lab.analysis, lab.state, None).reports[0]
    after = lab.repeat(5, {"errors": ((120, 1000), (1, 2))}).reports[0]
    assert (after.canary, after.stable) == (before.canary, before.stable)


def test_the_first_looks_after_the_promotion_are_not_tested() -> None:
    lab = promoted(metric(), warm_up=2)
    assert "Since the promotion" not in lab.repeat(2, {"errors": ALL_BAD}).reports[0].message
    assert "of 1,000, where" in lab.repeat(1, {"errors": ALL_BAD}).reports[0].message


def test_late_labels_are_compared_until_the_last_shared_prediction_is_as_old_as_the_window() -> None:
    key, pair = "accuracy@60", ((5, 100), (45, 900))
    lab = Lab(policy(metric(), metric("accuracy"), window=60.0)).begin()
    lab.repeat(30, {"errors": GOOD, key: pair})
    lab.state = analysis.watch(lab.analysis, lab.state)
    compared = [lab.repeat(1, {"errors": ALL_GOOD, key: pair}).reports[1].canary.trials for _ in range(9)]
    assert np.diff([2400, *compared]).tolist() == [100] * 6 + [0] * 3
    assert "Since the promotion 5.0 % of 300" in lab.look().reports[1].message


def test_late_labels_that_show_harm_roll_back() -> None:
    key = "accuracy@300"
    lab = Lab(policy(metric(role=Role.GATE), metric("accuracy", role=Role.GUARD), window=300.0)).begin()
    lab.repeat(31, {"errors": GOOD, key: ((0, 0), (45, 900))})
    lab.state = analysis.watch(lab.analysis, lab.state)
    assert lab.repeat(29, {key: ((15, 100), (45, 900))}).verdict.action is Action.ROLL_BACK


def test_an_average_goes_on_with_late_labels_alone() -> None:
    recall = metric("recall", role=Role.GUARD)
    lab = Lab(policy(metric(role=Role.GATE), recall, window=60.0))
    blocks = {class_key(recall, label, 60.0): GOOD for label in ("cat", "dog")}
    for key in blocks:
        lab.count(key, (0, 1), (0, 1))
    lab.begin().repeat(20, {"errors": GOOD} | blocks)
    lab.state = analysis.watch(lab.analysis, lab.state)
    trials = [lab.repeat(1, blocks).reports[1].canary.trials for _ in range(8)]
    assert np.diff(trials).tolist() == [200] * 5 + [0] * 2


def test_a_revision_without_a_record_is_not_judged_by_it() -> None:
    lab = promoted(metric(), metric("latency", role=Role.GUARD))
    judged = lab.repeat(20, {"errors": ALL_GOOD, "latency@0.25": ((900, 1000), (0, 0))})
    assert judged.verdict.action is Action.WAIT


def test_the_evidence_goes_on_and_needs_no_new_stake() -> None:
    """After the promotion a guard's e-value is what it was times that of the record's test."""
    lab = promoted(metric())
    before = float(evidence.log_e_worse(tracks.load(lab.state).plain.tests)[0])
    judged = lab.repeat(1, {"errors": ALL_BAD})
    state = tracks.load(judged.state)
    limit = looks.record_limit(state, lab.analysis, lab.analysis.metrics[0])
    assert limit is not None
    alone = math.log(judged.reports[0].odds_worse) - before
    from_scratch = log_e_over(limit, [(120, 1000)])
    assert alone == pytest.approx(from_scratch, abs=1e-4)


def log_e_over(limit: float, blocks: list[tuple[int, int]]) -> float:
    test = one_arm.start(1)
    for block in blocks:
        test = one_arm.update(test, np.array([block]), limit)
    return float(one_arm.log_e_over(test)[0])


@pytest.mark.parametrize("others", [0, 2])
def test_the_records_limit_has_its_part_of_the_level(others: int) -> None:
    """All guards' limits together have WATCH_SHARE of the level, by weight; a bound brings a second e-value."""
    guards = [metric("latency", name=f"slow-{i}", role=Role.GUARD, weight=2.0) for i in range(others)]
    lab = promoted(metric(), *guards)
    state = tracks.load(lab.state)
    share = WATCH_SHARE * 0.05 / (1 + 2 * others)
    expected = upper_limit(2700, 54_000, log_odds=-math.log(share)) + 0.02
    assert looks.record_limit(state, lab.analysis, lab.analysis.metrics[0]) == pytest.approx(expected)


def test_false_rollbacks_in_the_watch_of_a_revision_as_good_as_its_record() -> None:
    """200 watches of 200 looks with the record's true rate: at most alpha of them; here none is near."""
    rng = np.random.default_rng(7)
    test = one_arm.start(200)
    record = rng.binomial(9000, 0.05, 200)
    log_odds = -math.log(WATCH_SHARE * 0.05)
    limits = np.array([upper_limit(int(y), 9000, log_odds=log_odds) for y in record])  # without the margin
    worst = np.zeros(200)
    for _ in range(200):
        counts = np.stack([rng.binomial(1000, 0.05, 200), np.full(200, 1000)], axis=1)
        test = one_arm.update(test, counts, limits)
        worst = np.maximum(worst, one_arm.log_e_over(test))
    assert (worst >= math.log(20)).mean() <= 0.05


def test_the_last_look_of_the_rollout_again_changes_nothing() -> None:
    lab = promoted(metric(bound=0.2), metric("latency"))
    before, reports = lab.state, analysis.recall(lab.analysis, lab.state, None).reports
    judged = lab.look(seconds=0)
    assert (judged.state, judged.reports) == (before, reports)
