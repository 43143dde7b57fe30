"""How many pods each revision shall have: capacity first, then the weight.

All of the traffic needs so many pods, which `spec.server.replicas` says, a person or an autoscaler. The stable revision
always has them, so a rollback waits for nothing. The canary has its share of them. It gets more before its weight rises
and before it is promoted, and fewer only after the route has moved and what was on its way has ended.
"""

from dataclasses import replace

from serin_operator.api.spec import CanaryReplicas, Mode, RouterType, Spec
from serin_operator.api.status import Revision, Status
from serin_operator.decide.conditions import Activity
from serin_operator.decide.observed import Observed, Router, Workload
from serin_operator.decide.ratio import canary_pods
from serin_operator.decide.roles import compares, route_of, router_of, shadow_of
from serin_operator.decide.words import sentence

DRAIN_SECONDS = 10.0  # how long a revision outlives its last traffic: requests in flight end, clients reconnect
SETTLING_SECONDS = 300.0  # after traffic has moved, until an autoscaler has surely measured what it needs now


def whole(spec: Spec, status: Status, now: float) -> int:
    """How many pods all of the traffic needs: the size of the stable revision.

    What an autoscaler measures while traffic moves is the need of a part of it, or of the revision before. So it does
    not shrink the stable revision during a rollout nor for some minutes after a decision. A person is obeyed at once.
    """
    scaling = spec.server.autoscaling
    if scaling is None:
        return spec.server.replicas
    asked = max(spec.server.replicas, scaling.min_replicas)
    if status.stable is not None and now < _settled_at(status):
        asked = max(asked, status.stable.replicas)
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


def room(observed: Observed, status: Status, weight: int, now: float) -> tuple[Status, Activity] | None:
    """None when the canary can take this weight: its pods are ready, and every router reaches so many of them.

    Otherwise it gets the pods, and this tells what is waited for.
    """
    canary, rollout = status.canary, status.rollout
    assert canary and rollout
    pods = needed(observed.spec, status, weight, now)
    workload, router = observed.workloads.get(canary.revision, Workload()), observed.router or Router()
    if workload.ready >= pods and router.reaches(canary.revision, pods):
        return None
    where = f"{weight} % of the traffic need {pods} of {canary.version}"
    if workload.ready >= pods:
        text = f"Before the weight rises: {where}, and not every router reaches so many."
    else:
        trouble = f" {sentence(workload.trouble.message)}" if workload.trouble else ""
        text = f"Before the weight rises: {where}, and {workload.ready} are ready.{trouble}"
    rollout = replace(rollout, capacity=max(rollout.capacity, weight))
    return replace(status, rollout=rollout), Activity("ScalingCanary", text)


def missing_to_go_back(observed: Observed, status: Status, now: float) -> str | None:
    """What the old stable revision lacks to serve all of the traffic again; None when it lacks nothing.

    It needs as many ready pods as all of the traffic, but no more than the revision that serves it now has.
    """
    serving, old = status.stable, status.previous
    assert serving and old
    ready, of_serving = (observed.workloads.get(each.revision, Workload()).ready for each in (old, serving))
    needed_pods = max(1, min(whole(observed.spec, status, now), of_serving))
    return None if ready >= needed_pods else f"{ready} of {needed_pods} pods of {old.version} are ready"


def sized(observed: Observed, status: Status, now: float) -> Status:
    """The status with the number of pods that each revision shall have from now on."""
    spec = observed.spec
    everything = whole(spec, status, now)
    moving = spec.server.autoscaling is not None and status.stable is not None and now < _settled_at(status)

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
        # They end what they have begun with what they have.
        retiring=tuple(
            replace(revision, replicas=0) if crowded else _ending(revision, everything) for revision in status.retiring
        ),
        least_replicas=everything if moving else None,
    )


def _ending(revision: Revision, everything: int) -> Revision:
    return replace(revision, replicas=0 if revision.stopped else revision.replicas or everything)


def changes_at(status: Status) -> float | None:
    """When the autoscaler is free again although nothing happens; None if that is not what comes next."""
    return None if status.least_replicas is None or status.rollout is not None else _settled_at(status)


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


def _settled_at(status: Status) -> float:
    """Until when what is measured may be the past: infinity during a rollout."""
    if status.rollout is not None:
        return float("inf")
    return status.history[0].time + SETTLING_SECONDS if status.history else 0.0
