"""The words that people read, metric by metric."""

import math

import pytest
from tests.operator.decide.lab import metric

from serin_operator.api.spec import Goal, Metric, MetricType, Role
from serin_operator.api.status import BoundReport, MetricReport, Tally
from serin_operator.decide.reports import ROLLBACK_REASONS, Facts, Since, report, trials_of
from serin_operator.decide.verdict import BoundOdds, Standing

COUNTS = (164, 3210, 1416, 28_904)


def facts(
    one: Metric,
    *,
    worse: float = 0.4,
    non_inferior: float = 37,
    superior: float = 1,
    bound: tuple[float, float, float] = (1, 1, 1),
    counts: tuple[tuple[int, int, int, int], ...] = (COUNTS,),
    classes: tuple[str, ...] = (),
    alone: float | None = 20.2,
    trials: float | None = 1234.5,
    since: Since | None = None,
    seen: bool = True,
) -> Facts:
    """A metric with these odds."""
    standing = Standing(
        name=one.name,
        guards=one.guards,
        gates=one.gates,
        weight=one.weight,
        goal=one.goal,
        log_e_worse=math.log(worse),
        log_e_non_inferior=math.log(non_inferior),
        log_e_superior=math.log(superior),
        bound=BoundOdds(*(math.log(each) for each in bound)) if one.bound is not None else None,
        seen=seen,
    )
    return Facts(
        metric=one,
        standing=standing,
        classes=classes,
        counts=counts,
        difference=0.0021,
        low=-0.006,
        high=0.01,
        odds_alone=alone,
        canary_trials=trials,
        since=since,
    )


def told(given: Facts) -> MetricReport:
    return report(given, alpha=0.05, beta=0.05)


def test_a_metric_in_words() -> None:
    assert told(facts(metric("accuracy"))).message == (
        "5.1 % of 3,210 wrong against 4.9 % of 28,904 of stable: +0.2 points, between -0.6 and +1.0. "
        "Odds that it is worse 0.4 : 1 (rolls back at 20 : 1); "
        "that it is worse by less than 2 points 37 : 1 (enough for promotion, needs 20 : 1)."
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (facts(metric("errors")), "5.1 % of 3,210 failed against"),
        (facts(metric("latency")), "5.1 % of 3,210 took longer than 0.25 s against"),
        (facts(metric("precision", label="7")), "Of class 7: 5.1 % of 3,210 wrong against"),
        (facts(metric("recall", label="7")), "Of class 7: 5.1 % of 3,210 missed against"),
        (
            facts(metric("f1", label="7")),
            "Of class 7: F1 0.974 against 0.975 of stable (5.1 % of 3,210 missed or mistaken for it against",
        ),
        (facts(metric("regression")), "5.1 % of 3,210 off by more than 0.5 against"),
        (facts(metric("restarts")), "5.1 % of 3,210 pod minutes with a restart against"),
        (facts(metric("custom")), "5.1 % of 3,210 failed against"),
        (
            facts(metric("recall"), classes=("a", "b"), counts=((10, 100, 10, 100), (0, 900, 10, 1000))),
            "On average over 2 classes: 5.0 % of 1,000 missed against 5.5 % of 1,100 of stable",
        ),
        (
            facts(metric("f1"), classes=("a", "b"), counts=((10, 100, 0, 100), (0, 900, 0, 1000))),
            "On average over 2 classes: F1 0.950 against 1.000 of stable",
        ),
        (facts(metric(tolerance=0.01)), "Odds that it is worse by more than 1 point 0.4 : 1 (rolls back at 20 : 1)"),
        (facts(metric(), non_inferior=19.9), "by less than 2 points 19 : 1 (promotion needs 20 : 1)."),
        (facts(metric(goal=Goal.SUPERIOR), superior=3), "that it is better 3 : 1 (promotion needs 20 : 1)."),
        (facts(metric(role=Role.GUARD)), "by less than 2 points 37 : 1."),
        (facts(metric(role=Role.GATE), alone=None), "Odds that it is worse 0.4 : 1; that"),
        (facts(metric(role=Role.OBSERVE), alone=None), "37 : 1. It is only shown and decides nothing."),
        (
            facts(metric(bound=0.01), bound=(0.2, 45, 0.1)),
            " Bound 1 %: odds that it is over it 0.2 : 1 (rolls back at 20 : 1); that it is under it 45 : 1 "
            "(enough for promotion, needs 20 : 1).",
        ),
        (facts(metric(bound=0.01), bound=(0.2, 5, 0.1)), "that it is under it 5 : 1 (promotion needs 20 : 1)."),
        (
            facts(metric(bound=0.01), bound=(99, 0.01, 5000)),
            " Bound 1 %: odds that it is over it 99 : 1, and that stable is 5,000 : 1: going back would not help, and "
            "nothing is promoted.",
        ),
        (
            facts(metric(), since=Since(Tally(21, 1000), 0.0321, math.log(0.1))),
            " Since the promotion 2.1 % of 1,000, where the old stable's record allows 3.21 %: odds 0.1 : 1 that it is "
            "over it.",
        ),
        (
            facts(metric(), since=Since(Tally(21, 1000), None, 0.0)),
            " Since the promotion 2.1 % of 1,000, with no record of the old stable to compare it with.",
        ),
        (facts(metric(), seen=False, counts=((0, 0, 1, 10),)), "no data from the canary revision yet."),
        (facts(metric(), seen=False, counts=((0, 5, 0, 0),)), "no data from the stable revision yet."),
        (
            facts(metric(), seen=False, counts=((0, 5, 0, 5),)),
            "not compared yet: both revisions must have counted in the same time.",
        ),
        (
            facts(metric("recall"), seen=False, classes=("a", "b"), counts=((0, 5, 0, 5), (0, 5, 0, 0))),
            "no data of class b from the stable revision yet.",
        ),
    ],
)
def test_what_a_message_says(given: Facts, says: str) -> None:
    assert says in told(given).message


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        (facts(metric()), ""),
        (
            facts(metric(), non_inferior=4),
            "needs odds of 20 : 1 that it is worse by less than 2 points (now 4 : 1): about 1,200 more requests of the "
            "canary if it is as good as stable.",
        ),
        (
            facts(metric("accuracy", goal=Goal.SUPERIOR)),
            "needs odds of 20 : 1 that it is better (now 1 : 1): about 1,200 more labelled predictions of the canary "
            "if it is better by 2 points.",
        ),
        (
            facts(metric(bound=0.01), bound=(1, 3, 1), trials=math.inf),
            "needs odds of 20 : 1 that it is under its bound of 1 % (now 3 : 1): which never come if it is as good as "
            "stable.",
        ),
        (
            facts(metric(), non_inferior=4, trials=None),
            "needs odds of 20 : 1 that it is worse by less than 2 points (now 4 : 1).",
        ),
        (facts(metric(role=Role.GUARD), non_inferior=4), ""),
        (facts(metric(role=Role.OBSERVE), non_inferior=4), ""),
        (facts(metric(), worse=99), ""),
        (facts(metric(), seen=False, counts=((0, 0, 0, 0),)), "needs requests of both revisions."),
    ],
)
def test_what_is_missing(given: Facts, needed: str) -> None:
    assert told(given).needed == needed


def test_the_numbers_of_a_report() -> None:
    shown = told(facts(metric(bound=0.01, goal=Goal.SUPERIOR), worse=1e300, superior=3, bound=(0.2, 45, 0.1)))
    assert shown == MetricReport(
        name="errors",
        verdict="Worse",
        canary=Tally(164, 3210),
        stable=Tally(1416, 28_904),
        odds_worse=1e9,
        odds_non_inferior=37,
        message=shown.message,
        needed="",
        role="GuardAndGate",
        difference=0.0021,
        low=-0.006,
        high=0.01,
        odds_superior=3,
        bound=BoundReport(0.01, 0.2, 45, 0.1),
    )


def test_without_data_there_is_no_interval() -> None:
    shown = told(facts(metric(), seen=False, counts=((0, 0, 0, 0),)))
    assert (shown.verdict, shown.difference, shown.low, shown.high, shown.odds_superior) == (
        "NoData",
        None,
        None,
        None,
        None,
    )


def test_every_type_has_words_and_a_reason() -> None:
    assert set(ROLLBACK_REASONS) == set(MetricType)
    assert len(set(ROLLBACK_REASONS.values())) == len(MetricType)
    for kind in MetricType:
        assert trials_of(metric(kind.value))
        assert told(facts(metric(kind.value))).message
