"""The story: a first model serves, a better one is promoted, a harmful one is stopped by its accuracy alone."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo import manifests, models
from demo.environment import OPERATORS, SERIN_NAMESPACE, Cluster, CommandError
from demo.summary import Summary, Verdict, decided_at, summarise, verdict
from demo.view import Screen, frame

MDEP = "digits"
RPS = 100.0
READY_SECONDS = 240.0
PROMOTION_SECONDS = 300.0
ROLLBACK_SECONDS = 180.0
# Requests that must flow before a rollout, so that stable has a record, and after the last one.
WARM_UP_REQUESTS = 500
AFTERMATH_REQUESTS = 500


class UnexpectedError(Exception):
    """The story took another turn than it must."""


@dataclass
class Moment:
    """One look at the cluster."""

    status: dict[str, Any]
    stats: dict[str, Any]


@dataclass
class Story:
    """Plays in one namespace of a cluster where Serin runs."""

    cluster: Cluster
    namespace: str
    screen: Screen
    versions: dict[str, str] = field(default_factory=dict)
    has_traffic: bool = False

    def play(self, keep_traffic: bool) -> Summary:
        """Tell it all. Raises UnexpectedError when something does not happen as it must."""
        self.screen.say("training three models on scikit-learn's digits")
        first, better, harmful = models.story()
        for model in (first, better, harmful):
            accuracy = f"{100 * model.accuracy:.1f} % right on rows that it never saw"
            self.screen.say(f"  {model.name:8} {accuracy}")
        self._prepare({f"{model.name}.joblib": model.data for model in (first, better, harmful)})

        self._deploy(first.name)
        self._watch("the first model starts", self._is_ready, READY_SECONDS)
        self._start_traffic()
        self._watch("traffic flows", _answers(WARM_UP_REQUESTS), 60)

        promoted = self._roll_out(better.name, "Promoted", "NonInferior", PROMOTION_SECONDS)
        rolled_back = self._roll_out(harmful.name, "RolledBack", "LessAccurate", ROLLBACK_SECONDS)
        return self._aftermath((promoted, rolled_back), better.name, harmful.name, keep_traffic)

    def _prepare(self, files: dict[str, bytes]) -> None:
        self.cluster.apply([manifests.namespace(self.namespace)])
        self.cluster.apply(manifests.model_store(files, self.namespace))
        self._kubectl("rollout", "status", f"deployment/{manifests.STORE}", "--timeout=120s", timeout=130)

    def _deploy(self, model: str) -> None:
        self.screen.say(f"kubectl apply: {MDEP} gets model {model}")
        self.cluster.apply([manifests.model_deployment(MDEP, model, self.namespace)])

    def _start_traffic(self) -> None:
        self.screen.say(f"{RPS:.0f} requests a second from now on; each label follows after 3 s")
        _, held_out = models.split()
        self.cluster.apply(manifests.traffic(MDEP, held_out, self.namespace, rps=RPS))
        self._kubectl("wait", "--for=condition=Ready", f"pod/{manifests.TRAFFIC}", "--timeout=60s")
        self.has_traffic = True

    def _roll_out(self, model: str, decision: str, reason: str, most_seconds: float) -> Verdict:
        self._deploy(model)
        moment = self._watch(f"rolling out {model}", lambda now: self._verdict(now, model) is not None, most_seconds)
        found = self._verdict(moment, model)
        assert found is not None  # what the watch waited for
        self.screen.say(f"{model}: {found.decision} ({found.reason}) after {found.seconds:.0f} s")
        if (found.decision, found.reason) != (decision, reason):
            record = json.dumps(moment.status["history"][0], indent=1)
            raise UnexpectedError(f"{model} should have been {decision} ({reason}), but it was: {record}")
        return found

    def _aftermath(self, verdicts: tuple[Verdict, Verdict], stable: str, harmful: str, keep: bool) -> Summary:
        before = self._look().stats["ok"]
        enough = _answers(before + AFTERMATH_REQUESTS)
        moment = self._watch("calm again", lambda now: enough(now) and self._is_ready(now), 60)
        stats = moment.stats if keep else self._stop_traffic()
        revisions = {version: revision for revision, version in self.versions.items()}
        rolled_back_at = decided_at(moment.status["history"], "RolledBack")
        summary = summarise(stats, verdicts, revisions[stable], revisions[harmful], rolled_back_at)
        if summary.failed:
            raise UnexpectedError(f"{summary.failed} requests failed: {stats['errors']}")
        return summary

    def _stop_traffic(self) -> dict[str, Any]:
        stats: dict[str, Any] = self.cluster.pod_post(
            self.namespace, manifests.TRAFFIC, manifests.TRAFFIC_PORT, "/stop", {}
        )
        return stats

    def _watch(self, chapter: str, until: Callable[[Moment], bool], most_seconds: float) -> Moment:
        """Look and show once a second until the condition holds."""
        started = time.monotonic()
        while True:
            moment = self._look()
            seconds = time.monotonic() - started
            self.screen.show(frame(chapter, seconds, moment.status, moment.stats, self.versions))
            if until(moment):
                return moment
            if seconds > most_seconds:
                raise UnexpectedError(f"{chapter}: not done after {seconds:.0f} s\n{self._account(moment)}")
            time.sleep(max(0.0, 1 - (time.monotonic() - started - seconds)))

    def _look(self) -> Moment:
        status = self.cluster.get(manifests.KIND, MDEP, self.namespace).get("status", {})
        for role in ("stable", "canary", "previous"):
            if role in status:
                self.versions[status[role]["revision"]] = status[role]["version"]
        stats = {}
        if self.has_traffic:
            stats = self.cluster.pod_get(self.namespace, manifests.TRAFFIC, manifests.TRAFFIC_PORT, "/stats")
        return Moment(status, stats)

    def _verdict(self, moment: Moment, version: str) -> Verdict | None:
        revisions = [revision for revision, known in self.versions.items() if known == version]
        return verdict(moment.status.get("history", []), revisions[0], version) if revisions else None

    def _is_ready(self, moment: Moment) -> bool:
        conditions = {one["type"]: one["status"] for one in moment.status.get("conditions", [])}
        return conditions.get("Ready") == "True"

    def _account(self, moment: Moment) -> str:
        """What is known about the trouble: conditions, pods, the newest Events, the operator's last words."""
        conditions = "\n".join(
            f"  {one['type']}={one['status']} {one.get('reason', '')}: {one.get('message', '')}"
            for one in moment.status.get("conditions", [])
        )
        try:
            pods = self._kubectl("get", "pods", "-o", "wide")
            events = self._kubectl("get", "events", "--sort-by=.lastTimestamp").splitlines()[-15:]
            log = self.cluster.kubectl("-n", SERIN_NAMESPACE, "logs", "-l", OPERATORS, "--prefix", "--tail=5")
        except CommandError as error:
            return f"{conditions}\n{error}"
        return "\n".join([conditions, pods, *events, log])

    def _kubectl(self, *words: str, timeout: float = 120.0) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words, timeout=timeout)


def _answers(number: int) -> Callable[[Moment], bool]:
    return lambda moment: moment.stats.get("ok", 0) >= number
