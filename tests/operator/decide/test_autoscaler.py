"""The autoscaler beside a rollout: it writes one number, at any time, and takes from nobody what is needed."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from tests.operator.decide.models import GOOD, HARMFUL, Model
from tests.operator.decide.test_capacity import AUTOSCALED, sizes
from tests.operator.decide.world import Crash, World, digest, serving
from tests.operator.definition import merged

from serin_operator.api.status import Phase, Status
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
    autoscaler_says(world, 2)  # which is below its minimum meanwhile, so it is none that it has measured
    assert sizes(world) == {"v1": 4, "v2": 2}
    world.models[digest("v2")] = HARMFUL
    back = world.until("RolledBack")
    world.run(30)
    assert sizes(world) == {"v1": 4}
    world.run(SETTLING_SECONDS)
    assert sizes(world) == {"v1": 4}
    assert world.now - back.time >= SETTLING_SECONDS
    autoscaler_says(world, 4)
    autoscaler_says(world, 2)
    assert sizes(world) == {"v1": 2}


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
    before = world.status.history[0].time
    assert changes_at(world.status, world.now) == before + SETTLING_SECONDS
    while world.status.least_replicas is not None:
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


def promoted_to_a_cheaper_model() -> World:
    """Of six pods the autoscaler leaves it two, and the promotion is watched."""
    world = autoscaled(6, rollout={"watch": "30m", "keepPrevious": "60m"})
    world.apply("v2")
    world.until("Promoted")
    world.run(SETTLING_SECONDS + 1)
    autoscaler_says(world, 2)
    return world


def test_the_way_back_from_a_promotion_keeps_its_pods_while_it_is_watched() -> None:
    """The promoted model needs less, the autoscaler sees it, and the old one would need what it always did."""
    world = promoted_to_a_cheaper_model()
    assert sizes(world) == {"v1": 6, "v2": 2}
    world.turn_bad()
    world.until("RolledBack")
    world.run(60)
    assert sizes(world) == {"v1": 6}


def test_the_way_back_waits_for_the_pods_that_the_old_model_needs() -> None:
    """The two that the promoted model does with would not do for the old one."""
    world = promoted_to_a_cheaper_model()
    world.start_seconds = 40.0
    world.restart_pods(world.revision("v1"), 4)
    world.turn_bad()
    assert "only 2 of 5 pods of v1 are ready" in world.until_activity("PreviousNotReady", within=60)
    world.until("RolledBack")
    assert len(world._ready(world.revision("v1"))) >= 5


def test_what_is_warm_and_no_longer_watched_follows_the_autoscaler() -> None:
    world = autoscaled(6, rollout={"watch": "5m", "keepPrevious": "60m"})
    world.apply("v2")
    world.until("Promoted")
    world.run(SETTLING_SECONDS + 60)
    autoscaler_says(world, 3)
    assert sizes(world) == {"v1": 3, "v2": 3}


# --- in a loop with one that measures


class Autoscaler:
    """What Kubernetes' own does, every 15 s: by the CPU of the pods that the selector names, or by the requests in
    flight in all pods. At its target a pod answers `each` requests per second.

    It shrinks to no less than the most that it wanted within five minutes.
    """

    def __init__(self, world: World, each: float, cpu: bool) -> None:
        self.world, self.each, self.cpu = world, each, cpu
        self.wanted: list[tuple[float, int]] = []

    def look(self) -> None:
        world, status, spec = self.world, self.world.status, self.world.spec
        assert spec.server.autoscaling and status.stable and world.live
        route, asked = world.live.route, spec.server.replicas
        assert status.selector.endswith(status.stable.revision)
        pods = len(world._ready(status.stable.revision)) if self.cpu else status.replicas
        here = 1 - route.weight / 100 if route.stable == status.stable.revision else 0.0
        ratio = world.traffic * (here if self.cpu else 1.0) / (self.each * pods)
        content = asked if self.cpu else status.replicas
        wanted = content if abs(ratio - 1) <= 0.1 else math.ceil(ratio * pods)
        self.wanted = [then for then in self.wanted if then[0] > world.now - 300] + [(world.now, wanted)]
        least = status.least_replicas or spec.server.autoscaling.min_replicas
        stabilised = max(asked, wanted) if wanted > asked else min(asked, max(then for _, then in self.wanted))
        number = min(max(stabilised, least), spec.server.autoscaling.max_replicas)
        if number != asked:
            world.change(server={"replicas": number})

    def run(self, until: str, seconds: float = 3600.0, crash: Crash | None = None) -> Iterator[Status]:
        """The status after each pass, until a decision is made. crash: where every other pass is killed."""
        end, due, before = self.world.now + seconds, self.world.now, len(self.world.decisions)
        while self.world.now < end and until not in self.world.decisions[before:]:
            if self.world.now >= due:
                self.look()
                due = self.world.now + 15
            self.world.step(max(0.05, due - self.world.now), crash if len(self.world.passes) % 2 else None)
            yield self.world.status


@pytest.mark.parametrize("cpu", [True, False], ids=["by CPU", "by requests in flight"])
def test_a_rollout_at_steady_traffic_changes_no_number(cpu: bool) -> None:
    """Neither does a canary drive stable to its maximum, nor does the promoted revision begin with the minimum."""
    world = autoscaled(5)
    world.run(SETTLING_SECONDS)
    loop = Autoscaler(world, each=20.0, cpu=cpu)
    world.apply("v2")
    assert {status.stable.replicas for status in loop.run("Promoted") if status.stable} == {5}
    assert len(world._ready(world.revision("v2"))) == 5
    assert {status.stable.replicas for status in loop.run("", SETTLING_SECONDS + 600) if status.stable} == {5}


@pytest.mark.parametrize("cpu", [True, False], ids=["by CPU", "by requests in flight"])
def test_a_rollback_finds_the_pods_that_all_of_the_traffic_needs(cpu: bool) -> None:
    world = autoscaled(5, rollout={"steps": [{"weight": 90, "duration": "20m"}]})
    world.run(SETTLING_SECONDS)
    loop = Autoscaler(world, each=20.0, cpu=cpu)
    world.apply("v2")
    assert {status.stable.replicas for status in loop.run("Promoted", 900) if status.stable} == {5}
    assert world.status.weight == 90
    world.models[digest("v2")] = HARMFUL
    assert {status.stable.replicas for status in loop.run("RolledBack") if status.stable} == {5}
    assert {status.stable.replicas for status in loop.run("", SETTLING_SECONDS + 600) if status.stable} == {5}


@pytest.mark.parametrize("crash", Crash)
@pytest.mark.parametrize("model", [GOOD, HARMFUL], ids=["promoted", "rolled back"])
def test_an_operator_that_is_killed_all_the_time_leaves_the_same_number(crash: Crash, model: Model) -> None:
    world = autoscaled(5)
    world.run(SETTLING_SECONDS)
    loop = Autoscaler(world, each=20.0, cpu=True)
    world.apply("v2", model)
    for status in loop.run("", 900, crash):
        assert status.stable and status.stable.replicas == 5
        assert len(world._ready(status.stable.revision)) == 5
    ends = ("v2", Phase.SERVING) if model is GOOD else ("v1", Phase.ROLLED_BACK)
    assert (world.version, world.status.phase) == ends


def test_what_grows_during_a_rollout_grows_in_both_revisions() -> None:
    world = autoscaled(5)
    world.run(SETTLING_SECONDS)
    loop = Autoscaler(world, each=20.0, cpu=False)
    world.apply("v2")
    list(loop.run("Advanced"))
    world.traffic = 160.0
    list(loop.run("Promoted"))
    assert sizes(world) == {"v1": 8, "v2": 8}
    world.traffic = 60.0
    list(loop.run("", 2 * SETTLING_SECONDS + 60))
    assert sizes(world)["v2"] == 3


def test_turning_it_on_finds_the_number_without_falling_below_it() -> None:
    world = serving(server={"replicas": 7, "resources": {"requests": {"cpu": "1"}}})
    world.run(SETTLING_SECONDS)
    turned_on = {"minReplicas": 1, "maxReplicas": 10, "cpu": {"averageUtilization": 70}}
    world.change(server={"replicas": 1, "autoscaling": turned_on})
    world.step()
    assert world.status.canary is None
    loop = Autoscaler(world, each=20.0, cpu=True)
    sizes_of_stable = [status.stable.replicas for status in loop.run("", 3 * SETTLING_SECONDS) if status.stable]
    assert (min(sizes_of_stable), sizes_of_stable[-1]) == (5, 5)
