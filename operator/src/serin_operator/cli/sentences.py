"""What a replay says to people, in the words of the operator's status."""

import math
from collections.abc import Sequence

import numpy as np

from serin_operator import batch
from serin_operator.api.spec import Metric
from serin_operator.api.status import MetricReport
from serin_operator.batch import Batch, Policy
from serin_operator.cli.trails import End, Ending
from serin_operator.decide import alternatives, evidence, forecast, reports, verdict, words
from serin_operator.decide.evidence import Evidence
from serin_operator.decide.forecast import Prospect
from serin_operator.decide.reports import Facts
from serin_operator.decide.verdict import Finding, Standing


def metric_reports(state: Batch, classes: Sequence[Sequence[str]]) -> list[MetricReport]:
    """Per metric, what the status would say of a batch of one rollout. classes: per metric, of an average."""
    analysis = state.policy.analysis
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    standings = batch.standings_of(batch.standings(state), 0)
    return [
        reports.report(_facts(state.policy, metric, test, standing, names), alpha=alpha, beta=beta)
        for metric, test, standing, names in zip(analysis.metrics, state.tests, standings, classes, strict=True)
    ]


def ending(end: End, when: str, classes: Sequence[Sequence[str]]) -> str:
    """What the policy would have done and why. when: the time of the verdict."""
    told = metric_reports(end.state, classes)
    if end.because is not None:
        report = next(report for report in told if report.name == end.because.metric)
        return f"Rolled back at {when} ({_reason(end)}). {report.name}: {report.message}"
    if end.inconclusive:
        limit = words.duration(end.state.policy.max_duration / 60)
        return f"Rolled back at {when}: no verdict within maxDuration ({limit})."
    sentences = " ".join(f"{report.name}: {report.message}" for report in told)
    if end.ending is Ending.PROMOTE:
        return f"Promoted at {when}. {sentences}"
    needs = " ".join(f"{report.name} {report.needed}" for report in told if report.needed)
    return f"Held until the end at {when}. {sentences} {needs}".rstrip()


def _reason(end: End) -> str:
    because = end.because
    assert because
    if because.finding is Finding.OVER_BOUND:
        return reports.OVER_BOUND
    metric = next(metric for metric in end.state.policy.metrics if metric.name == because.metric)
    return reports.ROLLBACK_REASONS[metric.type]


def _facts(policy: Policy, metric: Metric, test: Evidence, standing: Standing, classes: Sequence[str]) -> Facts:
    analysis = policy.analysis
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    low, high = evidence.interval(test, alpha=alpha, beta=beta)[0].tolist()
    return Facts(
        metric=metric,
        standing=standing,
        classes=tuple(classes),
        counts=test.total[0],
        difference=float(evidence.difference(test)[0]),
        low=low,
        high=high,
        odds_alone=verdict.odds_alone(metric, policy.metrics, alpha=alpha) if metric.guards else None,
        canary_trials=_canary_trials(policy, metric, test, standing),
    )


def _canary_trials(policy: Policy, metric: Metric, test: Evidence, standing: Standing) -> float:
    """How many more the canary is likely to need until it passes, at the split that was."""
    _, n_c, y_s, n_s = test.total[0].sum(axis=0)
    if not n_c or not n_s:
        return math.inf
    needed = -math.log(policy.analysis.false_promotion_rate)
    gate = Prospect(
        name=metric.name,
        trials=reports.trials_of(metric),
        goal=metric.goal,
        tolerance=metric.tolerance,
        margin=metric.margin,
        failure_rate=float(alternatives.stable_rate(np.asarray(y_s), np.asarray(n_s))),
        per_minute=0.0,
        phi=float(test.phi[0]),
        missing=max(0.0, needed - float(standing.log_e_goal)),
        for_rollback=None,
        bound=metric.bound,
        missing_under=max(0.0, needed - float(standing.bound.under)) if standing.bound else 0.0,
    )
    return forecast.canary_trials([gate], [100 * n_c / (n_c + n_s)])[0]
