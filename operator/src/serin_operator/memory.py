"""What is known of one ModelDeployment from pass to pass, and what of it is worth writing down."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from serin_operator.api.status import Status
from serin_operator.decide.observed import Route
from serin_operator.observe.courier import Places
from serin_operator.observe.drift import DriftLedger

EVIDENCE_WRITE_SECONDS = 10.0
QUIET_WRITE_SECONDS = 60.0  # the same while no canary has traffic: before the first step, after a promotion


@dataclass
class Memory:
    """What is known of one ModelDeployment beyond the watch cache: the latest status, written or not.

    stored: the status that the API server holds, as it gave it back, at `resource_version`.
    served: the route that every router was last seen to serve.
    refused: what the API server did not take of what the last pass applied, if so. told: what of that was told at once,
    and told_at: when.
    binned: how far the bins of `status` are counted. carried: how far the stable servers' answers went to a shadow's.
    unseen: pods that were there when it began, and that the watch cache has not shown yet.
    held: the resource as the API server was last asked for it; what counts while the watch cache is older.
    """

    uid: str
    status: Status
    stored: Mapping[str, Any]
    resource_version: int
    since: float
    written_at: float = 0.0
    served: Route | None = None
    nudged_at: float = 0.0
    refused: str = ""
    told: str = ""
    told_at: float = 0.0
    binned: DriftLedger | None = None
    carried: Places = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()
    held: Mapping[str, Any] | None = None

    def newest(self, cached: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The resource at the version that was written last, or later; None where no such is known yet."""
        known = (cached, self.held)
        return next((raw for raw in known if raw is not None and version_of(raw) >= self.resource_version), None)


def version_of(resource: Mapping[str, Any]) -> int:
    """Its resourceVersion."""
    return int(resource["metadata"]["resourceVersion"])


def worth_writing(before: Status, after: Status, seconds: float) -> bool:
    """Whether the change has to be written, so many seconds after the last time: evidence alone can wait a while.

    seconds: negative when the clock was set back.
    """
    on_trial = after.rollout is not None and after.rollout.step is not None
    patience = EVIDENCE_WRITE_SECONDS if on_trial else QUIET_WRITE_SECONDS
    return _without_evidence(before) != _without_evidence(after) or (before != after and not 0 <= seconds < patience)


def _without_evidence(status: Status) -> Status:
    """The status without what grows at every scrape, or only says it in other words."""
    rollout = status.rollout and replace(
        status.rollout,
        evidence="",
        evidence_at=None,
        exposed=0,
        forecast=None,
        remarks=tuple(replace(remark, message="") for remark in status.rollout.remarks),
    )
    watch = status.watch and replace(status.watch, evidence="", evidence_at=None)
    drift = status.drift and replace(status.drift, at=0.0, rows=0, evidence="")
    conditions = tuple(replace(condition, message="") for condition in status.conditions)
    return replace(status, rollout=rollout, watch=watch, drift=drift, metrics=(), conditions=conditions)
