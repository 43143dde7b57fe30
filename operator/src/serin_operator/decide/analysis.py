"""From counters to a judgement: what each metric shows, and what all of them together ask for."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from serin_operator.api.spec import Analysis, Metric
from serin_operator.api.status import MetricReport, Tally
from serin_operator.decide import counters, evidence
from serin_operator.decide.counters import Ledger
from serin_operator.decide.evidence import Action, Block, Counts, Evidence, Finding, Verdict
from serin_operator.decide.observed import Snapshot

MOST_ODDS = 1e9  # odds are shown no higher than this
_FAILURE_WORDS = {"errors": "failed", "latency": "slow", "accuracy": "wrong"}
_ROLLBACK_REASONS = {"errors": "MoreErrors", "latency": "Slower", "accuracy": "LessAccurate"}


@dataclass(frozen=True, slots=True)
class Track:
    """One metric's evidence with the ledgers that say how far each arm's counters are counted.

    since: when counting began, in seconds since the epoch. What an older process counted before is history, also
    when the process could not be read then.
    """

    since: float
    canary: Ledger
    stable: Ledger
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one look at the counters led to.

    state: to be kept until the next look. tests: the evidence by metric, since the rollout began.
    needed: which odds decide.
    problem: why nothing could be seen this time, if so; the verdict then stands on what was known before.
    """

    state: str
    reports: tuple[MetricReport, ...]
    verdict: Verdict
    tests: Mapping[str, Evidence]
    needed: str
    problem: str | None = None

    @property
    def summary(self) -> str:
        """One sentence per metric, and what it takes."""
        return " ".join([*(f"{report.name}: {report.message}" for report in self.reports), self.needed])

    @property
    def canary_trials(self) -> dict[str, int]:
        """Per metric, what the canary has counted since the rollout began."""
        return {name: test.total.canary.trials for name, test in self.tests.items()}

    def minutes_left(self, before: Mapping[str, int], elapsed: float, weight: int, beta: float) -> float:
        """Minutes to plan for until promotion, if the canary is good and the traffic stays as it is; may be inf.

        before: `canary_trials` when the step began, `elapsed` seconds ago. weight: the canary's share in per cent.
        """
        waits = []
        for name, test in self.tests.items():
            canary = (test.total.canary.trials - before.get(name, 0)) / elapsed * 60 if elapsed > 0 else 0.0
            stable = canary * (100 - weight) / weight
            waits.append(evidence.forecast(test, canary_per_minute=canary, stable_per_minute=stable, beta=beta))
        return max(waits, default=math.inf)

    def without_new_trials(self, before: Mapping[str, int]) -> list[str]:
        """Metrics for which the canary counted nothing since `before`; fewer than then are of a count begun anew."""
        return [name for name, trials in self.canary_trials.items() if trials in (0, before.get(name, 0))]

    def reason_for_rollback(self) -> tuple[str, str]:
        """The reason and the sentence of a rollback; the verdict's metric is named in both."""
        metric = self.verdict.metric or ""
        report = next(report for report in self.reports if report.name == metric)
        return _ROLLBACK_REASONS[metric], f"{metric}: {report.message}"


def metric_key(metric: Metric) -> str:
    """Names what is counted: another latency bound counts other requests."""
    return f"{metric.name}@{metric.slower_than:g}" if metric.slower_than else metric.name


def begin(analysis: Analysis, snapshot: Snapshot, canary: str, stable: str, now: float) -> str:
    """The state at the start of a rollout: no evidence, and everything counted so far is history."""
    return _dump({metric_key(m): _fresh(m, snapshot, canary, stable, now) for m in analysis.metrics})


def judge(analysis: Analysis, state: str, snapshot: Snapshot, canary: str, stable: str, now: float) -> Judgement:
    """Takes in what the counters show beyond `state`. The same snapshot again changes nothing.

    Raises ValueError when `state` is not one that this version wrote.
    """
    tracks = _load(state)
    if snapshot.problem:
        return _judgement(analysis, tracks, snapshot.problem)
    following = {}
    for metric in analysis.metrics:
        key = metric_key(metric)
        track = tracks.get(key)
        if track is not None:
            following[key] = _advance(metric, track, snapshot, canary, stable)
        else:  # the metric was added while the rollout runs
            following[key] = _fresh(metric, snapshot, canary, stable, now)
    problem = f"no counters from {', '.join(snapshot.unread)}" if snapshot.unread else None
    return _judgement(analysis, following, problem)


def recall(analysis: Analysis, state: str, problem: str | None) -> Judgement:
    """The judgement that `state` holds when there is nothing new to look at, under the margins of now.

    problem: why the last look saw nothing, if so.
    """
    tracks = _load(state)
    for metric in analysis.metrics:
        if track := tracks.get(metric_key(metric)):
            tracks[metric_key(metric)] = replace(track, evidence=_retargeted(metric, track))
    return _judgement(analysis, tracks, problem)


def _fresh(metric: Metric, snapshot: Snapshot, canary: str, stable: str, now: float) -> Track:
    # A process that was read but has no such counter yet starts at 0: what it counts from now on is news.
    nothing = dict.fromkeys(snapshot.processes, Counts())
    return Track(
        now,
        counters.baseline(nothing | dict(_series(snapshot, metric, canary))),
        counters.baseline(nothing | dict(_series(snapshot, metric, stable))),
        evidence.start(tolerance=metric.tolerance, margin=metric.margin),
    )


def _advance(metric: Metric, track: Track, snapshot: Snapshot, canary: str, stable: str) -> Track:
    canary_ledger, canary_counts = _count(track.canary, track.since, snapshot, metric, canary)
    stable_ledger, stable_counts = _count(track.stable, track.since, snapshot, metric, stable)
    current = evidence.update(_retargeted(metric, track), Block(canary_counts, stable_counts))
    return Track(track.since, canary_ledger, stable_ledger, current)


def _retargeted(metric: Metric, track: Track) -> Evidence:
    return evidence.retarget(track.evidence, tolerance=metric.tolerance, margin=metric.margin)


def _count(ledger: Ledger, since: float, snapshot: Snapshot, metric: Metric, revision: str) -> tuple[Ledger, Counts]:
    series = _series(snapshot, metric, revision)
    gone = [one for one in ledger.counted if one.partition("/")[0] not in snapshot.pods]
    historic = [one for one in series if float(one.partition("/")[2]) < since]
    return counters.advance(ledger, series, historic=historic, gone=gone)


def _series(snapshot: Snapshot, metric: Metric, revision: str) -> Mapping[str, Counts]:
    return snapshot.samples.get(metric_key(metric), {}).get(revision, {})


def _judgement(analysis: Analysis, tracks: Mapping[str, Track], problem: str | None) -> Judgement:
    tests = {
        metric.name: tracks[metric_key(metric)].evidence for metric in analysis.metrics if metric_key(metric) in tracks
    }
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    verdict = evidence.verdict(tests, alpha=alpha, beta=beta) if tests else Verdict(Action.WAIT)
    if verdict.action is Action.PROMOTE and len(tests) < len(analysis.metrics):
        verdict = Verdict(Action.WAIT)
    return Judgement(
        state=_dump(tracks),
        reports=tuple(_report(name, test, alpha, beta) for name, test in tests.items()),
        verdict=verdict,
        tests=tests,
        needed=f"(Rolls back at {1 / alpha:g} : 1 on average over the metrics, promotes at {1 / beta:g} : 1 on each.)",
        problem=problem,
    )


def _report(name: str, test: Evidence, alpha: float, beta: float) -> MetricReport:
    found = evidence.finding(test, alpha=alpha, beta=beta)
    low, high = evidence.interval(test, alpha=alpha, beta=beta)
    seen = found is not Finding.NO_DATA
    worse, good_enough = _odds(evidence.log_e_worse(test)), _odds(evidence.log_e_non_inferior(test))
    total = test.total
    report = MetricReport(
        name=name,
        verdict=found.value,
        canary=Tally(total.canary.failures, total.canary.trials),
        stable=Tally(total.stable.failures, total.stable.trials),
        odds_worse=worse,
        odds_non_inferior=good_enough,
        message="",
        difference=evidence.difference(test),
        low=low if seen else None,
        high=high if seen else None,
    )
    return replace(report, message=_message(report))


def _message(report: MetricReport) -> str:
    """What a report says, as a sentence for people."""
    word = _FAILURE_WORDS[report.name]
    if report.difference is None or report.low is None or report.high is None:
        missing = "canary" if report.canary.trials == 0 else "stable"
        return f"no data from the {missing} revision yet."
    return (
        f"{_share(report.canary)} {word} against {_share(report.stable)} of stable, "
        f"difference {report.difference * 100:+.2f} points "
        f"({report.low * 100:+.2f} to {report.high * 100:+.2f}); "
        f"odds {_shown(report.odds_worse)} : 1 that it is worse, "
        f"{_shown(report.odds_non_inferior)} : 1 that it is good enough."
    )


def _share(tally: Tally) -> str:
    return f"{100 * tally.failures / tally.trials:.2f} % of {tally.trials}"


def _odds(log_e: float) -> float:
    return float(f"{math.exp(min(log_e, math.log(MOST_ODDS))):.6g}")


def _shown(odds: float) -> str:
    return f"{odds:.2g}" if odds < 10 else f"{odds:.0f}"


def _dump(tracks: Mapping[str, Track]) -> str:
    value = {
        key: {
            "since": track.since,
            "canary": track.canary.to_json(),
            "stable": track.stable.to_json(),
            "evidence": track.evidence.to_json(),
        }
        for key, track in tracks.items()
    }
    return json.dumps(value, separators=(",", ":"))


def _load(state: str) -> dict[str, Track]:
    value: dict[str, Any] = json.loads(state)
    return {
        key: Track(
            float(raw["since"]),
            Ledger.from_json(raw["canary"]),
            Ledger.from_json(raw["stable"]),
            Evidence.from_json(raw["evidence"]),
        )
        for key, raw in value.items()
    }
