"""What a replay says to people, in the words of the operator's status."""

from serin_operator.batch import Policy
from serin_operator.cli.trails import End, Ending
from serin_operator.decide import reports, words
from serin_operator.decide.verdict import Finding


def ending(policy: Policy, end: End, when: str) -> str:
    """What the policy would have done and why. when: the time of the verdict."""
    if end.because is not None:
        report = next(report for report in end.reports if report.name == end.because.metric)
        return f"Rolled back at {when} ({_reason(policy, end)}). {report.name}: {report.message}"
    if end.inconclusive:
        return f"Rolled back at {when}: no verdict within maxDuration ({words.duration(policy.max_duration / 60)})."
    sentences = " ".join(f"{report.name}: {report.message}" for report in end.reports)
    if end.ending is Ending.PROMOTE:
        return f"Promoted at {when}. {sentences}"
    needs = "".join(f" {report.name} {report.needed}" for report in end.reports if report.needed)
    return f"Held until the last scrape, at {when}. {sentences}{needs}"


def _reason(policy: Policy, end: End) -> str:
    because = end.because
    assert because
    if because.finding is Finding.OVER_BOUND:
        return reports.OVER_BOUND
    metric = next(metric for metric in policy.metrics if metric.name == because.metric)
    return reports.ROLLBACK_REASONS[metric.type]
