"""The strategy Recreate: the old revision goes, then the new one comes, or else the old one comes back."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
from tests.operator.decide.models import BROKEN, GOOD, SLEEPY, Model
from tests.operator.decide.world import Crash, World, digest, serving
from tests.operator.definition import Json, merged

from serin_operator.api.status import Phase
from serin_operator.decide.observed import Resolution, Route

RECREATE: Json = {"rollout": {"strategy": "Recreate"}, "server": {"readyTimeout": "2m"}}


def recreating(model: Model = GOOD, **changes: object) -> World:
    """v1 serves and takes 10 s to go; v2 is asked for."""
    world = serving(**merged(RECREATE, changes))
    world.stop_seconds = 10.0
    world.apply("v2", model)
    return world


def together(world: World) -> Iterator[set[str]]:
    """Which revisions had pods, after each pass."""
    for each in world.passes:
        yield {name for name, workload in each.observed.workloads.items() if workload.pods}


def never_two(world: World) -> bool:
    return all(len(names) <= 1 for names in together(world))


def test_the_old_one_goes_before_the_new_one_comes() -> None:
    world = recreating()
    taken = world.until("TakenDown", within=1)
    assert "requests fail until v2 answers" in taken.message
    world.until_activity("BringingUp", within=12)
    assert world.now - taken.time >= 10
    promoted = world.until("Promoted", within=10)
    assert (promoted.reason, world.version, world.status.phase) == ("Recreated", "v2", Phase.SERVING)
    world.run(60)
    assert never_two(world)
    assert set(world.pods) == {world.revision("v2")}
    assert world.live and world.live.route == Route(world.revision("v2"))
    assert (world.status.previous, world.status.watch) == (None, None)


def test_meanwhile_it_says_that_nothing_answers() -> None:
    world = recreating()
    world.run(5)
    assert world.activity == "TakingDown"
    ready = world.status.condition("Ready")
    assert ready and (ready.status, ready.reason) == ("False", "StableNotReady")


@pytest.mark.parametrize(("model", "reason", "seconds"), [(BROKEN, "MissingModule", 10), (SLEEPY, "NotReady", 140)])
def test_what_can_not_run_brings_the_old_one_back(model: Model, reason: str, seconds: float) -> None:
    world = recreating(model)
    world.until_activity("BringingUp")
    record = world.until("RolledBack", within=seconds)
    assert record.reason == reason
    assert record.message.endswith(". v1 starts again.")
    world.until_activity("BringingBack", within=2)
    world.until_activity(reason, within=15)
    world.run(10)
    assert (world.version, world.status.phase) == ("v1", Phase.ROLLED_BACK)
    assert world.status.stable and world.status.stable.ready_replicas == 1
    assert never_two(world)


def test_pods_that_do_not_go_are_not_waited_for_for_ever() -> None:
    world = recreating()
    world.stop_seconds = 10_000.0
    taken = world.until("TakenDown")
    promoted = world.until("Promoted", within=200)
    assert promoted.time - taken.time > world.spec.traffic.timeout + 60


def test_what_the_router_that_serves_was_asked_for_is_waited_for() -> None:
    """Another one is to take over, with a shorter timeout."""
    world = serving(**merged(RECREATE, {"traffic": {"timeout": "5m"}}))
    world.stop_seconds, world.routers = 10_000.0, False
    other = {"type": "GatewayAPI", "gatewayAPI": {"parentRefs": [{"name": "public"}]}}
    world.apply("v2", GOOD, traffic={"timeout": "1s", "router": other})
    taken = world.until("TakenDown")
    world.until_activity("BringingUp", within=500)
    assert world.now - taken.time > 300


def test_passing_trouble_is_waited_for() -> None:
    world = recreating(SLEEPY)
    world.run(60)
    world.models[digest("v2")] = GOOD
    for pod in world.pods[world.revision("v2")]:
        pod.ready_at = world.now + 1
    world.until("Promoted", within=10)


def test_paused_the_old_one_goes_on() -> None:
    world = recreating(server={"replicas": 2})
    world.change(rollout={"paused": True})
    world.run(120)
    assert (world.activity, world.status.phase) == ("Paused", Phase.PAUSED)
    assert len(world.pods[world.revision("v1")]) == 2
    assert world.pods[world.revision("v2")] == []
    world.change(rollout={"paused": False})
    world.until("Promoted", within=60)
    assert never_two(world)


def test_what_is_taken_down_is_not_paused() -> None:
    world = recreating()
    world.until("TakenDown")
    world.change(rollout={"paused": True})
    world.until("Promoted", within=60)


def test_going_back_half_way_brings_the_old_one_back() -> None:
    world = recreating(SLEEPY)
    world.until_activity("BringingUp")
    world.apply("v1")
    world.until("Superseded", within=2)
    world.run(30)
    assert (world.version, world.activity, world.status.phase) == ("v1", "", Phase.SERVING)
    assert set(world.pods) == {world.revision("v1")}
    assert never_two(world)


def test_another_revision_takes_the_place_without_the_old_one_between() -> None:
    world = recreating(SLEEPY)
    world.until_activity("BringingUp")
    world.apply("v3")
    world.until("Promoted", within=60)
    assert world.version == "v3"
    starts = [after - before for before, after in pairwise(together(world)) if after - before]
    assert starts == [{world.revision("v1")}, {world.revision("v2")}, {world.revision("v3")}]
    assert never_two(world)


def test_while_a_digest_is_read_the_old_one_comes_back() -> None:
    world = recreating(SLEEPY)
    world.until_activity("BringingUp")
    world.models[digest("v3")] = GOOD
    world.change(model={"uri": "https://models.example.com/v3", "sha256": None, "version": "v3"})
    world.run(30)
    assert world.status.stable and world.status.stable.ready_replicas == 1
    world.resolution, world.woken = Resolution(digest("v3"), 10), True
    world.until("Promoted", within=60)
    assert never_two(world)


def test_a_retry_takes_the_old_one_down_again() -> None:
    world = recreating(BROKEN)
    world.until("RolledBack")
    world.run(60)
    world.models[digest("v2")] = GOOD
    world.ask_retry("1")
    world.until("Promoted", within=60)
    assert never_two(world)


def test_an_abort_brings_the_old_one_back() -> None:
    world = recreating(SLEEPY)
    world.until_activity("BringingUp")
    world.ask_abort("1")
    assert world.until("RolledBack", within=2).reason == "Aborted"
    world.run(30)
    assert world.status.stable and world.status.stable.ready_replicas == 1


def test_there_is_nothing_to_promote() -> None:
    world = recreating()
    world.until("TakenDown")
    world.ask_promote("full")
    assert "as soon as it answers" in world.until("Ignored", within=2).message


def test_another_strategy_for_the_next_revision_first_brings_the_old_one_back() -> None:
    world = recreating(SLEEPY)
    world.until_activity("BringingUp")
    world.apply("v3", rollout={"strategy": "Canary"})
    world.until("Promoted")
    assert world.version == "v3"
    assert [record.decision for record in world.records][-6:] == [
        *("Superseded", "Started", "Advanced", "Advanced", "Advanced", "Promoted")
    ]


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
@pytest.mark.parametrize(("model", "outcome"), [(GOOD, "Promoted"), (BROKEN, "RolledBack")])
def test_a_crash_at_any_pass_changes_no_outcome(model: Model, outcome: str, where: Crash) -> None:
    for crash_at in range(20):
        world = recreating(model)
        for _ in range(crash_at):
            world.step(most=2.0)
        world.step(crash=where, most=2.0)
        world.run(60)
        assert world.decisions.count("TakenDown") >= 1
        assert world.status.history[0].decision == outcome
        assert world.status.stable and world.status.stable.ready_replicas == 1
        assert never_two(world), crash_at


def test_every_size_is_the_whole_one() -> None:
    world = recreating(server={"replicas": 3})
    world.until("Promoted", within=60)
    world.run(20)
    assert {name: len(pods) for name, pods in world.pods.items()} == {world.revision("v2"): 3}
    assert never_two(world)
