"""The operator dies by SIGKILL, in every phase of a rollout and at random: nothing is lost, doubled or undone."""

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from tests.e2e.deployments import ModelDeployment, Status, condition, decisions, metric, steps
from tests.e2e.installed import Reaper, kill_when
from tests.e2e.traffic import Traffic, answered

RPS = 60
SEED = random.SystemRandom().randrange(10**6)
QUIET_SECONDS = 15  # several intervals, longer than a step, and longer than evidence may stay unwritten

Mortal = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def mortal(serving: Callable[..., Any], reaper: Reaper) -> Iterator[Mortal]:
    with serving("mortal", RPS) as both:
        yield both


def test_killed_in_every_phase_of_a_promotion(mortal: Mortal, reaper: Reaper) -> None:
    mdep, traffic = mortal
    # A step outlasts the time that its successor takes to lead and to be aimed at.
    mdep.apply(rollout={"steps": steps((10, 25), (25, 25), (50, 25))})
    reaper.aim()
    mdep.serve("better", "better")

    kill_when(mdep, reaper, "the canary starts", lambda s: "canary" in s and "step" not in s["rollout"])
    for step in range(3):
        kill_when(mdep, reaper, f"step {step} begins", partial(_is_at, step))
    kill_when(mdep, reaper, "it is promoted", lambda s: s["stable"]["version"] == "better")

    status = mdep.wait_serving()
    assert [(one["decision"], one["weight"]) for one in decisions(status)] == [
        ("Started", 0),
        ("Advanced", 10),
        ("Advanced", 25),
        ("Advanced", 50),
        ("Promoted", 100),
    ]
    _clients_reach(mdep, traffic, status["stable"]["revision"])


def test_killed_right_after_the_verdict_and_while_the_canary_drains(mortal: Mortal, reaper: Reaper) -> None:
    mdep, traffic = mortal
    mdep.apply(rollout={"steps": steps((10, 3), (25, 3), (50, 3))})
    reaper.aim()
    mdep.serve("harmful", "harmful")
    rejected = mdep.wait("it is rolled back", lambda s: "rejected" in s)["rejected"]
    reaper.kill()
    reaper.replace()
    assert rejected["reason"] == "LessAccurate"
    _nothing_is_left_of(rejected["revision"], mdep, traffic)

    reaper.aim()
    generation = mdep.serve("harmful", "harmful-drains")
    canary = mdep.wait("it begins", lambda s: "canary" in s, 60, generation)["canary"]["revision"]
    mdep.wait("it is rolled back", partial(_drains, canary))
    time.sleep(3)  # its route has moved, and it drains for some seconds more
    assert _drains(canary, mdep.status)
    reaper.kill()
    reaper.replace()
    reaper.aim()
    _nothing_is_left_of(canary, mdep, traffic)


def test_killed_at_random_moments(mortal: Mortal, reaper: Reaper) -> None:
    mdep, traffic = mortal
    print(f"seed {SEED}")
    moments = random.Random(SEED)
    for model, decision in (("harmful", "RolledBack"), ("better", "Promoted")):
        mdep.serve(model, f"{model}-again")
        applied = mdep.applied_at
        for _ in range(2):
            reaper.aim()
            time.sleep(moments.uniform(0, 6))  # the moment itself is what is random here
            reaper.kill()
            reaper.replace()
        record = mdep.wait_decision(decision, since=applied)
        assert sum(one["decision"] == decision for one in decisions(mdep.status)) == 1
        assert record["reason"] == {"RolledBack": "LessAccurate", "Promoted": "NonInferior"}[decision]
        _clients_reach(mdep, traffic, mdep.status["stable"]["revision"])


def test_every_request_is_evidence_once_however_often_the_operator_dies(mortal: Mortal, reaper: Reaper) -> None:
    """The canary's first request comes after counting began, and the last before it is compared: exact equality."""
    mdep, traffic = mortal
    traffic.rate(0)
    traffic.settled()
    mdep.apply(rollout={"steps": steps((10, 2), (50, 600))})
    mdep.serve("better", "counted")

    # Without traffic it holds, and says so, however long the step's time is over.
    status = mdep.wait("it holds for traffic", lambda s: condition(s, "Reconciling").get("reason") == "NoTraffic")
    time.sleep(QUIET_SECONDS)
    status = mdep.status
    assert (status["phase"], status["weight"], status["rollout"]["step"]) == ("Progressing", 10, 0)
    assert condition(status, "Reconciling")["reason"] == "NoTraffic"
    assert "no canary data at this step" in condition(status, "Reconciling")["message"]

    before = traffic.settled()
    traffic.rate(RPS)
    for _ in range(3):
        reaper.aim()
        traffic.wait_for(3 * RPS)
        reaper.kill()
        reaper.replace()
    mdep.wait_weight(50)
    traffic.wait_for(5 * RPS)
    traffic.rate(0)
    after = traffic.settled()

    assert "canary" in mdep.status, mdep.account()
    arms = {arm: mdep.status[arm]["revision"] for arm in ("canary", "stable")}
    expected = {arm: answered(after, revision) - answered(before, revision) for arm, revision in arms.items()}
    assert expected["canary"] > 4 * RPS
    mdep.wait(
        f"errors counts {expected}",
        lambda s: {arm: metric(s, "errors")[arm]["trials"] for arm in arms} == expected,
        2 * QUIET_SECONDS,
    )
    labelled = {arm: metric(mdep.status, "accuracy")[arm]["trials"] for arm in arms}
    assert labelled == expected
    assert after["failed"] == 0

    traffic.rate(RPS)
    mdep.apply(rollout={"steps": steps((10, 2), (50, 3))})
    mdep.wait_decision("Promoted")


def _is_at(step: int, status: Status) -> bool:
    return bool(status.get("rollout", {}).get("step") == step)


def _drains(revision: str, status: Status) -> bool:
    """Whether the status gives it no traffic, and it is still there."""
    return status["weight"] == 0 and revision in [one["revision"] for one in status.get("retiring", [])]


def _nothing_is_left_of(revision: str, mdep: ModelDeployment, traffic: Traffic) -> None:
    mdep.wait_pods_gone(revision)
    assert [one["decision"] for one in decisions(mdep.status)][-1] == "RolledBack"
    assert mdep.status["phase"] == "RolledBack"
    _clients_reach(mdep, traffic, mdep.status["stable"]["revision"])


def _clients_reach(mdep: ModelDeployment, traffic: Traffic, revision: str) -> None:
    """Once an operator acts again this revision alone answers, and nothing failed on the way."""
    deadline = time.monotonic() + 40
    answering: set[str] = set()
    while answering != {revision}:
        assert time.monotonic() < deadline, f"{answering} answer\n{mdep.account()}"
        before = traffic.stats()
        traffic.wait_for(RPS)
        after = traffic.stats()
        answering = {name for name in after["by_revision"] if answered(after, name) > answered(before, name)}
        assert after["failed"] == 0, after["errors"]
