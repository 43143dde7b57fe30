"""Two operators, of which one acts: it dies, hangs and wakes up again, or goes; the other takes over and only that one.

All of it happens in one rollout under load, and the evidence is compared with what the clients counted.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest
from demo.environment import OPERATORS, SERIN_NAMESPACE
from tests.e2e.cluster import select
from tests.e2e.deployments import ModelDeployment, condition, metric, steps
from tests.e2e.installed import Operator, Reaper
from tests.e2e.traffic import Traffic, answered

RPS = 60  # a pod that stands still for two seconds has fewer under way than it takes
FAILOVER_SECONDS = 15.0
HANDOVER_SECONDS = 5.0
QUIET_SECONDS = 15  # longer than evidence may stay unwritten

Guarded = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def guarded(serving: Callable[..., Any]) -> Iterator[Guarded]:
    with serving("relayed", RPS) as both:
        yield both


def test_one_of_two_leads_and_both_say_who(operator: Operator) -> None:
    pods = [pod["metadata"]["name"] for pod in operator.wait_replicas(2)]
    leader = operator.wait_leader()
    name = leader.rpartition("_")[0]
    assert {pod for pod in pods if operator.leads(pod)} == {name}
    assert operator.health(name) == f"ok: {leader} leads"
    [other] = set(pods) - {name}
    assert operator.health(other).endswith(f"stands by, {leader} leads")


def test_only_the_successor_acts_and_no_request_is_lost_or_counted_twice(
    guarded: Guarded, operator: Operator, reaper: Reaper
) -> None:
    """The canary's first request comes after counting began, and the last before it is compared: exact equality."""
    mdep, traffic = guarded
    traffic.rate(0)
    traffic.settled()
    mdep.apply(rollout={"steps": steps((10, 2), (50, 600))})
    generation = mdep.serve("better", "relayed")
    mdep.wait("it holds for traffic", lambda s: condition(s, "Reconciling").get("reason") == "NoTraffic")
    before = traffic.settled()
    traffic.rate(RPS)
    leaders = [operator.wait_leader()]

    # Killed; the other one, or a new process in the same pod, is next.
    operator.wait_replicas(2)
    reaper.aim()
    at = reaper.kill()
    leaders.append(_succeeds(mdep, operator, leaders, at, FAILOVER_SECONDS))

    # Stopped, and going on when another leads.
    operator.wait_replicas(2)
    reaper.aim()
    at = reaper.send("SIGSTOP")
    leaders.append(_succeeds(mdep, operator, leaders, at, FAILOVER_SECONDS))
    reaper.send("SIGCONT")
    time.sleep(QUIET_SECONDS)
    assert not operator.leads(leaders[-2].rpartition("_")[0])

    # Gone in order.
    operator.wait_replicas(2)
    at = time.time()
    gone = leaders[-1].rpartition("_")[0]
    mdep.cluster.kubectl("delete", "pod", gone, "-n", SERIN_NAMESPACE, "--wait=false")
    leaders.append(_succeeds(mdep, operator, leaders[-1:], at, HANDOVER_SECONDS))

    mdep.wait_weight(50)
    traffic.wait_for(5 * RPS)
    traffic.rate(0)
    after = traffic.settled()
    assert after["failed"] == 0, after["errors"]

    assert "canary" in mdep.status, mdep.account()
    arms = {arm: mdep.status[arm]["revision"] for arm in ("canary", "stable")}
    expected = {arm: answered(after, revision) - answered(before, revision) for arm, revision in arms.items()}
    mdep.wait(
        f"errors counts {expected}",
        lambda s: {arm: metric(s, "errors")[arm]["trials"] for arm in arms} == expected,
        2 * QUIET_SECONDS,
    )
    assert {arm: metric(mdep.status, "accuracy")[arm]["trials"] for arm in arms} == expected

    # Whoever wrote anything was the one that led then, and each of them for one stretch.
    states = [state for state in mdep.watch.states(mdep.name) if state["metadata"]["generation"] >= generation]
    writers = [writer for writer, _ in groupby(state["status"]["operator"] for state in states)]
    assert writers == leaders
    marks = {
        owned["metadata"]["annotations"]["serin.dev/operator"]
        for owned in mdep.owned("deployments,services,configmaps")
        if owned["metadata"].get("annotations", {}).get("serin.dev/operator")
    }
    assert marks == {leaders[-1]}

    traffic.rate(RPS)
    mdep.apply(rollout={"steps": steps((10, 2), (50, 3))})
    mdep.wait_decision("Promoted")
    _told_once(mdep)


def _succeeds(mdep: ModelDeployment, operator: Operator, before: list[str], at: float, seconds: float) -> str:
    """Who leads instead of these, once it has written; that took so many seconds at most."""
    leader = operator.wait_leader(*before)
    mdep.wait(f"{leader} writes", lambda status: status.get("operator") == leader, seconds)
    took = time.time() - at
    print(f"{leader} acts {took:.1f} s after the fault")
    assert took < seconds
    return leader


def _told_once(mdep: ModelDeployment) -> None:
    """No decision was logged by two operators."""
    lines = []
    for pod in select(mdep.cluster, "pods", SERIN_NAMESPACE, OPERATORS):
        log = mdep.cluster.kubectl("logs", "-n", SERIN_NAMESPACE, pod["metadata"]["name"])
        for line in (json.loads(text) for text in log.splitlines() if text.startswith("{")):
            if line["logger"] == "serin.decision" and line["decision"]["modelDeployment"] == mdep.name:
                lines.append((line["decision"]["time"], line["decision"]["decision"]))
    assert len(lines) == len(set(lines)) > 0
