"""The strategy BlueGreen: a preview that no client reaches, then one switch of all requests, and the way back."""

import pytest
from tests.operator.decide.models import BROKEN, GOOD, HARMFUL, Model
from tests.operator.decide.world import Crash, World, digest, serving
from tests.operator.definition import Json

from serin_operator.api.status import Phase
from serin_operator.decide.observed import Route

BOUNDS = {
    "metrics": [
        {"name": "errors", "margin": 0.05, "bound": 0.05},
        {"name": "latency", "margin": 0.05, "slowerThan": "1s", "bound": 0.1},
    ]
}


BLUE_GREEN: Json = {"rollout": {"strategy": "BlueGreen"}, "analysis": BOUNDS}


def previewing(model: Model = GOOD, preview: float = 20.0, **changes: object) -> World:
    """v2 is in the preview, which gets so many requests a second."""
    world = serving(**(BLUE_GREEN | changes))
    world.apply("v2", model)
    world.until("Advanced")
    world.preview = preview
    return world


def weights(world: World) -> set[int]:
    return {each.after.weight for each in world.passes}


def test_a_good_revision_is_switched_to_at_once() -> None:
    world = previewing()
    preview = world.records[-1]
    assert (preview.reason, preview.weight) == ("PreviewReady", 0)
    assert "iris-preview" in preview.message
    promoted = world.until("Promoted")
    assert promoted.reason == "UnderBound"
    assert {report.verdict for report in promoted.metrics} == {"UnderBound"}
    assert world.version == "v2"
    assert weights(world) == {0}
    world.run(5)
    assert world.live and world.live.route == Route(world.revision("v2"))


def test_no_client_reaches_it_before_the_switch() -> None:
    world = previewing(preview=0.0)
    world.run(60)
    assert world.served.get(world.revision("v2"), 0) == 0
    assert world.activity == "NoTraffic"
    assert "send requests to iris-preview" in world.told


def test_labels_are_waited_for_as_long_as_they_may_take() -> None:
    accuracy = {"name": "accuracy", "margin": 0.05, "bound": 0.2}
    world = previewing(analysis={"metrics": [*BOUNDS["metrics"], accuracy], "labelWindow": "2m"})
    world.run(100)
    assert world.activity == "GatheringEvidence"
    world.labelled = 0.0
    assert "no data for accuracy yet" in world.until_activity("NoTraffic", within=120)


def test_a_harmful_revision_is_rolled_back_by_its_bound() -> None:
    world = previewing(HARMFUL)
    record = world.until("RolledBack", within=300)
    assert (record.reason, record.step) == ("OverBound", 0)
    assert "errors: 20.0 % of" in record.message
    assert (world.status.weight, world.status.canary) == (0, None)
    assert weights(world) == {0}


def test_what_fails_less_than_its_bound_but_more_than_stable_is_promoted() -> None:
    """The two get other requests: that the preview's fail more often proves nothing."""
    world = previewing(Model(errors=0.03))
    assert world.until("Promoted").reason == "UnderBound"


def test_a_bound_that_both_break_holds() -> None:
    world = previewing(HARMFUL)
    world.models[digest("v1")] = HARMFUL
    world.until_activity("StableOverBound", within=600)


def test_gates_without_a_bound_hold_and_say_what_to_do() -> None:
    world = previewing(analysis={"metrics": [{"name": "errors", "margin": 0.05}]})
    world.run(60)
    assert world.activity == "NotMeasurable"
    assert "set analysis.metrics[].bound" in world.told
    (report,) = world.status.metrics
    assert report.verdict == "NotCompared"
    assert (report.difference, report.odds_worse) == (None, 1.0)
    assert "other requests than stable" in report.message
    world.change(analysis=BOUNDS)
    assert world.until("Promoted").reason == "UnderBound"


def test_a_gate_that_must_be_better_can_not_be_judged_in_a_preview() -> None:
    metric = {"name": "errors", "margin": 0.05, "bound": 0.05, "goal": "Superior"}
    world = previewing(analysis={"metrics": [metric]})
    world.run(120)
    assert world.activity == "NotMeasurable"
    assert "can not be shown to be better" in world.status.metrics[0].needed


def test_a_guard_without_a_bound_does_not_keep_it_from_promotion() -> None:
    guard = {"name": "accuracy", "margin": 0.05, "role": "Guard"}
    world = previewing(Model(accuracy=0.9), analysis={"metrics": [*BOUNDS["metrics"], guard]})
    world.until("Promoted")


def test_by_hand_it_is_switched_without_evidence() -> None:
    world = previewing(preview=0.0, analysis={"metrics": [{"name": "errors", "margin": 0.05}]})
    world.ask_promote("full")
    assert world.until("Promoted", within=5).reason == "ByHand"


def test_manual_promotion_waits_for_somebody() -> None:
    world = previewing(rollout={"strategy": "BlueGreen", "promotion": "Manual"})
    world.until_activity("AwaitingPromotion")
    world.run(60)
    world.ask_promote("1")
    assert world.until("Promoted", within=5).reason == "UnderBound"


def test_the_old_revision_stays_warm_and_takes_everything_back() -> None:
    world = previewing(rollout={"strategy": "BlueGreen", "watch": "20m", "keepPrevious": "20m"})
    world.until("Promoted")
    pods = [pod.name for pod in world.pods[world.revision("v1")]]
    world.run(60)
    world.models[digest("v2")] = Model(errors=0.3)
    record = world.until("RolledBack", within=900)
    assert record.reason in ("MoreErrors", "OverBound")
    assert record.message.startswith("errors: ") or "After promotion" in record.message
    assert world.version == "v1"
    assert [pod.name for pod in world.pods[world.revision("v1")]] == pods


def test_what_the_preview_failed_at_does_not_count_against_it_after_the_switch() -> None:
    """Below the bound, it may fail more often than stable: of other requests."""
    world = previewing(Model(errors=0.03), rollout={"strategy": "BlueGreen", "watch": "20m"})
    world.until("Promoted")
    world.models[digest("v2")] = GOOD
    world.run(1500)
    assert "RolledBack" not in world.decisions


def test_changing_the_spec_back_is_one_change_of_the_route() -> None:
    world = previewing()
    world.until("Promoted")
    world.run(5)
    world.apply("v1")
    world.until("Reverted", within=2)


def test_what_can_not_run_is_rejected() -> None:
    world = serving(rollout={"strategy": "BlueGreen"}, analysis=BOUNDS)
    world.apply("v2", BROKEN)
    assert world.until("Rejected", within=10).reason == "MissingModule"


def test_blind_it_holds() -> None:
    world = previewing()
    world.run(6)
    world.metrics = False
    world.run(60)
    assert (world.activity, world.version) == ("CannotSee", "v1")
    world.metrics = True
    world.until("Promoted")


@pytest.mark.parametrize(
    ("began", "edited"), [("BlueGreen", "Canary"), ("Canary", "BlueGreen"), ("Canary", "Recreate")]
)
def test_a_rollout_keeps_the_strategy_that_it_began_with(began: str, edited: str) -> None:
    world = serving(rollout={"strategy": began}, analysis=BOUNDS)
    world.preview = 20.0
    world.apply("v2")
    world.until("Advanced")
    world.change(rollout={"strategy": edited})
    world.step(most=1.0)
    assert world.status.rollout
    (remark,) = [remark for remark in world.status.rollout.remarks if remark.reason == "StrategyChanged"]
    assert remark.message == f"This rollout goes on as it began, by {began}; {edited} is for the next one."
    assert world.until("Promoted").reason == ("UnderBound" if began == "BlueGreen" else "NonInferior")
    assert world.status.phase is Phase.SERVING
    world.apply("v3")
    assert world.until("Started")
    assert world.status.rollout and world.status.rollout.strategy == edited


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
@pytest.mark.parametrize(("model", "outcome"), [(GOOD, "Promoted"), (HARMFUL, "RolledBack")])
def test_a_crash_at_any_pass_changes_no_outcome(model: Model, outcome: str, where: Crash) -> None:
    for crash_at in range(0, 20, 4):
        world = serving(rollout={"strategy": "BlueGreen"}, analysis=BOUNDS)
        world.preview = 20.0
        world.apply("v2", model)
        for _ in range(crash_at):
            world.step()
        world.step(crash=where)
        world.until(outcome) if outcome not in world.decisions else None
        assert weights(world) == {0}


def test_it_is_at_full_size_before_the_preview_begins_and_throughout() -> None:
    world = serving(rollout={"strategy": "BlueGreen"}, analysis=BOUNDS, server={"replicas": 4})
    world.preview = 20.0
    world.apply("v2")
    world.until("Advanced")
    canary = world.revision("v2")
    first = len(world.passes) - 1
    world.until("Promoted")
    assert {each.observed.workloads[canary].ready for each in world.passes[first:]} == {4}
    assert len(world.pods[world.revision("v1")]) == 4
