"""The life of one ModelDeployment, one pass at a time: `decide(observed, now)` gives the next status.

    Pending ──first revision serves──► Serving ──spec changes──► Progressing ──evidence──► Serving (promoted, watched)
                                          ▲                          │                        │
                                          └── spec is mended ── RolledBack ◄── late evidence ─┘
                                                         (worse, or it can not run)

`progress` has the rollout under way, `watch` the time after its promotion.
"""

from dataclasses import dataclass, replace

from serin_operator.api import LABEL_COMPONENT, LABEL_OWNER, LABEL_REVISION
from serin_operator.api.spec import RouterType, Spec, Strategy
from serin_operator.api.status import Phase, Record, Resolved, Revision, Status
from serin_operator.decide import capacity, certificate, drift_watch, recreate, routing, slots
from serin_operator.decide.by_hand import heed
from serin_operator.decide.clocks import due, due_at
from serin_operator.decide.conditions import Activity, beside_refusal, with_conditions
from serin_operator.decide.first_step import wants_look
from serin_operator.decide.observed import Observed, Route, Router, Trouble, Workload
from serin_operator.decide.progress import progress
from serin_operator.decide.revisions import pinned, revision_of
from serin_operator.decide.roles import kept, route_of, router_of
from serin_operator.decide.transitions import begin, revert, supersede, turned_down, with_failure
from serin_operator.decide.watch import look_after, next_look

ROUTE_POLL_SECONDS = 0.3  # while a written route is not yet seen serving
MOST_RETIRING = 8  # more revisions than this never run besides those with a role; a newer one waits
DRIFT_POLL_SECONDS = 5.0  # after bins that could not be read
WATCHED_POLL_SECONDS = 5.0  # the same for routers whose events wake the loop
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
    drift: bool = False


def wants(status: Status, spec: Spec, served: Route | None, now: float) -> Wants:
    """Which questions this pass needs answered, if the routers were last seen to serve `served`.

    An idle ModelDeployment asks nothing.
    """
    rollout, watch = status.rollout, status.watch
    over = any(revision.kept_until is not None and revision.kept_until <= now for revision in kept(status))
    drift_at = drift_watch.next_look(status, spec.analysis.drift)
    # Other routers than the embedded one are looked at in the watch cache, which costs nothing.
    others = status.routing is not None or spec.traffic.router is not RouterType.EMBEDDED
    tls = spec.traffic.tls_secret is not None
    look = False
    if watch is not None:
        look = now >= next_look(watch, spec.analysis, now)
    elif rollout is not None and rollout.step is None:
        look = rollout.strategy is not Strategy.RECREATE and wants_look(rollout, spec, now)
    elif rollout is not None:
        look = due(rollout.evidence_at, spec.analysis.interval, now)
    return Wants(
        router=others
        or status.phase is Phase.PENDING
        or rollout is not None
        or over
        or served != route_of(status)
        or tls,
        snapshot=look,
        drift=status.phase is not Phase.PENDING and drift_at is not None and now >= drift_at,
    )


def decide(observed: Observed, now: float) -> Decision:
    """The next status of a ModelDeployment. Pure: the same observation at the same time gives the same decision."""
    status = replace(observed.status, observed_generation=observed.generation)
    status = heed(observed, status, now)
    status, trouble = _resolve(observed, status, now)
    sha256 = pinned(observed.spec.model, status.resolved)
    unsigned = observed.defaults.require_signature and observed.spec.model.signature is None
    target = revision_of(observed.spec, sha256, observed.defaults) if sha256 and not unsigned else None

    if status.stable is None or status.phase is Phase.PENDING:
        status, activity = _first(observed, status, target, now)
    else:
        status, activity = _later(observed, status, target, now)
    if unsigned:
        text = "This installation serves signed models only: say in model.signature who must have signed the model."
        activity = Activity("SignatureRequired", text, stalled=True)
    elif trouble:
        activity = Activity("ModelUnresolved", trouble.message, stalled=trouble.permanent)
    elif target is None:
        activity = Activity("ResolvingModel", f"Reading the digest of {observed.spec.model.uri}.")

    status = _retire(observed.router, status, now)
    status = _with_ready_counts(observed, capacity.sized(observed, status, now))
    status = routing.follow(observed, status, now)
    activity = beside_refusal(observed, routing.explained(observed, status, activity))
    status, drifted = drift_watch.follow(observed, status, now)
    status = with_conditions(observed, status, activity, now, drifted)
    resolve = target is None and not unsigned
    return Decision(status, resolve, check_at=_check_at(observed, status, activity, now))


# --- which bytes -----------------------------------------------------------------------------------------------


def _resolve(observed: Observed, status: Status, now: float) -> tuple[Status, Trouble | None]:
    """Takes in what the resolver pod found, if the spec leaves the digest open."""
    model, resolution = observed.spec.model, observed.resolution
    if pinned(model, status.resolved) or resolution is None:
        return status, None
    if resolution.sha256:
        resolved = Resolved(model.uri, resolution.sha256, resolution.size, model.version)
        return replace(status, resolved=resolved), None
    return with_failure(status, "", resolution.trouble, now), resolution.trouble


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
    status = with_failure(status, stable.revision, workload.trouble, now)
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
    text = slots.waited_for(observed, status) or "Waiting for the router to reach the model servers."
    return status, Activity("StartingRouter", router.problem or text)


# --- every later revision --------------------------------------------------------------------------------------


def _later(observed: Observed, status: Status, target: Revision | None, now: float) -> tuple[Status, Activity]:
    """A stable revision serves: drop what is no longer asked for, then start or go on with what is."""
    stable = status.stable
    assert stable
    if status.canary and (target is None or target.revision != status.canary.revision):
        status = supersede(status, target, now)
    if recreate.waits_for_its_place(observed, status, target):
        status, activity = recreate.bring_back(observed, status, now)
        if activity.reason:
            return status, activity
        stable = replace(stable, stopped=None)
    if target is None:
        return look_after(observed, status, now) if status.watch else (status, Activity.none())
    if target.revision == stable.revision:
        status = replace(status, stable=_from(target, stable))
        status = replace(status, rejected=None, phase=Phase.SERVING)
        return look_after(observed, status, now) if status.watch else (status, Activity.none())
    if (rejected := status.rejected) and turned_down(observed, status, target):
        return replace(status, phase=Phase.ROLLED_BACK), Activity(rejected.reason, rejected.message, stalled=True)
    if status.canary is None and _still_warm(observed, status, target, now):
        return revert(status, now)
    if status.canary is None and len(status.retiring) >= MOST_RETIRING:
        text = f"Waiting until the routers let go of {len(status.retiring)} earlier revisions."
        return status, Activity("VerifyingRoute", text)
    if status.canary is None:
        status = begin(observed, status, target, now)
    else:
        status = replace(status, canary=_from(target, status.canary))
    return progress(observed, status, now)


def _from(target: Revision, revision: Revision) -> Revision:
    """The revision with its files from where the target has them; they are the same bytes."""
    return replace(revision, uri=target.uri, secret=target.secret, profile=target.profile, signature=target.signature)


def _still_warm(observed: Observed, status: Status, target: Revision, now: float) -> bool:
    """Whether the target is the old stable, with pods for all of the traffic, and still known to every router."""
    return (
        status.previous is not None
        and status.previous.revision == target.revision
        and capacity.missing_to_go_back(observed, status, now) is None
        and observed.served is not None
        and observed.served == route_of(status)
    )


# --- what every pass does --------------------------------------------------------------------------------------


def _retire(router: Router | None, status: Status, now: float) -> Status:
    """Forgets revisions whose time is over, once every router is seen serving without them."""
    route = route_of(status)
    if router is None or route is None or not router.serves(route):
        return status
    over = {item.revision for item in kept(status) if item.kept_until is not None and item.kept_until <= now}
    if not over:
        return status
    previous = None if status.previous and status.previous.revision in over else status.previous
    return replace(
        status,
        previous=previous,
        watch=status.watch if previous else None,  # there is nothing to go back to
        retiring=tuple(revision for revision in status.retiring if revision.revision not in over),
    )


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
        replicas=stable.replicas if stable else observed.spec.server.replicas,
        ready_replicas=stable.ready_replicas if stable else 0,
        selector=",".join(f"{key}={value}" for key, value in labels.items()) if stable else "",
    )


def _check_at(observed: Observed, status: Status, activity: Activity, now: float) -> float | None:
    """The next moment at which something can be due although no watch event comes."""
    route, rollout, router = route_of(status), status.rollout, observed.router
    live = route is not None and (observed.served == route or (router is not None and router.serves(route)))
    times = [revision.kept_until for revision in kept(status) if revision.kept_until is not None]
    times = [max(time, now + READY_POLL_SECONDS) for time in times]
    certificate_at = certificate.check_at(observed, status, now)
    if certificate_at is not None:
        times.append(certificate_at)
    if rollout is not None and rollout.step is None:
        times.append(now + READY_POLL_SECONDS)
    elif rollout is not None and rollout.evidence_at is not None:
        look_at = due_at(rollout.evidence_at, observed.spec.analysis.interval, now)
        times.append(max(look_at, now + ROUTE_POLL_SECONDS))
    if status.stable is not None and status.stable.stopped:
        times.append(now + READY_POLL_SECONDS)
    if status.watch is not None:
        times.append(max(next_look(status.watch, observed.spec.analysis, now), now + ROUTE_POLL_SECONDS))
    freed_at = capacity.changes_at(status, now)
    if freed_at is not None:
        times.append(freed_at)
    if activity.reason == "ScalingCanary":
        times.append(now + READY_POLL_SECONDS)
    drift_at = drift_watch.next_look(status, observed.spec.analysis.drift)
    if drift_at is not None and status.phase is not Phase.PENDING:
        times.append(max(drift_at, now + DRIFT_POLL_SECONDS))
    # Until the first revision serves, the routers also have to reach it, and no event tells when they do.
    waiting = not live or status.phase is Phase.PENDING
    if waiting and status.stable is not None and status.ready_replicas > 0:
        quick = activity.reason == "VerifyingRoute" or status.phase is not Phase.PENDING
        poll = ROUTE_POLL_SECONDS if quick and (router is None or router.ready) else READY_POLL_SECONDS
        times.append(now + (poll if router_of(status) is RouterType.EMBEDDED else WATCHED_POLL_SECONDS))
    if status.routing is not None and status.routing.next is RouterType.EMBEDDED:
        times.append(now + READY_POLL_SECONDS)
    if status.routing is not None and status.routing.leaving_until is not None:
        times.append(max(status.routing.leaving_until, now + READY_POLL_SECONDS))
    times += [max(time, now + READY_POLL_SECONDS) for time in slots.due(status)]
    return min(times, default=None)
