"""The watch after a promotion: evidence that comes late, such as labels, can still take it back.

The old stable revision stays warm for as long, so taking back is one change of the route. The routers have known it
since before the promotion, and do until it is retired: whatever route they serve by now, this change loses nothing.
Where pods of it are missing they are waited for, but not for ever: a model that is worse serves meanwhile.
"""

from dataclasses import replace

from serin_operator.api.spec import Analysis
from serin_operator.api.status import Status, Watch
from serin_operator.decide import analysis
from serin_operator.decide.capacity import missing_to_go_back
from serin_operator.decide.clocks import due_at
from serin_operator.decide.conditions import Activity, what_was_not_seen
from serin_operator.decide.observed import Observed, Workload
from serin_operator.decide.roles import compares
from serin_operator.decide.transitions import take_back
from serin_operator.decide.verdict import Action

LEAST_INTERVAL = 10.0  # seconds between looks: what comes late is not urgent


def next_look(watch: Watch, spec: Analysis, now: float) -> float:
    """When the counters are to be read again: the last time is the watch's end."""
    return min(due_at(watch.evidence_at, max(spec.interval, LEAST_INTERVAL), now), watch.until)


def look_after(observed: Observed, status: Status, now: float) -> tuple[Status, Activity]:
    """One pass over a promotion that is watched."""
    watch, promoted, old = status.watch, status.stable, status.previous
    assert watch and promoted and old
    try:
        judged, status = _judge(observed, status, watch, now)
    except ValueError as error:
        text = f"The stored evidence can not be read ({error}), so late evidence does not count for this promotion."
        return _unless_over(status, watch, Activity("EvidenceUnreadable", text, stalled=True), now)
    watch = status.watch or watch
    if judged.verdict.action is not Action.ROLL_BACK:
        status = replace(status, watch=replace(watch, worse_since=None))
        return _unless_over(status, watch, Activity.none(), now)

    reason, sentence = judged.reason_for_rollback()
    since = now if watch.worse_since is None else min(watch.worse_since, now)
    missing = missing_to_go_back(observed, status, now)
    patient = now < min(since + observed.spec.server.ready_timeout, watch.until)
    if missing is None or (not patient and observed.workloads.get(old.revision, Workload()).ready > 0):
        return take_back(observed, status, reason, f"After promotion: {sentence}", now)
    status = replace(status, watch=replace(watch, worse_since=since))
    text = (
        f"{promoted.version} turns out to be worse ({sentence}), but only {missing} to take over. "
        f"{promoted.version} goes on serving: see to the pods of {old.version}, or apply a mended spec."
    )
    return _unless_over(status, watch, Activity("PreviousNotReady", text, stalled=True), now)


def _judge(observed: Observed, status: Status, watch: Watch, now: float) -> tuple[analysis.Judgement, Status]:
    spec = observed.spec.analysis
    if observed.snapshot is None:
        judged = analysis.recall(spec, watch.evidence, what_was_not_seen(status), alike=compares(watch.strategy))
        return judged, replace(status, metrics=judged.reports)
    judged = analysis.judge(
        spec,
        watch.evidence,
        observed.snapshot,
        watch.revision,
        watch.against,
        now,
        weight=None,
        alike=compares(watch.strategy),
    )
    watch = replace(watch, evidence=judged.state, evidence_at=now)
    return judged, replace(status, watch=watch, metrics=judged.reports)


def _unless_over(status: Status, watch: Watch, activity: Activity, now: float) -> tuple[Status, Activity]:
    return (replace(status, watch=None), Activity.none()) if now >= watch.until else (status, activity)
