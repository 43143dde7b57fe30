"""A ModelDeployment under test: changes its spec, waits for its status, and says much when that does not come."""

import copy
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from demo.environment import OPERATORS, SERIN_NAMESPACE, Cluster
from demo.manifests import KIND, model_uri
from tests.e2e.cluster import Manifest, select, try_kubectl
from tests.e2e.watching import Watch

LABEL = "serin.dev/model-deployment"
GOOD_ENOUGH = ("NonInferior", "Superior")  # verdicts that a gate passes with
ENDINGS = ("Promoted", "RolledBack", "Rejected", "Reverted")
OWNED_KINDS = "deployments,services,configmaps,secrets,pods,replicasets"
Status = dict[str, Any]


def quick_spec(*, prometheus: str | None = None) -> dict[str, Any]:
    """A spec for much traffic: seconds instead of minutes, and margins that some hundred requests can decide."""
    analysis: dict[str, Any] = {
        "interval": "1s",
        "falseRollbackRate": 0.001,  # most models here are as good as the stable one
        "metrics": [
            {"name": "errors", "margin": 0.03},
            {"name": "latency", "margin": 0.1, "slowerThan": "1s"},  # a small machine slows a pod for less
            {"name": "accuracy", "margin": 0.03},
        ],
    }
    if prometheus:
        analysis["prometheus"] = {"address": prometheus}
    return {
        "traffic": {"timeout": "10s"},
        "rollout": {"steps": steps((10, 3), (50, 3)), "keepPrevious": "1m", "watch": "0s"},
        "analysis": analysis,
    }


def steps(*pairs: tuple[int, float]) -> list[dict[str, Any]]:
    """Steps of (per cent, seconds)."""
    return [{"weight": weight, "duration": f"{duration:g}s"} for weight, duration in pairs]


@dataclass
class ModelDeployment:
    """One of a namespace that a Watch looks at."""

    cluster: Cluster
    watch: Watch
    namespace: str
    name: str
    spec: dict[str, Any] = field(default_factory=quick_spec)
    applied_at: float = 0.0
    generation: int = 0

    # --- what a user does ---

    def manifest(self) -> Manifest:
        """The whole object as a user would write it."""
        return {
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": copy.deepcopy(self.spec),
        }

    def apply(self, **changes: Any) -> int:
        """Apply the spec with these sections changed. Returns the resource's generation."""
        for section, value in changes.items():
            self.spec[section] = {**self.spec.get(section, {}), **value}
        self.applied_at = time.time()
        text = json.dumps(self.manifest())
        answer = self.cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", "-o", "json", stdin=text
        )
        self.generation = json.loads(answer)["metadata"]["generation"]
        return self.generation

    def serve(self, model: str, version: str | None = None, **more: Any) -> int:
        """Ask for a model of the store; another `version` makes it another revision."""
        self.spec["model"] = {"uri": model_uri(model), "version": version or model, **more}
        return self.apply()

    def mark(self, name: str, value: str) -> None:
        """What `serin promote` and `serin abort` do."""
        mark = f"serin.dev/{name}={value}"
        self.cluster.kubectl("annotate", KIND, self.name, "-n", self.namespace, mark, "--overwrite")

    def delete(self, *, wait: bool = True) -> None:
        """Delete it and, unless told otherwise, wait until nothing of it is left."""
        self.cluster.kubectl("delete", KIND, self.name, "-n", self.namespace, "--ignore-not-found", "--timeout=60s")
        if wait:
            self.wait_gone(120)

    # --- what can be seen ---

    @property
    def status(self) -> Status:
        """The newest status."""
        status: Status = self.watch.latest(self.name).get("status", {})
        return status

    @property
    def statuses(self) -> list[Status]:
        """Every status since Serin saw what was applied last, oldest first."""
        found: list[Status] = [state.get("status", {}) for state in self.watch.states(self.name)]
        return [status for status in found if status.get("observedGeneration", 0) >= self.generation]

    def owned(self, kinds: str = OWNED_KINDS) -> list[Manifest]:
        """The objects that Serin made for it, and those made of them."""
        return select(self.cluster, kinds, self.namespace, f"{LABEL}={self.name}")

    def server_pods(self, revision: str) -> set[str]:
        """Names of a revision's pods."""
        labels = f"{LABEL}={self.name},serin.dev/component=server,serin.dev/revision={revision}"
        return {pod["metadata"]["name"] for pod in select(self.cluster, "pods", self.namespace, labels)}

    def shown(self) -> dict[str, str]:
        """What `kubectl get` shows, by column."""
        head, row = self.cluster.kubectl("get", KIND, self.name, "-n", self.namespace).splitlines()
        starts = [column.start() for column in re.finditer(r"\S+", head)]
        places = [slice(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
        return {head[place].strip(): row[place].strip() for place in places}

    # --- waiting ---

    def wait(self, what: str, holds: Callable[[Status], bool], seconds: float = 60, generation: int = 0) -> Status:
        """The first status for which `holds`, of this generation or a later one. Fails with an account."""

        def seen(state: Manifest) -> bool:
            status = state.get("status", {})
            return status.get("observedGeneration", 0) >= generation and holds(status)

        state = self.watch.until(self.name, seen, seconds)
        if state is None:
            raise AssertionError(f"{self.name}: not within {seconds:g} s: {what}\n{self.account()}")
        status: Status = state["status"]
        return status

    def wait_serving(self, generation: int = 0, seconds: float = 90) -> Status:
        """Until it serves and has nothing else to do."""
        return self.wait(
            "it serves", lambda s: s.get("phase") == "Serving" and is_true(s, "Ready"), seconds, generation
        )

    def wait_weight(self, weight: int, seconds: float = 90, generation: int = 0) -> Status:
        """Until the canary's weight is this and was seen serving."""

        def holds(status: Status) -> bool:
            rollout = status.get("rollout", {})
            return status.get("weight") == weight and "stepStartedAt" in rollout

        return self.wait(f"{weight} % is verified", holds, seconds, generation)

    def wait_decision(self, decision: str, seconds: float = 120, *, since: float | None = None) -> dict[str, Any]:
        """Until a rollout ended that was applied last (or at `since`). Returns its record, of this decision."""
        start = self.applied_at if since is None else since

        def ended(status: Status) -> bool:
            record = status.get("history", [{}])[0]
            return record.get("decision") in ENDINGS and epoch(record["time"]) > start

        status = self.wait(f"{decision}", ended, seconds)
        record: dict[str, Any] = status["history"][0]
        if record["decision"] != decision:
            raise AssertionError(f"not {decision}, but: {json.dumps(record, indent=1)}\n{self.account()}")
        return record

    def wait_gone(self, seconds: float) -> None:
        """Until no object of it is left."""
        deadline = time.monotonic() + seconds
        while left := self.owned():
            names = ", ".join(f"{item['kind']}/{item['metadata']['name']}" for item in left)
            assert time.monotonic() < deadline, f"{self.name}: left after {seconds:g} s: {names}"
            time.sleep(1)

    def wait_pods_gone(self, revision: str, seconds: float = 90) -> None:
        """Until a revision has no pod any more."""
        deadline = time.monotonic() + seconds
        while pods := self.server_pods(revision):
            assert time.monotonic() < deadline, f"{pods} are still there after {seconds:g} s\n{self.account()}"
            time.sleep(1)

    def account(self) -> str:
        """All that helps to see why something did not happen."""
        status = {key: value for key, value in self.status.items() if key not in ("history", "metrics")}
        for part in {"rollout", "watch"} & status.keys():
            status[part] = {key: value for key, value in status[part].items() if key != "evidence"}
        history = [
            f"  {one['time']} {one['decision']} {one.get('reason')}: {one.get('message')}"
            for one in self.status.get("history", [])
        ]
        name = ("-n", self.namespace)
        return "\n".join(
            [
                json.dumps(status, indent=1),
                *history,
                try_kubectl(self.cluster, "get", "pods", *name, "-l", f"{LABEL}={self.name}", "-o", "wide"),
                try_kubectl(self.cluster, "get", "events", *name, "--sort-by=.lastTimestamp")[-3000:],
                try_kubectl(self.cluster, "logs", "-n", SERIN_NAMESPACE, "-l", OPERATORS, "--tail=20")[-6000:],
            ]
        )


def condition(status: Status, kind: str) -> dict[str, Any]:
    """A condition; empty when it is not there."""
    return next((one for one in status.get("conditions", []) if one["type"] == kind), {})


def is_true(status: Status, kind: str) -> bool:
    """Whether a condition is there and true."""
    return condition(status, kind).get("status") == "True"


def decisions(status: Status) -> list[dict[str, Any]]:
    """The records of the last rollout, oldest first."""
    found = []
    for record in status["history"]:
        found.append(record)
        if record["decision"] == "Started":
            break
    return found[::-1]


def metric(status: Status, name: str) -> dict[str, Any]:
    """The report on one metric; of no trials when it is not there."""
    empty = {"trials": 0, "failures": 0}
    found = (one for one in status.get("metrics", []) if one["name"] == name)
    return next(found, {"canary": empty, "stable": empty})


def epoch(time: str) -> float:
    """Seconds since the epoch of a time in a status."""
    return datetime.fromisoformat(time).timestamp()


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Until something holds that no status tells."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.5)
