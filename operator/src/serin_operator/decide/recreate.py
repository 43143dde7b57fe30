"""The strategy Recreate: the old revision is taken down, then the new one starts. Never two at once, nothing compared.

    begin ──► old stopped ──its pods are gone──► new starts ──it answers──► promoted
                                                    │
                                                    └──it can not run──► new stopped ──its pods are gone──► old starts

Which revisions are stopped is in the status, so it is known at every instruction what may run. A pod that does not go
in time is waited for no longer: clients wait for an answer.
"""

from dataclasses import replace

from serin_operator.api.spec import Strategy
from serin_operator.api.status import Phase, Record, Revision, Rollout, Status
from serin_operator.decide.conditions import UNTIL_UNPAUSED, Activity, of_trouble, why_unready
from serin_operator.decide.observed import Observed, Route, Router, Workload
from serin_operator.decide.roles import spec_of
from serin_operator.decide.routing import carriers
from serin_operator.decide.transitions import DRAIN_SECONDS, reject, turned_down
from serin_operator.decide.words import sentence

_SLACK_SECONDS = 90.0  # beyond the longest request, for pods to go


def progress(observed: Observed, status: Status, workload: Workload, now: float) -> tuple[Status, Activity]:
    """One pass over a rollout under way. workload: of the new revision."""
    canary, stable, rollout, spec = status.canary, status.stable, status.rollout, observed.spec
    assert canary and stable and rollout
    if not stable.stopped:
        if spec.rollout.paused:
            text = f"Paused before {stable.version} is taken down, {UNTIL_UNPAUSED}."
            return replace(status, phase=Phase.PAUSED), Activity("Paused", text)
        return _take_down(status, rollout, now)
    if canary.stopped:
        left = _pods_of_others(observed, canary.revision)
        if left and now - rollout.started_at < _patience(observed, status):
            return status, Activity("TakingDown", _taking_down(stable.version, canary.version, left))
        rollout = replace(rollout, unready_since=now)
        status = replace(status, canary=replace(canary, stopped=None), rollout=rollout, phase=Phase.PROGRESSING)
        return status, Activity("BringingUp", _bringing_up(canary.version, Workload()))
    return _bring_up(observed, status, rollout, workload, now)


def waits_for_its_place(observed: Observed, status: Status, target: Revision | None) -> bool:
    """Whether the old revision was taken down for one that is no longer asked for, or was turned down.

    Not if another takes that one's place in the same way.
    """
    stable = status.stable
    if stable is None or not stable.stopped or status.canary is not None:
        return False
    if target is None or target.revision == stable.revision or observed.spec.rollout.strategy is not Strategy.RECREATE:
        return True
    return turned_down(observed, status, target)


def bring_back(observed: Observed, status: Status, now: float) -> tuple[Status, Activity]:
    """The old revision starts again as soon as no other has pods. An empty activity when it may."""
    stable = status.stable
    assert stable
    left = _pods_of_others(observed, stable.revision)
    waits = [revision.kept_until - DRAIN_SECONDS for revision in status.retiring if revision.kept_until is not None]
    if left and now - max(waits, default=now) < _patience(observed, status):
        text = f"Waiting until {left} pods are gone, then {stable.version} starts again. Requests fail meanwhile."
        return status, Activity("BringingBack", text)
    return replace(status, stable=replace(stable, stopped=None)), Activity.none()


def _take_down(status: Status, rollout: Rollout, now: float) -> tuple[Status, Activity]:
    """Nothing but the router runs from now on, until the new revision may start."""
    canary, stable = status.canary, status.stable
    assert canary and stable
    others = (*([status.previous] if status.previous else []), *status.retiring)
    drained = tuple(replace(item, stopped=True, kept_until=now + DRAIN_SECONDS) for item in others)
    message = f"{stable.version} is taken down; requests fail until {canary.version} answers."
    record = Record(now, "TakenDown", "Recreate", message, from_revision=stable.revision, to_revision=canary.revision)
    status = replace(
        status,
        stable=replace(stable, stopped=True),
        canary=replace(canary, stopped=True),
        previous=None,
        retiring=drained,
        rollout=replace(rollout, started_at=now),
        phase=Phase.PROGRESSING,
    ).recorded(record)
    return status, Activity("TakingDown", message)


def _bring_up(
    observed: Observed, status: Status, rollout: Rollout, workload: Workload, now: float
) -> tuple[Status, Activity]:
    """The new revision starts and takes over with its first ready pod, or else the old one comes back."""
    canary, stable, spec = status.canary, status.stable, observed.spec
    assert canary and stable
    back = f"{stable.version} starts again."
    if workload.trouble and workload.trouble.permanent:
        return reject(observed, status, workload.trouble.reason, f"{sentence(workload.trouble.message)} {back}", now)
    since = None if workload.ready else min(rollout.unready_since or now, now)
    status = replace(status, rollout=replace(rollout, unready_since=since))
    if since is not None and now - since >= spec.server.ready_timeout:
        why = why_unready(observed, workload)
        message = f"No pod of {canary.version} was ready for {spec.server.ready_timeout:g} s. {sentence(why)} {back}"
        return reject(observed, status, "NotReady", message, now)
    router = observed.router or Router()
    if not workload.ready or not router.serves(Route(stable.revision)) or not router.reaches(canary.revision):
        problem = f" {router.problem}" if workload.ready and router.problem else ""
        return status, Activity("BringingUp", f"{_bringing_up(canary.version, workload)}{problem}")
    record = Record(
        now,
        "Promoted",
        "Recreated",
        f"{canary.version} serves all traffic, without a comparison.",
        from_revision=stable.revision,
        to_revision=canary.revision,
        weight=100,
    )
    status = replace(
        status,
        stable=canary,
        canary=None,
        retiring=(*status.retiring, replace(stable, kept_until=now + DRAIN_SECONDS)),
        rollout=None,
        weight=0,
        phase=Phase.SERVING,
    ).recorded(record)
    return status, Activity.none()


def _pods_of_others(observed: Observed, revision: str) -> int:
    """Pods of all other revisions, those included that are on their way out."""
    return sum(workload.pods for name, workload in observed.workloads.items() if name != revision)


def _patience(observed: Observed, status: Status) -> float:
    """How long pods may take to go: the longest request of any router that has the route, and some more."""
    asked = [spec_of(kind, observed.spec, status).traffic for kind in carriers(status)]
    return max(traffic.timeout for traffic in asked) + _SLACK_SECONDS


def _taking_down(old: str, new: str, left: int) -> str:
    return f"Waiting until the pods of {old} are gone ({left} left), then {new} starts. Requests fail meanwhile."


def _bringing_up(version: str, workload: Workload) -> str:
    text = f"Waiting for the first ready pod of {version} that the routers reach. Requests fail meanwhile."
    return f"{text}{of_trouble(workload)}"
