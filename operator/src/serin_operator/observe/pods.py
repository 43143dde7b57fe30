"""What a Pod object says about a revision: ready or not, and why not. Pure reading of watched objects."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serin_operator.api import ANNOTATION_ROUTE, LABEL_COMPONENT, LABEL_REVISION
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Resolution, Trouble, Workload

# Exit codes of `serin-server` (its cli documents them) after which another try ends the same way.
_PERMANENT_EXITS = {13, 14, *range(20, 30)}
_CRASHES_UNTIL_PERMANENT = 3
_REASON = re.compile("[A-Za-z][A-Za-z0-9]{0,63}")
# What reading JSON can end in that anybody may have written.
_NO_ANSWER = (ValueError, LookupError, TypeError, OverflowError, RecursionError)
_WAITING_FOR_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True, slots=True)
class Pod:
    """The part of a Pod that Serin reads."""

    name: str
    component: str
    revision: str
    ip: str | None
    ready: bool
    terminating: bool
    route_mark: str | None
    trouble: Trouble | None
    answer: str | None  # the termination message of a container that succeeded
    failed: bool = False  # for good: evicted, or its node went down
    owner: str | None = None  # the uid of its controller
    uid: str = ""
    started: float | None = None  # when its node took it, in seconds since 1970
    restarts: int = 0  # of its containers, those that prepare it left out

    @property
    def serving(self) -> bool:
        """Ready, reachable and not about to go."""
        return self.ready and not self.terminating and self.ip is not None


def read_pod(raw: Mapping[str, Any]) -> Pod:
    """The pod of a watched object."""
    metadata, status = raw["metadata"], raw.get("status", {})
    labels = metadata.get("labels", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return Pod(
        name=metadata["name"],
        component=labels.get(LABEL_COMPONENT, ""),
        revision=labels.get(LABEL_REVISION, ""),
        ip=status.get("podIP"),
        ready=ready,
        terminating="deletionTimestamp" in metadata,
        failed=status.get("phase") == "Failed",
        uid=metadata.get("uid", ""),
        started=datetime.fromisoformat(status["startTime"]).timestamp() if "startTime" in status else None,
        restarts=sum(container.get("restartCount", 0) for container in status.get("containerStatuses", [])),
        owner=next((ref["uid"] for ref in metadata.get("ownerReferences", []) if ref.get("controller")), None),
        route_mark=metadata.get("annotations", {}).get(ANNOTATION_ROUTE),
        trouble=None if ready else _trouble(status, containers),
        answer=next(
            (t["message"] for c in containers if (t := _ended(c)) and t["exitCode"] == 0 and "message" in t), None
        ),
    )


def workload(pods: Iterable[Pod], revision: str, unmade: str = "") -> Workload:
    """The revision's pods taken together; a permanent trouble is told before a passing one.

    unmade: why some of them can not be made, if so. It is told when no pod has a trouble of its own.
    """
    reason = "FailedCreate"  # as Kubernetes' own Events about it say
    there = [pod for pod in pods if pod.revision == revision and pod.component == "server"]
    own = [pod for pod in there if not pod.terminating]
    troubles = sorted((pod.trouble for pod in own if pod.trouble), key=lambda trouble: not trouble.permanent)
    troubles += [Trouble(reason, unmade)] if unmade else []
    ready = sum(pod.serving for pod in own)
    return Workload(ready=ready, trouble=troubles[0] if troubles else None, pods=len(there))


def restarts(pods: Iterable[Pod], now: float) -> Mapping[str, Mapping[str, Counts]]:
    """Per revision and pod, each whole minute of the pod's life as a trial, each restart in it as a failure.

    now: in seconds since 1970. The keys are "pod/start time", the start being the pod's and not the process's: a
    restart does not begin the count anew. More restarts than minutes are told as the minutes go by.
    """
    counts: dict[str, dict[str, Counts]] = defaultdict(dict)
    for pod in pods:
        if pod.component == "server" and pod.started is not None:
            minutes = max(0, int((now - pod.started) // 60))
            counts[pod.revision][f"{pod.name}/{pod.started:.0f}"] = Counts(min(pod.restarts, minutes), minutes)
    return dict(counts)


def resolution(pods: Iterable[Pod], name: str) -> Resolution:
    """What the resolver pod of this name has found so far."""
    pod = next((pod for pod in pods if pod.name == name), None)
    if pod is None:
        return Resolution()
    if pod.answer is None:
        return Resolution(trouble=pod.trouble)
    try:
        answer = json.loads(pod.answer)
        return Resolution(sha256=str(answer["sha256"]), size=int(answer["size"]))
    except _NO_ANSWER:
        text = f"the resolver answered {pod.answer[:200]!r}; is spec.server.image a Serin model server?"
        return Resolution(trouble=Trouble("UnknownAnswer", text, permanent=True))


def _trouble(status: Mapping[str, Any], containers: list[Mapping[str, Any]]) -> Trouble | None:
    for container in containers:
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _WAITING_FOR_IMAGE or waiting.get("reason") == "CreateContainerConfigError":
            return Trouble(waiting["reason"], f"container {container['name']}: {waiting.get('message', '')}")
        ended = _ended(container)
        if ended and ended["exitCode"] != 0:
            return _exit_trouble(container, ended)
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(condition.get("reason", "Unschedulable"), condition.get("message", ""))
    return None


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the container ended last; None while it has not."""
    state = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
    return state or None


def _exit_trouble(container: Mapping[str, Any], ended: Mapping[str, Any]) -> Trouble:
    code = ended["exitCode"]
    told = _told(ended.get("message", ""))
    crashes = container.get("restartCount", 0) + (1 if "terminated" in container.get("state", {}) else 0)
    if told:
        return Trouble(told["reason"], told["message"], code, permanent=code in _PERMANENT_EXITS)
    why = ended.get("reason", "Error")
    reason = "OutOfMemory" if why == "OOMKilled" else "Crashed"
    remedy = "raise server.resources.limits.memory" if why == "OOMKilled" else "look at its log"
    message = f"container {container['name']} ended with exit code {code} ({why}): {remedy}"
    return Trouble(reason, message, code, permanent=crashes >= _CRASHES_UNTIL_PERMANENT)


def _told(message: str) -> dict[str, str] | None:
    """The reason that a container of Serin's leaves in its termination message."""
    try:
        told = json.loads(message)
    except _NO_ANSWER:
        return None
    if not isinstance(told, dict) or not isinstance(told.get("message"), str):
        return None
    # A condition's reason has this form, and a status that breaks it could not be written.
    return told if _REASON.fullmatch(str(told.get("reason"))) else None
