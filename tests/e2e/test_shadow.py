"""Shadows with real models: the canary gets copies of all requests, and no client gets one of its answers.

Two rollouts side by side: a canary that is as good as the stable model and mostly answers the same, and one that is
much worse. A third goes on to the steps of a canary.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.deployments import GOOD_ENOUGH, ModelDeployment, epoch, steps
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 60
ENOUGH_FOR_STABLE = 200
SHADOW = {"percent": 100, "duration": "3s"}

Served = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def rollouts(serving: Callable[..., Any]) -> Iterator[tuple[Served, Served]]:
    """Both under way: with the equal candidate, and with the worse one."""
    with (
        serving("shadow-equal", RPS, model="better") as equal,
        serving("shadow-worse", RPS, model="better") as worse,
    ):
        for (mdep, traffic), candidate in ((equal, "equal"), (worse, "harmful")):
            traffic.wait_for(ENOUGH_FOR_STABLE)
            mdep.spec["rollout"] |= {"strategy": "Shadow", "shadow": SHADOW}
            mdep.serve(candidate)
        yield equal, worse


def told(record: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in record["metrics"] if one["name"] == name)
    return found


def test_a_candidate_that_is_as_good_is_promoted_and_nobody_heard_it_before(
    rollouts: tuple[Served, Served], figures: Figures
) -> None:
    (mdep, traffic), _ = rollouts
    record = mdep.wait_decision("Promoted", 180)
    assert {one["verdict"] for one in record["metrics"]} <= set(GOOD_ENOUGH)
    accuracy = told(record, "accuracy")
    assert "requests that both answered" in accuracy["message"]
    assert {status["weight"] for status in mdep.statuses if "rollout" in status} == {0}
    assert any(status["rollout"].get("mirror") == 100 for status in mdep.statuses if "rollout" in status)
    figures.seconds_per_rollout["shadow, as good"] = epoch(record["time"]) - mdep.applied_at
    figures.split["labels until a shadow is promoted"] = str(accuracy["canary"]["trials"])
    traffic.wait_for(2 * RPS)
    assert traffic.answered(record["toRevision"]) > 0
    assert traffic.stats()["failed"] == 0


def test_a_worse_candidate_is_dropped_and_no_client_got_an_answer_of_it(
    rollouts: tuple[Served, Served], figures: Figures
) -> None:
    _, (mdep, traffic) = rollouts
    record = mdep.wait_decision("RolledBack", 180)
    assert (record["reason"], record["message"].partition(":")[0]) == ("LessAccurate", "accuracy")
    accuracy = told(record, "accuracy")
    assert accuracy["canary"]["failures"] > accuracy["stable"]["failures"]
    assert "the answers differ in" in accuracy["message"]
    figures.seconds_per_rollout["shadow, worse"] = epoch(record["time"]) - mdep.applied_at
    figures.split["labels until a worse shadow is dropped"] = str(accuracy["canary"]["trials"])
    traffic.wait_for(2 * RPS)
    assert traffic.answered(record["fromRevision"]) == 0
    assert {status["weight"] for status in mdep.statuses} == {0}
    assert traffic.stats()["failed"] == 0


def test_a_shadow_goes_on_to_the_steps_of_a_canary(rollouts: tuple[Served, Served]) -> None:
    (mdep, traffic), _ = rollouts
    mdep.wait_decision("Promoted", 180)
    mdep.spec["rollout"] |= {"strategy": "Canary", "shadow": SHADOW, "steps": steps((10, 3), (50, 3))}
    mdep.serve("better", "better-again")
    record = mdep.wait_decision("Promoted", 180)
    advanced = [
        one for one in mdep.status["history"] if one["decision"] == "Advanced" and epoch(one["time"]) > mdep.applied_at
    ]
    assert [one["weight"] for one in reversed(advanced)] == [0, 10, 50]
    assert record["weight"] == 100
    assert traffic.stats()["failed"] == 0
