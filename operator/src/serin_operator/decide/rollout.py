"""The life of one ModelDeployment, one pass at a time: `decide(observed, now)` gives the next status.

    Pending ──first revision serves──► Serving ──spec changes──► Progressing ──evidence──► Serving (promoted)
                                          ▲                          │
                                          └── spec is mended ── RolledBack (worse, or it can not run)

A weight rises only when the weight before it was seen serving, every judged metric has counted canary trials at
it, its time has passed and nothing speaks against it. Whatever is uncertain holds; only evidence promotes.
"""

import math
from dataclasses import dataclass, replace

from serin_operator.api import LABEL_COMPONENT, LABEL_OWNER, LABEL_REVISION
from serin_operator.api.spec import OnInconclusive, Spec
from serin_operator.api.status import (
    Failure,
    Phase,
    Record,
    Resolved,
    Revision,
    Rollout,
    Status,
)
from serin_operator.decide import analysis
from serin_operator.decide.conditions import Activity, with_conditions
from serin_operator.decide.evidence import Action
from serin_operator.decide.observed import Observed, Route, Router, Snapshot, Trouble, Workload
from serin_operator.decide.revisions import pinned, revision_of
from serin_operator.decide.transitions import begin, promote, reject, revert, supersede, to_step

ROUTE_POLL_SECONDS = 0.3  # while a written route is not yet seen serving
MOST_RETIRING = 8  # more revisions than this never run besides those with a role; a newer one waits
READY_POLL_SECONDS = 1.0  # while pods start; their events wake the loop as well


@dataclass(frozen=True, slots=True)
class Decision:
    """The status to write, whether a resolver pod shall run, and the latest time to look again (None: on events)."""

    status: Status
    resolve: bool
    check_at: float | None


@dataclass(frozen=True, slots=True)
class Wants:
    """What a pass has to ask beyond the watch cache."""

    router: bool
    snapshot: bool


def route_of(status: Status) -> Route | None:
    """The route that a status calls for; None before there is anything to route to."""
    if status.stable is None:
        return None
    if status.canary is None or status.weight == 0:
        return Route(stable=status.stable.revision)
    return Route(status.stable.revision, status.canary.revision, status.weight)


def wants(status: Status, spec: Spec, served: Route | None, now: float) -> Wants:
    """Which questions this pass needs answered, if the routers were last seen to serve `served`.

    An idle ModelDeployment asks nothing.
    """
    rollout = status.rollout
    due = any(revision.kept_until is not None and revision.kept_until <= now for revision in kept(status))
    return Wants(
        router=status.phase is Phase.PENDING or rollout is not None or due or served != route_of(status),
        snapshot=rollout is not None
        and (rollout.evidence_at is None or now - rollout.evidence_at >= spec.analysis.interval),
    )


def kept(status: Status) -> tuple[Revision, ...]:
    """Revisions that run without a role: the old stable while it is warm, and those that drain."""
    return ((status.previous,) if status.previous else ()) + status.retiring


def running(status: Status) -> tuple[Revision, ...]:
    """Every revision that has pods: exactly those that the router may know."""
    return tuple(revision for revision in (status.stable, status.canary, *kept(status)) if revision)


def decide(observed: Observed, now: float) -> Decision:
    """The next status of a ModelDeployment. Pure: the same observation at the same time gives the same decision."""
    status = replace(observed.status, observed_generation=observed.generation)
    status, trouble = _resolve(observed, status, now)
    sha256 = pinned(observed.spec.model, status.resolved)
    target = revision_of(observed.spec, sha256, observed.defaults) if sha256 else None

    if status.stable is None or status.phase is Phase.PENDING:
        status, activity = _first(observed, status, target, now)
    else:
        status, activity = _later(observed, status, target, now)
    if trouble:
        activity = Activity("ModelUnresolved", trouble.message, stalled=trouble.permanent)
    elif target is None:
        activity = Activity("ResolvingModel", f"Reading the digest of {observed.spec.model.uri}.")

    status = _retire(observed.router, status, now)
    status = _with_ready_counts(observed, status)
    status = with_conditions(observed, status, activity, now)
    return Decision(status, resolve=target is None, check_at=_check_at(observed, status, activity, now))


# --- which bytes -----------------------------------------------------------------------------------------------


def _resolve(observed: Observed, status: Status, now: float) -> tuple[Status, Trouble | None]:
    """Takes in what the resolver pod found, if the spec leaves the digest open."""
    model, resolution = observed.spec.model, observed.resolution
    if pinned(model, status.resolved) or resolution is None:
        return status, None
    if resolution.sha256:
        resolved = Resolved(model.uri, resolution.sha256, resolution.size, model.version)
        return replace(status, resolved=resolved), None
    return _with_failure(status, "", resolution.trouble, now), resolution.trouble


# --- the first revision ----------------------------------------------------------------------------------------


def _first(observed: Observed, status: Status, target: Revision | None, now: float) -> tuple[Status, Activity]:
    """Nothing serves yet, so the newest spec takes over at once; it serves when pods and route are seen serving."""
    if target and (status.stable is None or status.stable.revision != target.revision):
        status = replace(status, stable=target, phase=Phase.PENDING, retiring=())
        message = f"Starting {target.version}, the first revision."
        status = status.recorded(Record(now, "Started", "FirstRevision", message, to_revision=target.revision))
    stable = status.stable
    if stable is None:
        return status, Activity.none()

    workload = observed.workloads.get(stable.revision, Workload())
    status = _with_failure(status, stable.revision, workload.trouble, now)
    router = observed.router or Router()
    if workload.ready > 0 and router.serves(Route(stable.revision)) and router.reaches(stable.revision):
        message = f"{stable.version} serves all traffic."
        record = Record(now, "Serving", "FirstRevision", message, to_revision=stable.revision)
        return replace(status, phase=Phase.SERVING).recorded(record), Activity.none()
    if workload.trouble:
        text = f"{stable.version} does not start: {workload.trouble.message}"
        return status, Activity(workload.trouble.reason, text, stalled=workload.trouble.permanent)
    if workload.ready == 0:
        return status, Activity("StartingServer", f"Waiting for a ready pod of {stable.version}.")
    return status, Activity("StartingRouter", router.problem or "Waiting for the router to reach the model servers.")


# --- every later revision --------------------------------------------------------------------------------------


def _later(observed: Observed, status: Status, target: Revision | None, now: float) -> tuple[Status, Activity]:
    """A stable revision serves: drop what is no longer asked for, then start or go on with what is."""
    stable = status.stable
    assert stable
    if status.canary and (target is None or target.revision != status.canary.revision):
        status = supersede(status, target, now)
    if target is None:
        return status, Activity.none()
    if target.revision == stable.revision:
        status = replace(status, stable=replace(stable, uri=target.uri, secret=target.secret))
        return replace(status, rejected=None, phase=Phase.SERVING), Activity.none()
    rejected = status.rejected
    if rejected and rejected.revision == target.revision and observed.retry in (None, rejected.retry):
        return replace(status, phase=Phase.ROLLED_BACK), Activity(rejected.reason, rejected.message, stalled=True)
    if status.canary is None and _still_warm(observed, status, target):
        return revert(observed, status, now)
    if status.canary is None and len(status.retiring) >= MOST_RETIRING:
        text = f"Waiting until the routers let go of {len(status.retiring)} earlier revisions."
        return status, Activity("VerifyingRoute", text)
    if status.canary is None:
        status = begin(observed, status, target, now)
    elif (status.canary.uri, status.canary.secret) != (target.uri, target.secret):
        status = replace(status, canary=replace(status.canary, uri=target.uri, secret=target.secret))
    return _progress(observed, status, now)


def _still_warm(observed: Observed, status: Status, target: Revision) -> bool:
    """Whether the target is the old stable, still running and still known to every router."""
    return (
        status.previous is not None
        and status.previous.revision == target.revision
        and observed.workloads.get(target.revision, Workload()).ready > 0
        and observed.served is not None
        and observed.served == route_of(status)
    )


def _progress(observed: Observed, status: Status, now: float) -> tuple[Status, Activity]:
    """One pass over a rollout under way. The order of the questions is the safety argument."""
    canary, stable, rollout = status.canary, status.stable, status.rollout
    assert canary and stable and rollout
    spec = observed.spec
    workload = observed.workloads.get(canary.revision, Workload())
    status = _with_failure(status, canary.revision, workload.trouble, now)
    if not spec.rollout.paused:
        status = replace(status, phase=Phase.PROGRESSING)

    # Can it run at all? The router hides a canary that crashes, and its counters die with it: no metric tells.
    if workload.trouble and workload.trouble.permanent:
        return reject(observed, status, workload.trouble.reason, workload.trouble.message, now)
    rollout = replace(rollout, unready_since=(rollout.unready_since or now) if workload.ready == 0 else None)
    status = replace(status, rollout=rollout)
    if rollout.unready_since is not None and now - rollout.unready_since >= spec.server.ready_timeout:
        why = workload.trouble.message if workload.trouble else "its pods never passed their readiness check"
        message = f"No pod of {canary.version} was ready for {spec.server.ready_timeout:g} s: {why}"
        return reject(observed, status, "NotReady", message, now)

    overdue = _overdue(observed, rollout, now)
    ends = overdue and spec.rollout.on_inconclusive is OnInconclusive.ROLLBACK
    if rollout.step is None and ends:
        return reject(observed, status, "Inconclusive", overdue, now)
    if rollout.step is None:
        return _start_first_step(observed, status, workload, now)

    # What does the evidence say? Worse goes before everything else.
    try:
        judged, status = _judge(observed, status, now)
    except ValueError as error:
        text = f"The stored evidence can not be read ({error}); change the spec back to drop it."
        return status, Activity("EvidenceUnreadable", text, stalled=True)
    if judged.verdict.action is Action.ROLL_BACK:
        return reject(observed, status, *judged.reason_for_rollback(), now)

    if ends:
        return reject(observed, status, "Inconclusive", overdue, now)
    rollout = status.rollout or rollout

    # Is the weight that was written the weight that serves?
    router = observed.router or Router()
    route = route_of(status)
    if route is None or not router.serves(route):
        text = router.problem or f"Waiting until every router serves weight {status.weight}."
        return status, Activity("VerifyingRoute", text)
    if rollout.step_started_at is None:
        rollout = replace(rollout, step_started_at=now, verified_weight=status.weight, step_trials=judged.canary_trials)
        status = replace(status, rollout=rollout)
    return _hold_or_advance(observed, status, judged, workload, now)


def _judge(observed: Observed, status: Status, now: float) -> tuple[analysis.Judgement, Status]:
    """What the counters, or without a new look what they showed last, say about the canary."""
    canary, stable, rollout, spec = status.canary, status.stable, status.rollout, observed.spec
    assert canary and stable and rollout
    if observed.snapshot is None:
        seen = status.condition("MetricsAvailable")
        problem = seen.message if seen and seen.status == "False" else None
        return analysis.recall(spec.analysis, rollout.evidence, problem), status
    judged = analysis.judge(spec.analysis, rollout.evidence, observed.snapshot, canary.revision, stable.revision, now)
    rollout = replace(rollout, evidence=judged.state, evidence_at=now)
    return judged, replace(status, rollout=rollout, metrics=judged.reports)


def _start_first_step(observed: Observed, status: Status, workload: Workload, now: float) -> tuple[Status, Activity]:
    """Takes the first step once the canary has its pods, the routers reach it and counting has a base."""
    canary, stable, rollout, spec = status.canary, status.stable, status.rollout, observed.spec
    assert canary and stable and rollout
    if workload.ready < spec.server.replicas:
        trouble = f" {workload.trouble.message}" if workload.trouble else ""
        text = f"{workload.ready} of {spec.server.replicas} pods of {canary.version} are ready.{trouble}"
        return status, Activity("StartingCanary", text)
    router = observed.router or Router()
    if not router.serves(Route(stable.revision)) or not router.reaches(canary.revision):
        return status, Activity("StartingCanary", router.problem or "Waiting for the routers to reach the canary.")
    if spec.rollout.paused:
        return replace(status, phase=Phase.PAUSED), Activity("Paused", "Paused before the first step.")
    problem = _unseen(observed.snapshot)
    if observed.snapshot is None or problem:
        return status, Activity("CannotSee", f"No traffic moves before metrics can be read: {problem}")
    evidence = analysis.begin(spec.analysis, observed.snapshot, canary.revision, stable.revision, now)
    status = replace(status, rollout=replace(rollout, evidence=evidence, evidence_at=now))
    return to_step(observed, status, 0, now)


def _overdue(observed: Observed, rollout: Rollout, now: float) -> str:
    """What to say when the rollout has had its time; nothing before."""
    limit = observed.spec.rollout.max_duration
    return f"No verdict within maxDuration ({limit:g} s)." if now - rollout.started_at >= limit else ""


def _unseen(snapshot: Snapshot | None) -> str | None:
    """Why counting can not begin: every ready pod must give its base, or its past would count as news later."""
    if snapshot is None:
        return "the counters were not read yet."
    if snapshot.problem:
        return snapshot.problem
    return f"no counters from {', '.join(snapshot.unread)}." if snapshot.unread else None


def _hold_or_advance(
    observed: Observed, status: Status, judged: analysis.Judgement, workload: Workload, now: float
) -> tuple[Status, Activity]:
    """The rollout is healthy and its weight serves: the first reason to hold wins, else it moves on."""
    canary, rollout, spec = status.canary, status.rollout, observed.spec
    assert canary and rollout and rollout.step is not None and rollout.step_started_at is not None
    last = rollout.step >= len(spec.rollout.steps) - 1
    step = spec.rollout.steps[min(rollout.step, len(spec.rollout.steps) - 1)]
    where = f"Step {rollout.step + 1} of {len(spec.rollout.steps)} at {status.weight} %"

    if spec.rollout.paused:
        return replace(status, phase=Phase.PAUSED), Activity("Paused", f"{where}: paused.")
    if overdue := _overdue(observed, rollout, now):
        return status, Activity("Inconclusive", f"{where}: holding. {overdue}")
    if judged.problem:
        return status, Activity("CannotSee", f"{where}: holding, metrics can not be read: {judged.problem}")
    if workload.ready < spec.server.replicas:
        text = f"{where}: holding, {workload.ready} of {spec.server.replicas} canary pods are ready."
        return status, Activity("CanaryNotReady", text)
    if not (observed.router and observed.router.reaches(canary.revision)):
        return status, Activity("CanaryNotReady", f"{where}: holding, not every router reaches the canary.")
    quiet = judged.without_new_trials(rollout.step_trials)
    # The first looks at a step come before its first requests are counted: that is not news yet.
    if quiet and now - rollout.step_started_at >= min(step.duration, 3 * spec.analysis.interval):
        text = f"{where}: holding, no canary data at this step for {', '.join(quiet)}."
        return status, Activity("NoTraffic", text)
    if quiet or now - rollout.step_started_at < step.duration:
        return status, Activity("Evaluating", f"{where}: {_outlook(observed, status, judged, now)}")
    if not last:
        return to_step(observed, status, rollout.step + 1, now)
    if judged.verdict.action is Action.PROMOTE:
        return promote(observed, status, judged, now)
    return status, Activity("GatheringEvidence", f"{where}: {_outlook(observed, status, judged, now)}")


def _outlook(observed: Observed, status: Status, judged: analysis.Judgement, now: float) -> str:
    """What is known so far and how long the rest may take at the present traffic."""
    rollout = status.rollout
    assert rollout and rollout.step_started_at is not None
    minutes = judged.minutes_left(
        rollout.step_trials,
        now - rollout.step_started_at,
        status.weight,
        observed.spec.analysis.false_promotion_rate,
    )
    if minutes == 0:
        return f"the evidence suffices for promotion. {judged.summary}"
    if math.isinf(minutes):
        return f"too little traffic to say how long a verdict takes. {judged.summary}"
    return f"about {max(minutes, 0.1):.1f} min to a verdict if the canary is good. {judged.summary}"


# --- what every pass does --------------------------------------------------------------------------------------


def _retire(router: Router | None, status: Status, now: float) -> Status:
    """Forgets revisions whose time is over, once every router is seen serving without them."""
    route = route_of(status)
    if router is None or route is None or not router.serves(route):
        return status
    over = {item.revision for item in kept(status) if item.kept_until is not None and item.kept_until <= now}
    if not over:
        return status
    return replace(
        status,
        previous=None if status.previous and status.previous.revision in over else status.previous,
        retiring=tuple(revision for revision in status.retiring if revision.revision not in over),
    )


def _with_failure(status: Status, revision: str, trouble: Trouble | None, now: float) -> Status:
    """Remembers a container's failure; the same one seen again is not news."""
    last = status.last_failure
    if trouble is None or (
        last and (last.revision, last.reason, last.message) == (revision, trouble.reason, trouble.message)
    ):
        return status
    return replace(status, last_failure=Failure(revision, trouble.reason, trouble.message, now, trouble.exit_code))


def _with_ready_counts(observed: Observed, status: Status) -> Status:
    def counted(revision: Revision | None) -> Revision | None:
        if revision is None:
            return None
        workload = observed.workloads.get(revision.revision, Workload())
        return replace(revision, ready_replicas=workload.ready)

    stable = counted(status.stable)
    labels = {LABEL_OWNER: observed.name, LABEL_COMPONENT: "server", LABEL_REVISION: stable.revision if stable else ""}
    return replace(
        status,
        stable=stable,
        canary=counted(status.canary),
        previous=counted(status.previous),
        replicas=observed.spec.server.replicas,
        ready_replicas=stable.ready_replicas if stable else 0,
        selector=",".join(f"{key}={value}" for key, value in labels.items()) if stable else "",
    )


def _check_at(observed: Observed, status: Status, activity: Activity, now: float) -> float | None:
    """The next moment at which something can be due although no watch event comes."""
    route, rollout, router = route_of(status), status.rollout, observed.router
    live = route is not None and (observed.served == route or (router is not None and router.serves(route)))
    times = [revision.kept_until for revision in kept(status) if revision.kept_until is not None]
    times = [max(time, now + READY_POLL_SECONDS) for time in times]
    if rollout is not None and rollout.step is None:
        times.append(now + READY_POLL_SECONDS)
    if rollout is not None and rollout.evidence_at is not None:
        times.append(max(rollout.evidence_at + observed.spec.analysis.interval, now + ROUTE_POLL_SECONDS))
    # Until the first revision serves, the routers also have to reach it, and no event tells when they do.
    waiting = not live or status.phase is Phase.PENDING
    if waiting and status.stable is not None and status.ready_replicas > 0:
        quick = activity.reason == "VerifyingRoute" or status.phase is not Phase.PENDING
        times.append(now + (ROUTE_POLL_SECONDS if quick and (router is None or router.ready) else READY_POLL_SECONDS))
    return min(times, default=None)
