"""Ramps that the evidence drives within a budget of harm: an equal model and a harmful one, side by side."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from tests.e2e.deployments import GOOD_ENOUGH, ModelDeployment, epoch
from tests.e2e.figures import Figures
from tests.e2e.traffic import Traffic

RPS = 80
ENOUGH_FOR_STABLE = 300
BUDGET = {"equal": 300, "harmful": 100}  # with 100, one equal model in eight is held with its budget spent
MOST_WEIGHT = 50
MOST_RISE = 3  # times the weight before
MOST_STANDARD_DEVIATIONS = 3
FALSE_ROLLBACK_RATE = {"equal": 0.01, "harmful": 0.05}  # the first is how often its test may fail by chance

Rollout = tuple[ModelDeployment, Traffic]


@pytest.fixture(scope="module")
def rollouts(serving: Callable[..., Any]) -> Iterator[tuple[Rollout, Rollout]]:
    """Both under way: the equal model's, the harmful model's."""
    with (
        serving("adaptive-equal", RPS, model="better") as equal,
        serving("adaptive-harmful", RPS, model="better") as harmful,
    ):
        for (mdep, traffic), model in ((equal, "equal"), (harmful, "harmful")):
            traffic.wait_for(ENOUGH_FOR_STABLE)
            budget = {"exposureBudget": BUDGET[model], "maxWeight": MOST_WEIGHT}
            mdep.spec["analysis"]["falseRollbackRate"] = FALSE_ROLLBACK_RATE[model]
            mdep.spec["rollout"] = {"mode": "Adaptive", **budget, "keepPrevious": "1m", "watch": "0s"}
            mdep.serve(model)
        yield equal, harmful


def test_an_equal_model_is_promoted_with_bounded_rises(rollouts: tuple[Rollout, Rollout], figures: Figures) -> None:
    (mdep, traffic), _ = rollouts
    record = mdep.wait_decision("Promoted", 200)
    assert record["reason"] == "NonInferior"
    assert all(one["verdict"] in GOOD_ENOUGH for one in record["metrics"])
    weights = _weights(mdep)
    # A few failures more, by chance, may lower a weight for a while: that keeps the budget.
    assert weights[0] < max(weights) <= MOST_WEIGHT
    assert all(later <= MOST_RISE * earlier for earlier, later in pairwise(weights))
    assert traffic.stats()["failed"] == 0
    figures.seconds_per_rollout["equal, adaptive"] = epoch(record["time"]) - mdep.applied_at
    figures.split["adaptive, weights of the equal model"] = " ".join(f"{weight} %" for weight in weights)


def test_a_harmful_model_is_rolled_back_within_the_budget(rollouts: tuple[Rollout, Rollout], figures: Figures) -> None:
    _, (mdep, traffic) = rollouts
    record = mdep.wait_decision("RolledBack", 200)
    assert record["reason"] == "LessAccurate"
    assert mdep.status["stable"]["revision"] == record["toRevision"]
    assert max(_weights(mdep)) <= MOST_WEIGHT
    figures.seconds_per_rollout["harmful, adaptive"] = epoch(record["time"]) - mdep.applied_at
    figures.verdict_to_silence["harmful, adaptive"] = traffic.silence(record)

    harm = traffic.harm(record["fromRevision"], record["toRevision"])
    figures.harm["harmful, adaptive"] = harm
    # The budget bounds the harm that is expected. What happens scatters around that like any count of independent
    # events: its variance is at most its mean, the wrong answers.
    wrong = traffic.stats()["by_revision"][record["fromRevision"]]["wrong"]
    assert harm <= BUDGET["harmful"] + MOST_STANDARD_DEVIATIONS * math.sqrt(wrong)
    assert traffic.stats()["failed"] == 0


def _weights(mdep: ModelDeployment) -> list[int]:
    """The weights that the canary had, in their order, each once as long as it lasted."""
    weights: list[int] = [status["weight"] for status in mdep.statuses if "rollout" in status and status.get("weight")]
    return [weight for number, weight in enumerate(weights) if number == 0 or weight != weights[number - 1]]
