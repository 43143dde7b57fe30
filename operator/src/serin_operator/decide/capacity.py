"""How many pods each revision shall have: capacity first, then the weight.

All of the traffic needs so many pods, which `spec.server.replicas` says, a person or an autoscaler. The stable revision
always has them, so a rollback waits for nothing. The canary has its share of them. It gets more before its weight rises
and before it is promoted, and fewer only after the route has moved and what was on its way has ended.
"""

import math
from dataclasses import replace

from serin_operator.api.spec import CanaryReplicas, Mode, RouterType, Spec
from serin_operator.api.status import Revision, Status
from serin_operator.decide.conditions import Activity, of_trouble
from serin_operator.decide.observed import Observed, Router, Workload
from serin_operator.decide.ratio import canary_pods
from serin_operator.decide.roles import compares, route_of, router_of, shadow_of

DRAIN_SECONDS = 10.0  # how long a revision outlives its last traffic: requests in flight end, clients reconnect
SETTLING_SECONDS = 300.0  # after traffic has moved, until an autoscaler has surely measured what it needs now


def whole(spec: Spec, status: Status, now: float) -> int:
    """How many pods all of the traffic needs: the size of the stable revision.

    What an autoscaler measures while traffic moves is the need of a part of it, or of the revision before. So it does
    not shrink the stable revision during a rollout nor for some minutes after a decision, nor before it has measured at
    all. A person is obeyed at once.
    """
    scaling = spec.server.autoscaling
    if scaling is None:
        return spec.server.replicas
    asked = max(spec.server.replicas, scaling.min_replicas)
    if status.stable is not None and _unmeasured(spec, status, now):
        # A revision that is stopped has none, so what it had is known from the floor.
        asked = max(asked, status.stable.replicas, status.least_replicas or 0)
    return min(asked, scaling.max_replicas)


def share(replicas: int, weight: int) -> int:
    """How many of so many pods `weight` per cent of the traffic need; at least one."""
    return max(1, -(-replicas * weight // 100))


def needed(spec: Spec, status: Status, weight: int, now: float) -> int:
    """How many pods the canary needs for this weight; where pods make the split, how many make it."""
    everything = whole(spec, status, now)
    if by_pods(status):
        return canary_pods(everything, max(1, weight))
    return everything if spec.rollout.canary_replicas is CanaryReplicas.FULL else share(everything, weight)


def by_pods(status: Status) -> bool:
    """Whether the numbers of pods make the split."""
    return router_of(status) is RouterType.REPLICA_RATIO


def load(status: Status) -> int:
    """How much of the traffic the canary answers now, in per cent. Copies are answered like requests.

    By a strategy that switches all of it at once it is ready for all of it.
    """
    if status.rollout is not None and not compares(status.rollout.strategy):
        return 100
    return max(status.weight, status.rollout.mirror if status.rollout else 0)


def first_capacity(spec: Spec) -> int:
    """The weight that a canary starts with pods for; 0, which is one pod, where only the traffic will tell."""
    shadow = shadow_of(spec.rollout.strategy, spec.rollout)
    if shadow is not None:
        return shadow.percent
    return spec.rollout.steps[0].weight if spec.rollout.mode is Mode.STEPS else 0


def staying(observed: Observed, revision: Revision) -> int:
    """Its ready pods. Those that it was told to do without are still seen as ready for a moment, and are none."""
    return min(observed.workloads.get(revision.revision, Workload()).ready, revision.replicas)


def room(observed: Observed, status: Status, weight: int, now: float) -> tuple[Status, Activity] | None:
    """None when the canary can take this weight: its pods are ready, and every router reaches so many of them.

    Otherwise it gets the pods, and this tells what is waited for.
    """
    canary, rollout = status.canary, status.rollout
    assert canary and rollout
    pods = needed(observed.spec, status, weight, now)
    ready, router = staying(observed, canary), observed.router or Router()
    if ready >= pods and router.reaches(canary.revision, pods):
        return None
    where = f"{weight} % of the traffic need {pods} of {canary.version}"
    if ready >= pods:
        text = f"Before the weight rises: {where}, and not every router reaches so many."
    else:
        trouble = of_trouble(observed.workloads.get(canary.revision, Workload()))
        text = f"Before the weight rises: {where}, and {ready} are ready.{trouble}"
    rollout = replace(rollout, capacity=max(rollout.capacity, weight))
    return replace(status, rollout=rollout), Activity("ScalingCanary", text)


def missing_to_go_back(observed: Observed, status: Status, now: float) -> str | None:
    """What the old stable revision lacks to serve all of the traffic again; None when it lacks nothing.

    It needs its own pods, which may be more than the revision needs that serves now, but no greater part of them than
    that one has of its own; and a quarter may be missing, as in a rolling update.
    """
    serving, old = status.stable, status.previous
    assert serving and old
    ready, of_serving = (staying(observed, each) for each in (old, serving))
    everything = whole(observed.spec, status, now)
    kept = old.replicas if observed.spec.server.autoscaling and status.watch else 0  # else a number is asked for
    most = max(1, everything, kept)
    enough = most - most // 4
    needed_pods = max(1, min(enough, math.ceil(most * of_serving / max(1, everything))))
    return None if ready >= needed_pods else f"{ready} of {needed_pods} pods of {old.version} are ready"


def sized(observed: Observed, status: Status, now: float) -> Status:
    """The status with the number of pods that each revision shall have from now on."""
    spec = observed.spec
    since = (status.autoscaled_since or now) if spec.server.autoscaling else None
    status = replace(status, autoscaled_since=since)
    everything = whole(spec, status, now)
    floor = status.stable is not None and _unmeasured(spec, status, now)

    # Where pods make the split, those of other revisions than the two arms would be in it.
    crowded = by_pods(status) and status.canary is not None

    def with_pods(revision: Revision | None, replicas: int) -> Revision | None:
        return revision and replace(revision, replicas=0 if revision.stopped else replicas)

    # The way back from a watched promotion may not wait either, and the autoscaler measures the promoted revision.
    least = status.previous.replicas if status.previous and status.watch and spec.server.autoscaling else 0
    return replace(
        status,
        stable=with_pods(status.stable, everything),
        canary=with_pods(status.canary, _of_canary(observed, status, now)),
        previous=with_pods(status.previous, 0 if crowded else max(everything, least)),
        # They end what they have begun with what they have; none that has gone comes again.
        retiring=tuple(
            replace(revision, replicas=0 if crowded or revision.stopped else revision.replicas)
            for revision in status.retiring
        ),
        least_replicas=everything if floor else None,
    )


def changes_at(status: Status, now: float) -> float | None:
    """When the autoscaler is free again although nothing happens; None if that is not what comes next."""
    if status.least_replicas is None or status.rollout is not None:
        return None
    free = _settled_at(status)
    return free if free > now else None  # else its own word is waited for


def _of_canary(observed: Observed, status: Status, now: float) -> int:
    canary, rollout = status.canary, status.rollout
    if canary is None or rollout is None:
        return 0
    pods = needed(observed.spec, status, max(rollout.capacity, load(status)), now)
    return pods if by_pods(status) or _drained(observed, status, now) else max(pods, canary.replicas)


def _drained(observed: Observed, status: Status, now: float) -> bool:
    """Whether the present weight is all that the canary still has to answer.

    Before the first step too: it may be a revision that had traffic a moment ago.
    """
    rollout, route = status.rollout, route_of(status)
    assert rollout
    since = rollout.started_at if rollout.step is None else rollout.step_started_at
    if since is None or now - since < DRAIN_SECONDS or route is None:
        return False
    return observed.router is not None and observed.router.serves(route)


def _unmeasured(spec: Spec, status: Status, now: float) -> bool:
    """Whether the number in the spec need not be what an autoscaler measures of the traffic as it is.

    It never writes one below its minimum: that is the default of a manifest that the number was taken out of.
    """
    scaling = spec.server.autoscaling
    if scaling is None:
        return False
    return now < _settled_at(status) or spec.server.replicas < max(scaling.min_replicas, status.least_replicas or 0)


def _settled_at(status: Status) -> float:
    """Until when what is measured may be the past: infinity during a rollout, and when an autoscaler is first seen."""
    if status.rollout is not None or status.autoscaled_since is None:
        return float("inf")
    return max(status.autoscaled_since, status.history[0].time if status.history else 0.0) + SETTLING_SECONDS
