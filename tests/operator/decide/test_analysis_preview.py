"""A preview: the arms get other requests, so bounds alone are tested, and the preview's failures stay behind."""

from dataclasses import replace

import pytest
from scipy.stats import binom
from tests.operator.decide.lab import ARMS, Lab, metric, policy

from serin_operator.api.spec import Goal, Metric, Role
from serin_operator.decide import analysis
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.verdict import Action

BOUNDED = replace(metric(), bound=0.1)
PREVIEW_GOOD, PREVIEW_BAD = ((2, 100), (10, 1000)), ((30, 100), (10, 1000))
CLIENTS = ((10, 1000), (0, 0))


def judged(lab: Lab, times: int, block: tuple[tuple[int, int], tuple[int, int]]) -> Judgement:
    """So many looks at a preview."""
    for _ in range(times):
        lab.count("errors", *block)
        lab.now += 10
        found = analysis.judge(lab.analysis, lab.state, lab.snapshot, *ARMS, lab.now, weight=None, alike=False)
        lab.state = found.state
    return found


def preview(*metrics: Metric) -> Lab:
    return Lab(policy(*metrics)).begin()


def test_a_bound_that_is_kept_promotes_whatever_stable_does() -> None:
    found = judged(preview(BOUNDED), 20, ((5, 100), (0, 1000)))
    assert found.verdict.action is Action.PROMOTE
    (report,) = found.reports
    assert (report.verdict, report.canary.trials, report.stable.trials) == ("UnderBound", 2000, 20000)
    assert (report.odds_worse, report.odds_non_inferior, report.difference) == (1.0, 1.0, None)
    assert report.message.startswith("5.0 % of 2,000 failed in the preview. Bound 10 %: odds that it is over it")


def test_a_bound_that_is_broken_rolls_back() -> None:
    found = judged(preview(BOUNDED), 20, PREVIEW_BAD)
    assert found.verdict.action is Action.ROLL_BACK
    assert found.reason_for_rollback()[0] == "OverBound"


@pytest.mark.parametrize("gate", [metric(), replace(BOUNDED, goal=Goal.SUPERIOR)])
def test_a_gate_that_asks_for_a_comparison_can_not_pass(gate: Metric) -> None:
    found = judged(preview(gate), 50, PREVIEW_GOOD)
    assert (found.verdict.action, found.unmeasurable) == (Action.WAIT, ("errors",))


def test_without_a_bound_nothing_rolls_back_either() -> None:
    found = judged(preview(metric()), 50, ((100, 100), (0, 1000)))
    assert found.verdict.action is Action.WAIT
    assert [report.verdict for report in found.reports] == ["NotCompared"]


def test_what_only_guards_keeps_nothing_back() -> None:
    found = judged(preview(BOUNDED, replace(metric("latency"), role=Role.GUARD)), 20, PREVIEW_GOOD)
    assert (found.verdict.action, found.unmeasurable) == (Action.PROMOTE, ())


def test_the_watch_compares_clients_requests_with_stables_record_and_forgets_the_preview() -> None:
    lab = preview(replace(metric(), bound=0.5))
    judged(lab, 20, PREVIEW_BAD)
    lab.state = analysis.watch(lab.analysis, lab.state)
    found = judged(lab, 20, CLIENTS)
    assert found.verdict.action is Action.WAIT
    assert "Since the promotion 1.0 % of 20,000, where the old stable's record allows" in found.reports[0].message
    assert found.reports[0].odds_worse <= 1
    assert judged(lab, 10, ((400, 1000), (0, 0))).verdict.action is Action.ROLL_BACK


def test_the_same_look_twice_changes_nothing() -> None:
    lab = preview(BOUNDED)
    judged(lab, 3, PREVIEW_GOOD)
    state = lab.state
    judged(lab, 1, ((0, 0), (0, 0)))
    assert lab.state == state


def test_the_odds_against_a_bound_are_fair_whatever_stable_counts() -> None:
    """At the bound itself the mean of the odds is at most 1, so it is rolled back with probability alpha at most."""
    trials = 12
    mean = 0.0
    for failures in range(trials + 1):
        bound = judged(preview(BOUNDED), 1, ((failures, trials), (90, 100))).reports[0].bound
        assert bound is not None
        mean += float(binom.pmf(failures, trials, bound.bound)) * bound.odds_over
    assert 0.1 < mean <= 1 + 1e-6
