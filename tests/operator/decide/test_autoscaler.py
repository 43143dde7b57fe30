"""The autoscaler beside a rollout: it writes one number, at any time, and takes from nobody what is needed."""

from typing import Any

import pytest
from tests.operator.decide.models import HARMFUL
from tests.operator.decide.test_capacity import AUTOSCALED, sizes
from tests.operator.decide.world import World, digest, serving
from tests.operator.definition import merged

from serin_operator.decide.capacity import SETTLING_SECONDS, changes_at


def autoscaled(replicas: int = 4, **changes: Any) -> World:
    return serving(**merged({"server": {**AUTOSCALED, "replicas": replicas}}, changes))


def autoscaler_says(world: World, replicas: int) -> None:
    """It wrote what it measured."""
    world.change(server={"replicas": replicas})
    world.step()


def test_the_autoscaler_can_not_shrink_stable_below_what_a_rollback_needs() -> None:
    """It sees that stable has less to do, and half of the traffic is only lent out."""
    world = autoscaled(4)
    world.apply("v2")
    while world.status.weight < 50:
        world.step()
    autoscaler_says(world, 2)
    assert sizes(world) == {"v1": 4, "v2": 2}
    world.models[digest("v2")] = HARMFUL
    back = world.until("RolledBack")
    world.run(30)
    assert sizes(world) == {"v1": 4}
    world.run(SETTLING_SECONDS)
    assert sizes(world) == {"v1": 2}
    assert world.now - back.time >= SETTLING_SECONDS


def test_turning_the_autoscaler_on_takes_no_pods_before_it_has_measured() -> None:
    """Where the number leaves the manifest for the autoscaler's field, the API server's default takes its place."""
    world = serving(server={"replicas": 6})
    world.run(SETTLING_SECONDS)
    world.change(server={"replicas": 1, "autoscaling": {**AUTOSCALED["autoscaling"], "minReplicas": 1}})
    world.step()
    assert (sizes(world), world.status.least_replicas) == ({"v1": 6}, 6)
    autoscaler_says(world, 6)
    world.run(SETTLING_SECONDS)
    assert (sizes(world), world.status.least_replicas) == ({"v1": 6}, None)
    autoscaler_says(world, 3)
    assert sizes(world) == {"v1": 3}


def test_a_number_below_the_minimum_is_none_that_the_autoscaler_has_measured() -> None:
    """Taking the number out of a manifest later sets it to 1. The autoscaler is led back to the pods that there are."""
    world = autoscaled(6)
    world.run(SETTLING_SECONDS)
    world.change(server={"replicas": 1})
    world.step()
    assert (sizes(world), world.status.least_replicas) == ({"v1": 6}, 6)
    passes = len(world.passes)
    world.run(60)
    assert len(world.passes) - passes < 5, "it waits for the autoscaler's word without looking all the time"
    autoscaler_says(world, 6)
    assert (sizes(world), world.status.least_replicas) == ({"v1": 6}, None)


def test_turning_the_autoscaler_off_and_on_again_begins_anew() -> None:
    world = autoscaled(4)
    world.run(SETTLING_SECONDS)
    world.change(server={"autoscaling": None, "replicas": 8})
    world.step()
    assert world.status.autoscaled_since is None
    world.change(server={**AUTOSCALED, "replicas": 1})
    world.step()
    assert (sizes(world), world.status.least_replicas) == ({"v1": 8}, 8)


def test_what_is_recreated_comes_back_with_the_pods_that_were_taken_down() -> None:
    """While there are none, the number in the spec need not be the autoscaler's."""
    world = autoscaled(6, rollout={"strategy": "Recreate"})
    world.apply("v2")
    world.until("TakenDown")
    world.change(server={"replicas": 1})
    world.until("Promoted")
    assert (sizes(world)["v2"], world.status.least_replicas) == (6, 6)


def test_the_autoscaler_is_obeyed_in_time_when_nothing_else_happens() -> None:
    world = autoscaled(4)
    autoscaler_says(world, 3)
    before = world.status.history[0].time
    assert changes_at(world.status, world.now) == before + SETTLING_SECONDS
    while sizes(world) == {"v1": 4}:
        world.step()
    assert world.now - before == pytest.approx(SETTLING_SECONDS, abs=1.0)
    assert (changes_at(world.status, world.now), world.passes[-1].decision.check_at) == (None, None)
    autoscaler_says(world, 2)
    assert sizes(world) == {"v1": 2}


def test_the_autoscalers_number_is_that_of_stables_pods_when_it_is_free_again() -> None:
    """Content with four pods, it keeps the number that it wrote last. Had that been the two of the half of the traffic,
    they would be what is left when it is free again, after a rollback and with all of the traffic."""
    world = autoscaled(4)
    world.run(SETTLING_SECONDS)
    assert world.status.least_replicas is None
    world.apply("v2")
    world.step()
    assert world.status.least_replicas == 4
    while world.status.weight < 50:
        world.step()
    autoscaler_says(world, 7)
    assert world.status.least_replicas == 7
    world.models[digest("v2")] = HARMFUL
    world.until("RolledBack")
    assert world.status.least_replicas == 7
    world.run(SETTLING_SECONDS)
    assert world.status.least_replicas is None
    assert sizes(world) == {"v1": 7}


def test_a_canary_grows_with_stable_and_the_weight_waits_for_it() -> None:
    world = autoscaled(4)
    world.apply("v2")
    while world.status.weight < 50:
        world.step()
    world.start_seconds = 45.0
    autoscaler_says(world, 8)
    assert sizes(world) == {"v1": 8, "v2": 4}
    assert "2 of 4 canary pods are ready" in world.until_activity("CanaryNotReady")
    world.until("Promoted")
    assert len(world._ready(world.revision("v2"))) == 8


def test_the_way_back_from_a_promotion_keeps_its_pods_while_it_is_watched() -> None:
    """The promoted model needs less, the autoscaler sees it, and the old one would need what it always did."""
    world = autoscaled(6, rollout={"watch": "30m", "keepPrevious": "60m"})
    world.apply("v2")
    world.until("Promoted")
    world.run(SETTLING_SECONDS + 1)
    autoscaler_says(world, 2)
    assert sizes(world) == {"v1": 6, "v2": 2}
    world.turn_bad()
    world.until("RolledBack")
    world.run(60)
    assert sizes(world) == {"v1": 6}


def test_the_way_back_waits_for_the_pods_that_the_old_model_needs() -> None:
    """The two that the promoted model does with would not do for the old one."""
    world = autoscaled(6, rollout={"watch": "30m", "keepPrevious": "60m"})
    world.apply("v2")
    world.until("Promoted")
    world.run(SETTLING_SECONDS + 1)
    autoscaler_says(world, 2)
    world.start_seconds = 40.0
    world.restart_pods(world.revision("v1"), 4)
    world.turn_bad()
    assert "only 2 of 6 pods of v1 are ready" in world.until_activity("PreviousNotReady", within=60)
    world.until("RolledBack")
    assert len(world._ready(world.revision("v1"))) == 6


def test_what_is_warm_and_no_longer_watched_follows_the_autoscaler() -> None:
    world = autoscaled(6, rollout={"watch": "5m", "keepPrevious": "60m"})
    world.apply("v2")
    world.until("Promoted")
    world.run(SETTLING_SECONDS + 60)
    autoscaler_says(world, 3)
    assert sizes(world) == {"v1": 3, "v2": 3}
