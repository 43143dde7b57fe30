"""Rollouts under a fault: a model that is good, one that does harm, and what must hold of both."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from random import Random
from typing import Any

from demo.environment import CommandError
from tests.chaos.ledger import Entry
from tests.chaos.world import Fault, World
from tests.e2e.deployments import ModelDeployment, condition, decisions, metric, steps
from tests.e2e.traffic import Traffic, answered

PATIENCE_SECONDS = 240.0  # an API server that was away, and its clients' patience before they ask again
QUIET_SECONDS = 20.0  # longer than evidence may stay unwritten
LAST_SECONDS = 3.0  # of a pod that dies, the requests since it was read last
BETWEEN_SECONDS = (0.5, 4.0)
BROKEN = ("ServerDisconnectedError", "ClientOSError", "ClientConnectorError")  # what clients see of a router's death
HELD = steps((10, 2), (50, 600))
SHORT = steps((10, 2), (50, 3))
METRICS = ("errors", "accuracy")


@dataclass
class Trial:
    """One ModelDeployment under steady traffic of `rps` requests a second, struck by one fault."""

    world: World
    traffic: Traffic
    rps: int
    fault: Fault
    random: Random
    entry: Entry
    struck: list[float] = field(default_factory=list)

    @property
    def mdep(self) -> ModelDeployment:
        return self.world.mdep

    def run(self, times: int) -> None:
        """Two rollouts; no request fails in them, and only one operator acts at once."""
        self.traffic.wait_for(self.rps)
        before = self.traffic.stats()
        try:
            self._a_good_model_is_promoted_once(times)
            self._a_harmful_model_is_stopped()
            self.traffic.rate(0)
            after = self._count(before, self.traffic.settled())
        except BaseException:
            with suppress(CommandError):
                self._count(before, self.traffic.stats())
            raise
        assert self.entry.failed == 0, f"requests failed: {after['errors']}, {self._moments_of_failure()}"
        self._only_successors_acted()

    def _strike(self) -> None:
        self.fault.strike(self.world, self.random)
        self.entry.times += 1
        self.struck.append(round(time.time(), 1))

    def _a_good_model_is_promoted_once(self, times: int) -> None:
        """The canary's first request comes after counting began, and the last one before evidence is compared."""
        version = f"better-{self.random.randrange(10**9)}"
        self.traffic.rate(0)
        self.traffic.settled()
        self.mdep.apply(rollout={"steps": HELD})
        generation = self.mdep.serve("better", version)
        self.mdep.wait(
            "it holds for traffic",
            lambda s: condition(s, "Reconciling").get("reason") == "NoTraffic",
            PATIENCE_SECONDS,
            generation,
        )
        arms = {arm: self.mdep.status[arm]["revision"] for arm in ("canary", "stable")}
        before = self.traffic.settled()
        self.traffic.rate(self.rps)
        for _ in range(times):
            time.sleep(self.random.uniform(*BETWEEN_SECONDS))  # the moment itself is what is random here
            if self.fault.harms_canary and "canary" not in self.mdep.status:
                break  # rolled back by what struck before
            self._strike()
        if self._was_rolled_back(generation):
            return
        self.traffic.wait_for(5 * self.rps)
        self.traffic.rate(0)
        after = self.traffic.settled()
        answers = {arm: answered(after, revision) - answered(before, revision) for arm, revision in arms.items()}
        self._wait_for_evidence(answers)
        if self._was_rolled_back(generation):  # only now, as evidence comes later than what it is of
            return
        self._all_is_evidence(times, answers, after["sent"] - before["sent"])

        self.traffic.rate(self.rps)
        self.mdep.apply(rollout={"steps": SHORT})
        self.mdep.wait_decision("Promoted", PATIENCE_SECONDS)
        status = self.mdep.wait_serving(seconds=PATIENCE_SECONDS)
        assert (status["stable"]["version"], status["weight"]) == (version, 0)
        assert "canary" not in status
        taken = [(one["decision"], one["weight"]) for one in decisions(status)]
        assert taken == [("Started", 0), ("Advanced", 10), ("Advanced", 50), ("Promoted", 100)]
        self.entry.outcome.append("promoted")

    def _was_rolled_back(self, generation: int) -> bool:
        """Wait for half of the traffic, or, where the canary suffers, for a rollback: then that is the outcome."""
        status = self.mdep.wait(
            "it gets half of the traffic or is rolled back",
            lambda s: s["phase"] == "RolledBack" or (s["weight"] == 50 and "stepStartedAt" in s.get("rollout", {})),
            PATIENCE_SECONDS,
            generation,
        )
        if status["phase"] != "RolledBack":
            return False
        record = status["history"][0]
        assert self.fault.harms_canary, f"rolled back: {record['message']}\n{self.mdep.account()}"
        self.entry.outcome.append(f"rolled back by {record['reason']}")
        return True

    def _counted(self, answers: Mapping[str, int]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """What each metric counts of each arm's answers, and what it is to count of these answers that clients got.

        What a busy server refused counts against it. Stable answered it in a second attempt, which is no evidence.
        """
        errors, accuracy = (metric(self.mdep.status, name) for name in METRICS)
        refused = {arm: errors[arm]["failures"] for arm in answers}
        counted = {
            "errors": {arm: errors[arm]["trials"] - refused[arm] for arm in answers},
            "accuracy": {arm: accuracy[arm]["trials"] for arm in answers},
        }
        return counted, {**answers, "stable": answers["stable"] - sum(refused.values())}

    def _wait_for_evidence(self, answers: Mapping[str, int]) -> None:
        """Whatever is counted late is waited for. Nobody knows that of what died with its pod."""
        deadline = time.monotonic() + (PATIENCE_SECONDS if self.fault.exact else QUIET_SECONDS)
        while self.mdep.status["phase"] != "RolledBack" and time.monotonic() < deadline:
            counted, wanted = self._counted(answers)
            if all(one == wanted for one in counted.values()):
                return
            time.sleep(0.5)

    def _all_is_evidence(self, times: int, answers: Mapping[str, int], sent: int) -> None:
        """No answer counts twice, and none is missing but the last ones of pods that died."""
        counted, wanted = self._counted(answers)
        total = sum(wanted.values())
        self.entry.outcome.append(f"{sum(counted['errors'].values())} of {total} answers are evidence")
        for name, found in counted.items():
            if self.fault.exact:
                assert found == wanted, name
            else:
                # No pod has more than half of the traffic. Where Prometheus reads, a pod of each arm dies.
                lost = LAST_SECONDS * self.rps / (1 if self.fault.prometheus else 2)
                least = total - times * lost
                assert least <= sum(found.values()) <= sent, (name, found, wanted, sent)

    def _a_harmful_model_is_stopped(self) -> None:
        """It is rolled back, never promoted, and stable is what it was."""
        stable = self.mdep.status["stable"]
        self.traffic.rate(self.rps)
        self.mdep.apply(rollout={"steps": HELD})
        self.mdep.serve("harmful", f"harmful-{self.random.randrange(10**9)}")
        self.mdep.wait_weight(10, PATIENCE_SECONDS)
        time.sleep(self.random.uniform(0, 2))  # likewise
        if "canary" in self.mdep.status:
            self._strike()
        record = self.mdep.wait_decision("RolledBack", PATIENCE_SECONDS)
        assert record["reason"] == "LessAccurate" or self.fault.harms_canary, record
        assert not any(one["decision"] == "Promoted" for one in decisions(self.mdep.status))
        status = self.mdep.wait("nothing goes to it", lambda s: s["phase"] == "RolledBack" and s["weight"] == 0)
        assert status["stable"]["revision"] == stable["revision"]
        self.entry.outcome.append("rolled back")

    def _count(self, before: Mapping[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        """Put the requests in between into the ledger."""
        failed = after["failed"] - before["failed"]
        broken = sum(after["errors"].get(kind, 0) - before["errors"].get(kind, 0) for kind in BROKEN)
        self.entry.requests = after["sent"] - before["sent"]
        self.entry.cut_off = min(broken, self.entry.times * self.fault.cut_off)
        self.entry.failed = failed - self.entry.cut_off
        return after

    def _moments_of_failure(self) -> str:
        """In which seconds how many requests failed, next to when the fault struck."""
        series = self.traffic.series()
        rises = [(now["t"], now["failed"] - last["failed"]) for last, now in pairwise(series)]
        return f"(time, failed): {[rise for rise in rises if rise[1]]}; struck until {self.struck}"

    def _only_successors_acted(self) -> None:
        """Whoever wrote the status was the one that led then, and nobody wrote beside its successor."""
        failovers = self.world.failovers
        if not failovers:
            return
        self.entry.outcome.append(f"failover within {max(one.seconds for one in failovers):.1f} s")
        written = (state.get("status", {}).get("operator") for state in self.mdep.watch.states(self.mdep.name))
        writers = [writer for writer, _ in groupby(filter(None, written))]
        assert writers == [failovers[0].leader, *(one.successor for one in failovers)]
