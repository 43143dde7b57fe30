"""What people read about a metric: its counts, its evidence as odds, what is missing, in words and in `status`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serin_operator.api.spec import Goal, Metric, MetricType
from serin_operator.api.status import BoundReport, MetricReport, Tally
from serin_operator.decide.pairs import Totals
from serin_operator.decide.verdict import Finding, Standing, finding
from serin_operator.decide.words import about, count, odds, percent, points, shares, to_one, within

ROLLBACK_REASONS = {
    MetricType.ERRORS: "MoreErrors",
    MetricType.LATENCY: "Slower",
    MetricType.ACCURACY: "LessAccurate",
    MetricType.PRECISION: "LessPrecise",
    MetricType.RECALL: "LowerRecall",
    MetricType.F1: "LowerF1",
    MetricType.REGRESSION: "LargerErrors",
    MetricType.RESTARTS: "MoreRestarts",
    MetricType.CUSTOM: "WorseMetric",
}
OVER_BOUND = "OverBound"

Strata = Sequence[Sequence[int]]  # per stratum: failures and trials of the canary, then of the stable revision


@dataclass(frozen=True, slots=True)
class Since:
    """A promoted revision against the old stable's record: its counts since, the rate allowed, log odds for more."""

    counts: Tally
    limit: float | None
    log_e_over: float


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known about one metric.

    classes: of an average, one per stratum of `counts`; else empty. difference: nan while untested.
    odds_alone: for worse, at which it alone rolls back; None if it can not.
    canary_trials: how many more are likely to be needed until it passes; None while that can not be told.
    pairs: those in it, if there are any.
    alone: the canary's counts where the arms are not compared, else None.
    """

    metric: Metric
    standing: Standing
    classes: tuple[str, ...]
    counts: Strata
    difference: float
    low: float
    high: float
    odds_alone: float | None
    canary_trials: float | None
    since: Since | None = None
    pairs: Totals | None = None
    alone: Tally | None = None

    @property
    def canary(self) -> Tally:
        """All its counts."""
        return self.alone or Tally(
            sum(stratum[0] for stratum in self.counts), sum(stratum[1] for stratum in self.counts)
        )

    @property
    def stable(self) -> Tally:
        """All its counts."""
        return Tally(sum(stratum[2] for stratum in self.counts), sum(stratum[3] for stratum in self.counts))


def trials_of(metric: Metric) -> str:
    """What the metric's trials are called."""
    match metric.type:
        case MetricType.ERRORS | MetricType.LATENCY:
            return "requests"
        case MetricType.PRECISION if metric.label is not None:
            return f"labelled predictions of class {metric.label}"
        case MetricType.RECALL if metric.label is not None:
            return f"labels of class {metric.label}"
        case MetricType.F1 if metric.label is not None:
            return f"labels and predictions of class {metric.label}"
        case MetricType.RESTARTS:
            return "pod minutes"
        case MetricType.CUSTOM:
            return "trials"
        case _:
            return "labelled predictions"


def report(facts: Facts, *, alpha: float, beta: float) -> MetricReport:
    """What `status` holds."""
    standing, found = facts.standing, finding(facts.standing, alpha=alpha, beta=beta)
    bound = None
    if facts.metric.bound is not None and standing.bound is not None:
        bound = BoundReport(facts.metric.bound, *(odds(float(each)) for each in standing.bound))
    return MetricReport(
        name=facts.metric.name,
        verdict=found.value,
        canary=facts.canary,
        stable=facts.stable,
        odds_worse=odds(float(standing.log_e_worse)),
        odds_non_inferior=odds(float(standing.log_e_non_inferior)),
        message=_message(facts, bound, found, beta),
        needed=_needed(facts, bound, found, beta),
        role=facts.metric.role.value,
        difference=facts.difference if standing.seen and standing.compared else None,
        low=facts.low if standing.seen and standing.compared else None,
        high=facts.high if standing.seen and standing.compared else None,
        odds_superior=odds(float(standing.log_e_superior)) if standing.goal is Goal.SUPERIOR else None,
        bound=bound,
    )


def _message(facts: Facts, bound: BoundReport | None, found: Finding, beta: float) -> str:
    if facts.alone is not None:
        parts = [_alone(facts, facts.alone)]
    else:
        parts = [_seen(facts), *_odds(facts, beta)] if facts.standing.seen else [_missing(facts)]
    if facts.pairs is not None and facts.standing.seen:
        parts.insert(0, _paired(facts.pairs))
    if bound is not None and facts.canary.trials:
        parts.append(_bound(facts, bound, found, beta))
    if facts.since is not None and facts.since.counts.trials:
        parts.append(_since(facts.since))
    return " ".join(parts)


def _alone(facts: Facts, canary: Tally) -> str:
    """How often the canary failed where stable gets requests of another kind."""
    if facts.metric.bound is None:
        return "not compared, as the preview gets other requests than stable; only a bound could be tested."
    if not canary.trials:
        return "no data from the preview yet."
    (share,) = shares(canary.failures / canary.trials)
    return f"{share} of {count(canary.trials)} {_failed(facts.metric)} in the preview."


def _seen(facts: Facts) -> str:
    """How often both arms failed."""
    metric = facts.metric
    rates = _rates(facts.counts)
    in_canary, in_stable = shares(*(sum(arm) / len(arm) for arm in rates))
    of_canary, of_stable = count(facts.canary.trials), count(facts.stable.trials)
    word = _failed(metric)
    difference = within(facts.difference, facts.low, facts.high)
    where = f"of class {metric.label}: " if metric.label is not None else ""
    if facts.classes:
        where = f"on average over {len(facts.classes)} classes: "
    compared = f"{in_canary} of {of_canary} {word} against {in_stable} of {of_stable} of stable"
    if metric.type is MetricType.F1:
        # Of an average, wrong predictions count in one of their classes, and the share is 1 - F1 itself.
        canary_f1, stable_f1 = (
            1 - sum(arm) / len(arm) if facts.classes else 2 * (1 - arm[0]) / (2 - arm[0]) for arm in rates
        )
        compared = f"F1 {canary_f1:.3f} against {stable_f1:.3f} of stable ({compared})"
    text = f"{where}{compared}: {difference}."
    return text[0].upper() + text[1:] if where else text


def _paired(pairs: Totals) -> str:
    """How many requests both revisions answered, and what their labels tell."""
    (differ,) = shares(pairs.different / pairs.all)
    text = f"of {count(pairs.all)} requests that both answered, the answers differ in {differ}"
    if not pairs.different:
        return f"{text}."
    if not pairs.settled:
        return f"{text}, without a label yet."
    return (
        f"{text}; of {count(pairs.settled)} of those with a label, only the canary's is wrong in "
        f"{count(pairs.only_canary)} and only stable's in {count(pairs.only_stable)}."
    )


def _odds(facts: Facts, beta: float) -> list[str]:
    """The evidence on the difference, and from when on it counts."""
    metric, standing = facts.metric, facts.standing
    worse = f"that it is worse {_one(standing.log_e_worse)}"
    if metric.tolerance:
        worse = f"that it is worse by more than {points(metric.tolerance)} {_one(standing.log_e_worse)}"
    if facts.odds_alone is not None:
        worse += f" (rolls back at {to_one(facts.odds_alone)})"
    goal = f"that it is worse by less than {points(metric.margin)}"
    if standing.goal is Goal.SUPERIOR:
        goal = "that it is better"
    goal += f" {_one(standing.log_e_goal)}{_promotion(metric, bool(standing.log_e_goal >= -math.log(beta)), beta)}"
    text = f"Odds {worse}; {goal}."
    return [text] if metric.guards or metric.gates else [text, "It is only shown and decides nothing."]


def _bound(facts: Facts, bound: BoundReport, found: Finding, beta: float) -> str:
    text = f"Bound {percent(bound.bound)}: odds that it is over it {to_one(bound.odds_over)}"
    if found is Finding.BOTH_OVER_BOUND:
        stable = to_one(bound.odds_stable_over)
        return f"{text}, and that stable is {stable}: going back would not help, and nothing is promoted."
    if facts.odds_alone is not None:
        text += f" (rolls back at {to_one(facts.odds_alone)})"
    text += f"; that it is under it {to_one(bound.odds_under)}"
    return f"{text}{_promotion(facts.metric, bound.odds_under >= 1 / beta, beta)}."


def _promotion(metric: Metric, enough: bool, beta: float) -> str:
    """What odds mean for promotion."""
    if not metric.gates:
        return ""
    return f" ({'enough for promotion,' if enough else 'promotion'} needs {to_one(1 / beta)})"


def _since(since: Since) -> str:
    (share,) = shares(since.counts.failures / since.counts.trials)
    text = f"Since the promotion {share} of {count(since.counts.trials)}"
    if since.limit is None:
        return f"{text}, with no record of the old stable to compare it with."
    allowed = percent(round(since.limit, 4))
    return f"{text}, where the old stable's record allows {allowed}: odds {_one(since.log_e_over)} that it is over it."


def _missing(facts: Facts) -> str:
    """Which counts are not there yet."""
    for arm, of_arm in (("canary", 1), ("stable", 3)):
        trials = [stratum[of_arm] for stratum in facts.counts]
        lacking = [label for label, counted in zip(facts.classes, trials, strict=False) if not counted]
        if lacking and len(lacking) < len(facts.classes):
            return f"no data of class {', '.join(lacking)} from the {arm} revision yet."
        if not all(trials):
            return f"no data from the {arm} revision yet."
    return "not compared yet: both revisions must have counted in the same time."


def _needed(facts: Facts, bound: BoundReport | None, found: Finding, beta: float) -> str:
    """What a gate still lacks; nothing for what is no gate."""
    metric, standing = facts.metric, facts.standing
    if not metric.gates or found is Finding.WORSE:
        return ""
    if not standing.can_pass:
        missing = "shown to be better than stable" if standing.goal is Goal.SUPERIOR else "tested without a bound"
        return f"can not pass: in a preview it can not be {missing}."
    if not standing.seen:
        arms = "both revisions" if standing.compared else "the preview"
        return f"needs {trials_of(metric)} of {arms}."
    lacks = []
    if standing.log_e_goal < -math.log(beta):
        goal = "better" if standing.goal is Goal.SUPERIOR else f"worse by less than {points(metric.margin)}"
        lacks.append(f"odds of {to_one(1 / beta)} that it is {goal} (now {_one(standing.log_e_goal)})")
    if bound is not None and bound.odds_under < 1 / beta:
        under = f"it is under its bound of {percent(bound.bound)}"
        lacks.append(f"odds of {to_one(1 / beta)} that {under} (now {to_one(bound.odds_under)})")
    if not lacks:
        return ""
    good = f"better by {points(metric.margin)}" if standing.goal is Goal.SUPERIOR else "as good as stable"
    if not standing.compared or facts.canary_trials is None:
        return f"needs {' and '.join(lacks)}."
    more = "which never come if it is as good as stable"
    if math.isfinite(facts.canary_trials):
        more = f"about {about(facts.canary_trials)} more {trials_of(metric)} of the canary if it is {good}"
    return f"needs {' and '.join(lacks)}: {more}."


def _failed(metric: Metric) -> str:
    """How a failed trial is called."""
    match metric.type:
        case MetricType.ERRORS | MetricType.CUSTOM:
            return "failed"
        case MetricType.LATENCY:
            return f"took longer than {metric.slower_than:g} s"
        case MetricType.ACCURACY | MetricType.PRECISION:
            return "wrong"
        case MetricType.RECALL:
            return "missed"
        case MetricType.F1:
            return "missed or mistaken for it"
        case MetricType.REGRESSION:
            return f"off by more than {metric.within:g}"
        case MetricType.RESTARTS:
            return "pod minutes with a restart"


def _rates(counts: Strata) -> tuple[list[float], list[float]]:
    """Each stratum's share of failures, in the canary and in the stable arm."""
    canary = [failures / max(1, trials) for failures, trials, _, _ in counts]
    stable = [failures / max(1, trials) for _, _, failures, trials in counts]
    return canary, stable


def _one(log_e: object) -> str:
    return to_one(odds(float(log_e)))  # type: ignore[arg-type]  # a number, in one rollout
