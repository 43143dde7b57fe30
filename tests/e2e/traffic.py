"""Steady client traffic: the demo's driver in a pod, steered through the API server."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demo import manifests, models
from demo.environment import Cluster
from tests.e2e.deployments import epoch
from tests.e2e.figures import Figures

FEEDBACK_DELAY_SECONDS = 1
ONE_SECOND_MS = 1000
# Longer than a request may take to be answered, so that none is still under way.
CERTAIN_SECONDS = 12


@dataclass
class Traffic:
    """The driver of one ModelDeployment. `stop` it to have its requests in the ledger.

    service: the Service to call, if it is not the ModelDeployment's own.
    """

    cluster: Cluster
    namespace: str
    mdep: str
    figures: Figures
    service: str = ""
    by: str = ""  # what tells it from another driver of the same ModelDeployment

    @property
    def pod(self) -> str:
        return f"traffic-{self.service or self.mdep}{self.by}"

    def start(
        self,
        rps: float,
        *,
        feedback_delay: float = FEEDBACK_DELAY_SECONDS,
        shares: Mapping[int, float] | None = None,
        url: str | None = None,
        new_connections: bool = False,
        most_under_way: int | None = None,
    ) -> None:
        """Send from now on, until stopped. `shares`: of the rows with these labels; the other rows share the rest.

        url: of another Service than the ModelDeployment's own. new_connections: one for each request.
        most_under_way: without an answer at once; what is due beyond that is not sent.
        """
        _, held_out = models.split()
        options = [f"--feedback-delay={feedback_delay:g}"]
        options += [f"--url=http://{self.service}"] if self.service else []
        options += [f"--class-share={label}={share:g}" for label, share in (shares or {}).items()]
        options += [f"--url={url}"] if url else []
        options += ["--new-connections"] if new_connections else []
        options += [f"--max-in-flight={most_under_way}"] if most_under_way else []
        self.cluster.apply(
            manifests.traffic(self.mdep, held_out, self.namespace, rps=rps, name=self.pod, options=options)
        )
        self.cluster.kubectl("wait", "-n", self.namespace, "--for=condition=Ready", f"pod/{self.pod}", "--timeout=90s")

    def stats(self) -> dict[str, Any]:
        """The counts so far."""
        stats: dict[str, Any] = self.cluster.pod_get(self.namespace, self.pod, manifests.TRAFFIC_PORT, "/stats")
        return stats

    def rate(self, rps: float) -> None:
        """Go on at another rate; 0 pauses."""
        self.cluster.pod_post(self.namespace, self.pod, manifests.TRAFFIC_PORT, "/rate", {"rps": rps})

    def shares(self, shares: Mapping[int, float]) -> dict[str, Any]:
        """Go on with these shares of the classes. Returns the counts at that moment."""
        counts: dict[str, Any] = self.cluster.pod_post(
            self.namespace, self.pod, manifests.TRAFFIC_PORT, "/shares", shares
        )
        return counts

    def settled(self) -> dict[str, Any]:
        """The counts once every request and every label that was sent has its answer; call it at rate 0."""
        deadline = time.monotonic() + 60
        while True:
            stats = self.stats()
            answered = stats["sent"] == stats["ok"] + stats["failed"]
            feedback = stats["feedback"]
            if answered and feedback["posted"] == stats["ok"]:
                return stats
            assert time.monotonic() < deadline, f"requests or labels are still under way: {stats}"
            time.sleep(0.5)

    def answered(self, revision: str) -> int:
        """How many requests a revision answered so far."""
        return answered(self.stats(), revision)

    def harm(self, canary: str, stable: str, since: Mapping[str, Any] | None = None) -> float:
        """Wrong answers of a canary beyond those that the stable revision would have given in its place.

        Both are counted from the counts `since` on, or from the start.
        """
        before, after = (since or {"by_revision": {}})["by_revision"], self.stats()["by_revision"]

        def counted(revision: str) -> tuple[int, int]:
            one, earlier = after[revision], before.get(revision, {"n": 0, "wrong": 0})
            return one["n"] - earlier["n"], one["wrong"] - earlier["wrong"]

        (n, wrong), (stable_n, stable_wrong) = counted(canary), counted(stable)
        return wrong - n * stable_wrong / stable_n

    def wait_for(self, requests: int, seconds: float = 60) -> None:
        """Until so many more requests are answered."""
        wanted = self.stats()["ok"] + requests
        deadline = time.monotonic() + seconds
        while (stats := self.stats())["ok"] < wanted:
            assert time.monotonic() < deadline, f"{requests} answers did not come within {seconds} s: {stats}"
            time.sleep(0.5)

    def series(self) -> list[dict[str, Any]]:
        """One count a second since the start, oldest first, each with its time `t`."""
        log = self.cluster.kubectl("logs", "-n", self.namespace, self.pod)
        return [json.loads(line) for line in log.splitlines() if line.startswith("{")]

    def between(self, start: float, end: float) -> dict[str, int]:
        """Answers per revision in the whole seconds between two times."""
        inside = [line for line in self.series() if start <= line["t"] <= end]
        assert len(inside) >= 2, f"no counts between {start} and {end}"
        first, last = inside[0]["by_revision"], inside[-1]["by_revision"]
        return {name: last[name]["n"] - first.get(name, {"n": 0})["n"] for name in last}

    def silence(self, record: dict[str, Any]) -> float:
        """Seconds from a rollback's verdict until the last request was sent that the canary answered.

        Negative when it got none after its verdict. Waits until that is certain.
        """
        time.sleep(max(0.0, epoch(record["time"]) + CERTAIN_SECONDS - time.time()))
        canary = self.stats()["by_revision"][record["fromRevision"]]
        return float(canary["last_sent"]) / ONE_SECOND_MS - epoch(record["time"])

    def remove(self) -> None:
        """Delete its pod, which goes on sending where a test has failed before it was stopped."""
        self.cluster.kubectl("delete", "pod", self.pod, "-n", self.namespace, "--ignore-not-found", "--wait=false")

    def stop(self) -> None:
        """End it and put its counts into the ledger."""
        final = self.cluster.pod_post(self.namespace, self.pod, manifests.TRAFFIC_PORT, "/stop", {})
        self.figures.traffic[self.pod.removeprefix("traffic-")] = final
        self.figures.write()
        assert final["failed"] == 0, f"requests to {self.mdep} failed: {final['errors']}"


def answered(stats: Mapping[str, Any], revision: str) -> int:
    """How many requests a revision had answered by then."""
    return int(stats["by_revision"].get(revision, {"n": 0})["n"])
