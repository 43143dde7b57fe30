"""Conditions by the kstatus conventions: Ready always, Reconciling and Stalled only while they are true."""

from dataclasses import dataclass, replace

from serin_operator.api.status import Condition, Phase, Status
from serin_operator.decide import certificate
from serin_operator.decide.drift_watch import CONDITION as DRIFTED
from serin_operator.decide.drift_watch import Told
from serin_operator.decide.observed import Observed, Workload
from serin_operator.decide.words import ended, sentence

# By type and status: what somebody who looks should be told before that all is well.
_TELLING = {
    ("Stalled", "True"),
    ("Reconciling", "True"),
    ("Ready", "False"),
    ("MetricsAvailable", "False"),
    (certificate.CONDITION, "False"),
    (DRIFTED, "True"),
}

UNTIL_UNPAUSED = "until rollout.paused is false"  # how what has the reason Paused ends


@dataclass(frozen=True, slots=True)
class Activity:
    """What Serin is busy with or stuck on, in one CamelCase word and one sentence; an empty reason means nothing."""

    reason: str = ""
    message: str = ""
    stalled: bool = False

    @classmethod
    def none(cls) -> "Activity":
        """Nothing to do."""
        return cls()


def beside_refusal(observed: Observed, activity: Activity) -> Activity:
    """The activity with what the API server refuses beside it, which may be why nothing moves."""
    if not activity.reason or not observed.refused or _refusal(observed) in activity.message:
        return activity
    return replace(activity, message=f"{ended(activity.message)} {sentence(_refusal(observed))}")


def of_trouble(workload: Workload) -> str:
    """What troubles a revision's pods, as one more sentence of a message; nothing if nothing does."""
    return f" {sentence(workload.trouble.message)}" if workload.trouble else ""


def why_unready(observed: Observed, workload: Workload) -> str:
    """Why no pod of a revision is ready, as far as it is known."""
    if workload.trouble:
        return workload.trouble.message
    why = "its pods never passed their readiness check"
    return f"{why}; {_refusal(observed)}" if observed.refused else why


def _refusal(observed: Observed) -> str:
    return f"the API server says {observed.refused}"


def with_conditions(
    observed: Observed, status: Status, activity: Activity, now: float, drifted: Told | None = None
) -> Status:
    """The status with its conditions brought up to date; transition times change only with a condition's status.

    drifted: status, reason and message of the condition on drift. The first condition is the one that a short listing
    shows: what Serin does or is stuck on, else what is not as it should be, else whether the stable revision answers.
    """
    wanted = []
    if activity.reason:
        wanted.append(("Stalled" if activity.stalled else "Reconciling", "True", activity.reason, activity.message))
    wanted.append(_ready(status))
    if status.watch is not None or (status.rollout is not None and status.rollout.step is not None):
        wanted.append(_metrics_available(observed, status))
    if trouble := _router_trouble(observed):
        wanted.append(("RouterReady", "False", *trouble))
    certified = certificate.told(observed, status, now)
    if certified is not None:
        wanted.append((certificate.CONDITION, certified.status, certified.reason, certified.message))
    if drifted is not None:
        wanted.append((DRIFTED, drifted.status, drifted.reason, drifted.message))
    wanted.sort(key=lambda each: each[:2] not in _TELLING)
    conditions = tuple(_condition(status, kind, value, reason, message, now) for kind, value, reason, message in wanted)
    return replace(status, conditions=conditions)


def what_was_not_seen(status: Status) -> str | None:
    """Why the last look at the counters saw nothing, if so."""
    seen = status.condition("MetricsAvailable")
    return seen.message if seen and seen.status == "False" else None


def _ready(status: Status) -> tuple[str, str, str, str]:
    if status.stable is None or status.phase is Phase.PENDING:
        return ("Ready", "False", "Pending", "No revision serves yet.")
    if status.ready_replicas == 0:
        return ("Ready", "False", "StableNotReady", f"No pod of {status.stable.version} is ready.")
    return ("Ready", "True", "Serving", f"{status.stable.version} answers.")


def _metrics_available(observed: Observed, status: Status) -> tuple[str, str, str, str]:
    if observed.snapshot is not None:
        problem = observed.snapshot.problem
        if not problem and observed.snapshot.unread:
            problem = f"no counters from {', '.join(observed.snapshot.unread)}"
        if problem:
            return ("MetricsAvailable", "False", "CannotSee", problem)
        return ("MetricsAvailable", "True", "Read", "The counters of both revisions were read.")
    before = status.condition("MetricsAvailable")
    if before:
        return ("MetricsAvailable", before.status, before.reason, before.message)
    return ("MetricsAvailable", "Unknown", "NotRead", "The counters were not read yet.")


def _router_trouble(observed: Observed) -> tuple[str, str] | None:
    """What somebody has to do about the router that serves or the one that is to, if so."""
    for router in (observed.router, observed.next_router):
        if router is not None and router.reason:
            return router.reason, router.problem or ""
    return None


def _condition(status: Status, kind: str, value: str, reason: str, message: str, now: float) -> Condition:
    before = status.condition(kind)
    since = before.last_transition_time if before and before.status == value else now
    return Condition(kind, value, reason, message, since, status.observed_generation)
