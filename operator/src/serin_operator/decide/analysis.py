"""From counters to a judgement: what each metric shows, and what all of them together ask for.

    calibrate … calibrate ─► begin ─► step ─► judge … judge ─► step ─► judge … ─► watch ─► judge …

Each takes the state that the one before gave, as text for `status`. One e-process spans all of it, so the chance of a
false rollback is at most alpha from the first request to the end of the watch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from serin_operator.api.spec import Analysis, Shadow
from serin_operator.api.status import MetricReport, Remark
from serin_operator.decide import calibration, evidence, one_arm, paired_forecast, pairs, remarks, reports, tracks
from serin_operator.decide.evidence import Counts
from serin_operator.decide.forecast import Prospect
from serin_operator.decide.keys import REQUESTS
from serin_operator.decide.lineup import aligned, keys_of
from serin_operator.decide.looks import baseline, look
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.pairs import Totals
from serin_operator.decide.standings import Tested, facts, prospect, standings
from serin_operator.decide.standings import prospects as prospects_of
from serin_operator.decide.tracks import Arms, Plain, State
from serin_operator.decide.verdict import Action, Finding, Verdict, odds_alone, verdict
from serin_operator.decide.words import to_one


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one look at the counters led to.

    state: to be kept until the next look.
    problem: why nothing or not all could be seen this time, if so; the verdict then stands on what was known before.
    canary_trials: per metric that guards or gates, what the canary has counted since the rollout began.
    unmeasurable: gates that can not pass here, since they ask for a comparison and the arms are not compared.
    prospects: of every gate, for a forecast.
    exposed: requests that the canary has had. per_second: requests of both revisions of late; None while unknown.
    worst_excess: the largest excess of the canary's share of failed requests that is not excluded on some guard; 1.0
        while one has no data, or none counts requests. If effects are constant, it is above the largest true excess
        with probability 1 - alpha - beta at all looks at once: the limit of that one metric need hold, and the largest
        is no lower.
    share_mismatch: whether the canary does not get the share of the requests that is configured.
    """

    state: str
    reports: tuple[MetricReport, ...]
    verdict: Verdict
    needed: str
    canary_trials: Mapping[str, int]
    unmeasurable: tuple[str, ...]
    prospects: tuple[Prospect, ...]
    exposed: int
    per_second: float | None
    worst_excess: float
    share_mismatch: bool
    remarks: tuple[Remark, ...]
    reasons: Mapping[str, str]
    problem: str | None = None

    @property
    def both_over(self) -> tuple[str, ...]:
        """Metrics whose bound both revisions break."""
        return self.verdict.both_over

    @property
    def summary(self) -> str:
        """One sentence per metric, and what it takes."""
        return " ".join([*(f"{report.name}: {report.message}" for report in self.reports), self.needed])

    def without_new_trials(self, before: Mapping[str, int]) -> list[str]:
        """Metrics for which the canary counted nothing since `before`; fewer than then are of a count begun anew."""
        return [name for name, trials in self.canary_trials.items() if trials in (0, before.get(name, 0))]

    def reason_for_rollback(self) -> tuple[str, str]:
        """The reason and the sentence of a rollback; the verdict's metric is named in the sentence."""
        metric = self.verdict.metric or ""
        report = next(report for report in self.reports if report.name == metric)
        over = self.verdict.finding is Finding.OVER_BOUND
        return reports.OVER_BOUND if over else self.reasons[metric], f"{metric}: {report.message}"


def calibrate(analysis: Analysis, state: str, snapshot: Snapshot, stable: str, now: float) -> str:
    """Before the first step: how much the stable revision's pods scatter, and its traffic. state: "" at first.

    Raises ValueError when `state` is not one that this version wrote.
    """
    if snapshot.problem:
        return state
    before = calibration.load(state) if state else None
    return calibration.dump(calibration.grow(before, analysis, snapshot, stable, now))


def prospects(analysis: Analysis, calibrated: str, shadow: Shadow | None = None) -> tuple[Prospect, ...]:
    """What a forecast needs of every gate before the rollout; calibrated: of `calibrate`, may be "".

    shadow: what the canary gets first, if so. Its answers come on top of clients', and none were paired yet.
    """
    known = calibration.load(calibrated) if calibrated else None
    alone = odds_alone(analysis.metrics, alpha=analysis.false_rollback_rate)
    found = []
    for metric in analysis.metrics:
        if not metric.gates:
            continue
        keys = calibration.counted(analysis, metric, known.ledgers) if known else []
        totals = [known.totals[key] for key in keys if key in known.totals] if known else []
        stable = [(total.failures, total.trials) for total in totals or [Counts()]]
        per_minute, phi = (known.per_minute(keys), known.phi(keys)) if known else (0.0, 1.0)
        if shadow is not None:
            per_minute *= 1 + shadow.percent / 100
        gate = prospect(analysis, metric, stable, per_minute=per_minute, phi=phi, alone=alone.get(metric.name))
        paired = shadow is not None and metric in pairs.paired_metrics(analysis)
        found.append(paired_forecast.by_pairs(gate, Totals(), 0.0) if paired else gate)
    return tuple(found)


def begin(
    analysis: Analysis,
    snapshot: Snapshot,
    canary: str,
    stable: str,
    now: float,
    calibrated: str = "",
    *,
    shadow: bool = False,
) -> str:
    """The state at the start of a rollout: no evidence, and everything counted so far is history.

    That history is not tested, but tells the stable revision's rates. calibrated: of `calibrate`, may be "". The
    overdispersion that it shows is frozen. shadow: whether the canary gets copies of requests first.
    """
    known = calibration.load(calibrated) if calibrated else None
    phi = {
        metric.name: known.phi(calibration.counted(analysis, metric, known.ledgers))
        for metric in analysis.metrics
        if known is not None
    }
    empty = State(
        since=now,
        at=now,
        promoted_at=None,
        warming=0,
        exposed=0,
        expected_share=0.0,
        ledgers={},
        rates={},
        plain=Plain((), tracks.no_tests()),
        macros=(),
        arms=Arms((), np.zeros((0, 2), np.int64), one_arm.start(0)),
        pairs=pairs.start(analysis, stable) if shadow else None,
    )
    state = aligned(empty, analysis, snapshot, stable, phi)
    ledgers = {
        key: (baseline(snapshot, key, canary), baseline(snapshot, key, stable)) for key in keys_of(state, analysis)
    }
    return tracks.dump(replace(state, ledgers=ledgers, rates=known.rates() if known else {}))


def step(analysis: Analysis, state: str) -> str:
    """The state at a new weight: harm may begin here, and the first looks are not tested."""
    before = tracks.load(state)
    following = replace(
        before,
        warming=analysis.warm_up,
        plain=replace(before.plain, tests=evidence.onset(before.plain.tests)),
        macros=tuple(replace(one, test=evidence.onset(one.test)) for one in before.macros),
        pairs=pairs.onset(before.pairs) if before.pairs is not None else None,
    )
    return tracks.dump(following)


def watch(analysis: Analysis, state: str) -> str:
    """The state at a promotion, for the time in which late evidence can still take it back.

    The canary is still the one on trial, but the old stable gets no more traffic. As long as labels of predictions from
    before the promotion come in (for `label_window`), both arms' labels go on being compared. Everything else that the
    promoted revision counts is tested against the old stable's record: is its rate over the upper confidence limit of
    the record plus the margin?

    Level: both tests continue one e-process per guard, M. After the promotion it is M · W, with W the e-process of the
    promoted revision against the limit, which begins at 1. As long as the old stable's rate is below its limit, a
    canary that is not worse makes M · W an e-process, so the weighted mean over the guards reaches 1/alpha with
    probability at most alpha, and W needs no stake of its own. For the chance that a limit is wrong, WATCH_SHARE of the
    mean's weight is set aside from the beginning (verdict.py): the limit of guard i holds until the e-value A_i of the
    record reaches 1 / (alpha · WATCH_SHARE · w_i), where w_i is its part of the weight. Then
    (1 - WATCH_SHARE) · mean + WATCH_SHARE · sum of w_i A_i has mean at most 1 as well, and whichever goes wrong (a
    rollback in the rollout, a limit, a rollback in the watch) makes it reach 1/alpha: together with probability at most
    alpha. The record speaks for a stable rate that stays as it was on average; the margin is what is left for drift.
    """
    before = tracks.load(state)
    return tracks.dump(aligned(replace(before, promoted_at=before.at, warming=analysis.warm_up), analysis))


def judge(
    analysis: Analysis,
    state: str,
    snapshot: Snapshot,
    canary: str,
    stable: str,
    now: float,
    *,
    weight: int | None,
    mirror: int = 0,
    alike: bool = True,
) -> Judgement:
    """Takes in what the counters show beyond `state`. The same snapshot again changes nothing.

    weight: the canary's weight, or of a shadow the part of the requests that it gets copies of, in per cent, if it was
    verified to serve during the whole time since the last look; else None, and the canary's share of the traffic is not
    tested. mirror: not 0 while the canary is a shadow. alike: whether both arms get requests of the same kind during
    the rollout; else they are not compared, and only bounds are tested. Raises ValueError when `state` is not one that
    this version wrote.
    """
    if snapshot.problem:
        return recall(analysis, state, snapshot.problem, mirror=mirror, alike=alike)
    # Of n requests that stable answers, the shadow answers n · p / 100 as well.
    share = None if weight is None else weight / (100 + weight) if mirror else weight / 100
    seen = look(tracks.load(state), analysis, snapshot, (canary, stable), now, share, shadow=mirror > 0, alike=alike)
    problems = [*([f"no counters from {', '.join(snapshot.unread)}"] if snapshot.unread else []), *seen.problems]
    text, problem = tracks.dump(seen.state), "; ".join(problems) or None
    judged = _judgement(analysis, seen.state, text, problem, shadow=mirror > 0, alike=alike)
    if not mirror:
        return judged
    return replace(judged, remarks=(*judged.remarks, *remarks.of_pairs(seen.state, analysis, snapshot, canary)))


def recall(analysis: Analysis, state: str, problem: str | None, *, mirror: int = 0, alike: bool = True) -> Judgement:
    """The judgement that `state` holds when there is nothing new to look at, under the margins of now.

    problem: why the last look saw nothing, if so. Raises ValueError as `judge`.
    """
    return _judgement(analysis, aligned(tracks.load(state), analysis), state, problem, shadow=mirror > 0, alike=alike)


def _trials(tested: Tested) -> int:
    """What the canary counted; of a shadow also answers without a label, which tell something as well."""
    return tested.canary.trials + (tested.numbers.pairs.all if tested.numbers.pairs is not None else 0)


def _judgement(
    analysis: Analysis, state: State, text: str, problem: str | None, *, shadow: bool, alike: bool
) -> Judgement:
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    found = standings(state, analysis, alike=alike)
    decided = verdict(found.verdicts, alpha=alpha, beta=beta)
    if decided.action is Action.PROMOTE and state.promoted_at is not None:
        decided = replace(decided, action=Action.WAIT)
    gates = prospects_of(state, analysis, found, shadow=shadow) if alike else ()
    told = facts(state, analysis, found, gates)
    exposing = [each.numbers for each in found.tested if each.metric.guards and each.metric.per_request]
    return Judgement(
        state=text,
        reports=tuple(reports.report(each, alpha=alpha, beta=beta) for each in told),
        verdict=decided,
        needed=f"(Rolls back at {to_one(1 / alpha)} over all guards, promotes at {to_one(1 / beta)} on each gate.)",
        canary_trials={
            each.metric.name: _trials(each)
            for each in found.tested
            if (each.metric.guards or each.metric.gates) and (alike or each.metric.bound is not None)
        },
        unmeasurable=tuple(each.name for each in found.verdicts if each.gates and not each.can_pass),
        prospects=gates,
        exposed=state.exposed,
        per_second=state.per_minute(REQUESTS) / 60 or None,
        worst_excess=max((each.limit for each in exposing), default=1.0),
        share_mismatch=remarks.share_mismatch(state),
        remarks=remarks.remarks(state, analysis, found),
        reasons={metric.name: reports.ROLLBACK_REASONS[metric.type] for metric in analysis.metrics},
        problem=problem,
    )
