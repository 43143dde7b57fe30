"""Where every metric stands after a look: out of the batches of tests, metric by metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from serin_operator.api.spec import Analysis, Metric
from serin_operator.api.status import Tally
from serin_operator.decide import evidence, one_arm, paired_forecast, pairs
from serin_operator.decide.evidence import Evidence
from serin_operator.decide.forecast import Prospect, canary_trials
from serin_operator.decide.keys import labelled, macro, metric_key, pair_keys
from serin_operator.decide.lineup import COVERAGE, against_record, over_bound, strata
from serin_operator.decide.looks import record_limit
from serin_operator.decide.pairs import PairNumbers, Totals
from serin_operator.decide.reports import Facts, Since, Strata, trials_of
from serin_operator.decide.tracks import State
from serin_operator.decide.verdict import BoundOdds, Standing, odds_alone


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """One test. counts: per stratum, as `evidence.Evidence.total` has them. difference: nan while nothing is tested.

    limit: `evidence.upper_limit`. phi: overdispersion. pairs: those in it, if there are any.
    """

    counts: Strata
    difference: float
    low: float
    high: float
    limit: float
    log_e_worse: float
    log_e_non_inferior: float
    log_e_superior: float
    phi: float
    pairs: Totals | None = None

    @property
    def seen(self) -> bool:
        """Whether both arms' counts were compared at all."""
        return not math.isnan(self.difference)

    def with_pairs(self, pairs: PairNumbers) -> "Numbers":
        """With the evidence from pairs of before, which this multiplies, as that of one e-process.

        Numbers for people are of what both arms counted side by side; before they did, those of the pairs.
        """
        totals = pairs.totals
        told = self if self.seen else replace(self, difference=pairs.difference, low=pairs.low, high=pairs.high)
        of_pairs = (totals.canary_wrong, totals.labelled, totals.stable_wrong, totals.labelled)
        return replace(
            told,
            counts=[[own + more for own, more in zip(self.counts[0], of_pairs, strict=True)]],
            limit=self.limit if self.seen else min(self.limit, pairs.high),
            log_e_worse=self.log_e_worse + pairs.log_e_worse,
            log_e_non_inferior=self.log_e_non_inferior + pairs.log_e_non_inferior,
            log_e_superior=self.log_e_superior + pairs.log_e_superior,
            pairs=totals,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """A metric with its test. classes: of an average, else empty. keys: what it counts, one per class if it has any.

    alone: what the canary has counted where the arms are not compared; None where they are.
    """

    metric: Metric
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    numbers: Numbers
    alone: Tally | None = None

    @property
    def canary(self) -> Tally:
        """All that the canary has counted."""
        counts = self.numbers.counts
        return self.alone or Tally(sum(stratum[0] for stratum in counts), sum(stratum[1] for stratum in counts))


@dataclass(frozen=True, slots=True, eq=False)
class Standings:
    """All metrics in the order of the analysis; the labels' coverage, if it is compared; `verdict.odds_alone`."""

    tested: tuple[Tested, ...]
    verdicts: tuple[Standing, ...]
    coverage: Numbers | None
    alone: Mapping[str, float]


def standings(state: State, analysis: Analysis, *, alike: bool = True) -> Standings:
    """Of a state that is aligned with the analysis. alike: whether the arms are compared."""
    plain = dict(zip((row.name for row in state.plain.rows), _numbers(state.plain.tests, analysis), strict=True))
    if state.pairs is not None and state.pairs.totals.all:
        alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
        for name, of_pairs in pairs.numbers(state.pairs, alpha=alpha, beta=beta).items():
            plain[name] = plain[name].with_pairs(of_pairs)
    averages = {one.row.name: one for one in state.macros}
    found = []
    for metric in analysis.metrics:
        if macro(metric):
            one = averages[metric.name]
            keys = strata(analysis, metric, one.classes)
            numbers = _numbers(one.test, analysis)[0]
            found.append(Tested(metric, tuple(keys), one.classes, numbers, _alone(state, metric, alike)))
        else:
            keys = [metric_key(metric, analysis.label_window)]
            found.append(Tested(metric, tuple(keys), (), plain[metric.name], _alone(state, metric, alike)))
    over = dict(zip(state.arms.names, one_arm.log_e_over(state.arms.tests).tolist(), strict=True))
    under = dict(zip(state.arms.names, one_arm.log_e_under(state.arms.tests).tolist(), strict=True))
    verdicts = tuple(_standing(each, over, under) for each in found)
    alone = odds_alone(analysis.metrics, alpha=analysis.false_rollback_rate)
    return Standings(tuple(found), verdicts, plain.get(COVERAGE), alone)


def prospects(state: State, analysis: Analysis, found: Standings, *, shadow: bool) -> tuple[Prospect, ...]:
    """What a forecast needs of every gate. shadow: whether the canary only gets copies."""
    gates = tuple(
        prospect(
            analysis,
            each.metric,
            [(failures, trials) for _, _, failures, trials in each.numbers.counts],
            per_minute=state.per_minute(*each.keys),
            phi=each.numbers.phi,
            alone=found.alone.get(each.metric.name),
            standing=standing,
            under_way=(state.at - state.since) / 60,
        )
        for each, standing in zip(found.tested, found.verdicts, strict=True)
        if each.metric.gates
    )
    if state.pairs is None or not shadow:
        return gates
    names, totals = state.pairs.names, state.pairs.totals
    per_minute = state.per_minute(pair_keys(state.pairs.stable, state.pairs.window)[0])
    return tuple(paired_forecast.by_pairs(gate, totals, per_minute) if gate.name in names else gate for gate in gates)


def prospect(
    analysis: Analysis,
    metric: Metric,
    stable: Sequence[tuple[int, int]],
    *,
    per_minute: float,
    phi: float,
    alone: float | None,
    standing: Standing | None = None,
    under_way: float = 0.0,
) -> Prospect:
    """What a forecast needs of one gate.

    stable: failures and trials per stratum. alone: of `verdict.odds_alone`. standing: None before the rollout.
    under_way: minutes since it began.
    """
    failure_rate, spread = _pooled(stable)
    enough = -math.log(analysis.false_promotion_rate)
    under = float(standing.bound[1]) if standing and standing.bound else 0.0
    return Prospect(
        name=metric.name,
        trials=trials_of(metric),
        goal=metric.goal,
        tolerance=metric.tolerance,
        margin=metric.margin,
        failure_rate=failure_rate,
        per_minute=per_minute,
        phi=phi * spread,
        missing=enough - (float(standing.log_e_goal) if standing else 0.0),
        for_rollback=None if alone is None else math.log(alone),
        bound=metric.bound,
        missing_under=0.0 if metric.bound is None else enough - under,
        delay=analysis.label_window / 60 if labelled(metric) else 0.0,
        under_way=under_way,
    )


def facts(state: State, analysis: Analysis, found: Standings, gates: Sequence[Prospect]) -> list[Facts]:
    """What people read of each metric."""
    weights = {each.metric.name: _canary_share(each.numbers.counts) for each in found.tested}
    by_arms = canary_trials(gates, [weights[gate.name] for gate in gates])
    needed = {
        gate.name: paired_forecast.labels_missing(gate) if gate.paired else trials
        for gate, trials in zip(gates, by_arms, strict=True)
    }
    return [
        Facts(
            metric=each.metric,
            standing=standing,
            classes=each.classes,
            counts=each.numbers.counts,
            difference=each.numbers.difference,
            low=each.numbers.low,
            high=each.numbers.high,
            odds_alone=found.alone.get(each.metric.name),
            canary_trials=needed.get(each.metric.name, 0.0),
            since=_since(state, analysis, each.metric),
            pairs=each.numbers.pairs,
            alone=each.alone,
        )
        for each, standing in zip(found.tested, found.verdicts, strict=True)
    ]


def _numbers(tests: Evidence, analysis: Analysis) -> list[Numbers]:
    """Of every test of a batch."""
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    columns = (
        evidence.difference(tests),
        *evidence.interval(tests, alpha=alpha, beta=beta).T,
        evidence.upper_limit(tests, alpha=alpha, beta=beta),
        evidence.log_e_worse(tests),
        evidence.log_e_non_inferior(tests),
        evidence.log_e_superior(tests),
        tests.phi,
    )
    return [Numbers(*each) for each in zip(tests.total.tolist(), *(each.tolist() for each in columns), strict=True)]


def _standing(each: Tested, over: dict[str, float], under: dict[str, float]) -> Standing:
    metric, numbers = each.metric, each.numbers
    bound = None
    if metric.bound is not None:
        canary, stable = over_bound(metric, "canary"), over_bound(metric, "stable")
        bound = BoundOdds(over[canary], under[canary], over[stable])
    return Standing(
        name=metric.name,
        guards=metric.guards,
        gates=metric.gates,
        weight=metric.weight,
        goal=metric.goal,
        # After a promotion the same e-process goes on against the old stable's record (see `analysis.watch`).
        log_e_worse=numbers.log_e_worse + over.get(against_record(metric), 0.0),
        log_e_non_inferior=numbers.log_e_non_inferior,
        log_e_superior=numbers.log_e_superior,
        bound=bound,
        seen=numbers.seen if each.alone is None else each.alone.trials > 0 or metric.bound is None,
        compared=each.alone is None,
    )


def _alone(state: State, metric: Metric, alike: bool) -> Tally | None:
    """What the canary has counted by itself: known of metrics with a bound."""
    if alike:
        return None
    if metric.bound is None:
        return Tally(0, 0)
    failures, trials = state.arms.counts[state.arms.place(over_bound(metric, "canary"))].tolist()
    return Tally(failures, trials)


def _since(state: State, analysis: Analysis, metric: Metric) -> Since | None:
    if against_record(metric) not in state.arms.names:
        return None
    place = state.arms.place(against_record(metric))
    failures, trials = state.arms.counts[place].tolist()
    log_e = float(one_arm.log_e_over(state.arms.tests)[place])
    return Since(Tally(failures, trials), record_limit(state, analysis, metric), log_e)


def _pooled(stable: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """The mean of the strata's rates, and how much less a trial tells about it than one of a single stratum.

    The mean of K rates f_k, known from parts p_k of the trials, has the variance mean(f_k (1 - f_k) / p_k) / K of a
    trial, where a single rate f has f (1 - f).
    """
    rates = [(1 + failures) / (10 + trials) for failures, trials in stable]
    all_trials = sum(trials + 1 for _, trials in stable)
    mean = sum(rates) / len(stable)
    each = (f * (1 - f) * all_trials / (trials + 1) for f, (_, trials) in zip(rates, stable, strict=True))
    return mean, sum(each) / len(stable) ** 2 / (mean * (1 - mean))


def _canary_share(counts: Strata) -> float:
    """The canary's part of the trials in per cent; a tenth as long as an arm has none."""
    canary, stable = (sum(stratum[place] for stratum in counts) for place in (1, 3))
    return 100 * canary / (canary + stable) if canary and stable else 10.0
