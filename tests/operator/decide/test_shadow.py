"""A canary that gets copies of requests: it earns its traffic, or its promotion, before any client hears it."""

from dataclasses import replace
from typing import Any

import pytest
from tests.operator.decide.models import GOOD, HARMFUL, Model
from tests.operator.decide.world import Crash, World, rolling, serving
from tests.operator.definition import Json

from serin_operator.api.status import Phase
from serin_operator.decide import analysis
from serin_operator.decide.observed import Route
from serin_operator.decide.roles import route_of

ACCURACY: Json = {"metrics": [{"name": "accuracy", "margin": 0.02}]}
SHADOW: Json = {"rollout": {"strategy": "Shadow", "shadow": {"percent": 20, "duration": "30s"}}, "analysis": ACCURACY}
FIRST: Json = {"rollout": {"shadow": {"percent": 20, "duration": "30s"}}, "analysis": ACCURACY}
WORSE = Model(accuracy=0.12, differs=0.1)


def shadow(model: Model = GOOD, labelled: float = 0.5, **changes: Any) -> World:
    """v1 serves, and v2 is its shadow."""
    world = serving(**(changes or SHADOW))
    world.labelled = labelled
    world.apply("v2", model)
    world.until("Advanced")
    return world


def heard(world: World) -> int:
    """Requests whose answer from the second version a client got."""
    return world.served.get(world.revision("v2"), 0)


def test_copies_go_to_the_canary_and_no_client_hears_it() -> None:
    world = shadow()
    canary = world.status.canary
    assert canary and world.status.stable
    assert route_of(world.status) == Route(world.status.stable.revision, canary.revision, mirror=20)
    assert world.status.weight == 0
    before = world.served[world.status.stable.revision]
    world.run(20)
    served = world.served[world.status.stable.revision] - before
    assert heard(world) == 0
    assert world.copied == pytest.approx(served / 5, rel=0.05)
    assert "As a shadow of 20 % of the requests" in world.told


def test_a_good_shadow_is_promoted_on_the_evidence() -> None:
    world = shadow()
    record = world.until("Promoted")
    assert (record.reason, record.weight) == ("NonInferior", 100)
    assert heard(world) == 0
    assert world.decisions == ["Started", "Serving", "Started", "Advanced", "Promoted"]
    assert "requests that both answered" in record.message
    assert world.version == "v2"


def test_it_lasts_at_least_its_duration() -> None:
    world = shadow()
    began = world.now
    assert world.until("Promoted").time - began >= 30


def test_a_worse_shadow_is_dropped_before_anybody_hears_it() -> None:
    world = shadow(WORSE)
    record = world.until("RolledBack")
    assert record.reason == "LessAccurate"
    assert heard(world) == 0
    assert world.status.phase is Phase.ROLLED_BACK
    assert route_of(world.status) == Route(world.status.stable.revision if world.status.stable else "")


@pytest.mark.parametrize(
    ("model", "reason"), [(HARMFUL, "MoreErrors"), (replace(GOOD, latency=0.5), "Slower")], ids=["errors", "latency"]
)
def test_a_shadow_that_fails_or_is_slow_is_dropped(model: Model, reason: str) -> None:
    world = shadow(model, rollout=SHADOW["rollout"])
    assert world.until("RolledBack").reason == reason
    assert heard(world) == 0


def test_answers_that_hardly_differ_need_no_label() -> None:
    world = shadow(replace(GOOD, differs=0.002), labelled=0.0)
    record = world.until("Promoted")
    assert "without a label yet" in record.message


def test_answers_that_differ_more_than_the_margin_wait_for_labels() -> None:
    world = shadow(replace(GOOD, differs=0.05), labelled=0.0)
    world.run(1800)
    assert world.activity == "GatheringEvidence"
    assert "Promoted" not in world.decisions
    world.labelled = 0.9
    world.until("Promoted")


def test_a_shadow_before_the_steps_is_followed_by_them() -> None:
    world = shadow(**FIRST)
    assert world.status.rollout and world.status.rollout.mirror == 20
    record = world.until("Advanced")
    assert (record.reason, record.step, record.weight) == ("StepPassed", 0, 5)
    assert world.status.rollout and world.status.rollout.mirror == 0
    assert heard(world) == 0
    world.until("Promoted")
    weights = [record.weight for record in world.records if record.decision == "Advanced"]
    assert weights == [0, 5, 25, 50]


def test_a_shadow_before_an_adaptive_ramp_lets_it_begin_higher() -> None:
    adaptive: Json = {"rollout": {**FIRST["rollout"], "mode": "Adaptive"}, "analysis": ACCURACY}
    world = shadow(**adaptive)
    record = world.until("Advanced")
    assert record.weight > 0
    assert world.status.rollout and world.status.rollout.exposed == 0
    world.until("Promoted")


def test_a_worse_shadow_takes_no_step() -> None:
    world = shadow(WORSE, **FIRST)
    world.until("RolledBack")
    assert heard(world) == 0


def test_a_paused_shadow_goes_on_gathering_and_is_not_promoted() -> None:
    world = shadow()
    world.change(rollout={"paused": True})
    world.run(900)
    assert "Promoted" not in world.decisions
    assert world.status.phase is Phase.PAUSED
    assert "enough for promotion" in world.status.metrics[0].message
    world.change(rollout={"paused": False})
    world.until("Promoted")


def test_copies_that_do_not_arrive_hold_the_shadow() -> None:
    world = shadow()
    world.lost = 0.5
    told = world.until_activity("TrafficShareMismatch")
    assert "16.7 % is configured" in told
    world.run(600)
    assert "Promoted" not in world.decisions


def test_metrics_that_cannot_be_read_hold_the_shadow() -> None:
    world = shadow()
    world.metrics = False
    world.until_activity("CannotSee")
    world.run(600)
    assert "Promoted" not in world.decisions


def test_another_percentage_is_followed() -> None:
    world = shadow(replace(GOOD, differs=0.05), labelled=0.0)
    world.change(rollout={"shadow": {"percent": 50}})
    record = world.until("Advanced")
    assert "50 %" in record.message
    assert world.status.rollout and world.status.rollout.mirror == 50


def test_a_spec_that_goes_back_ends_the_copies() -> None:
    world = shadow(replace(GOOD, differs=0.05), labelled=0.0)
    world.apply("v1")
    world.until("Superseded")
    assert world.status.stable
    assert route_of(world.status) == Route(world.status.stable.revision)


def test_the_status_tells_how_often_answers_differ() -> None:
    world = shadow(replace(GOOD, differs=0.05), labelled=0.0)
    world.run(120)
    assert world.status.rollout
    (remark,) = [remark for remark in world.status.rollout.remarks if remark.reason == "AnswersDiffer"]
    assert remark.message.startswith("5")
    assert "between" in remark.message


def test_the_same_look_again_counts_nothing() -> None:
    world = shadow()
    world.run(30)
    status, observed = world.status, world.passes[-1].observed
    looked = next(each.observed for each in reversed(world.passes) if each.observed.snapshot)
    assert status.rollout and status.stable and status.canary and looked.snapshot
    arms = (status.canary.revision, status.stable.revision)
    spec = observed.spec.analysis
    again = analysis.judge(spec, status.rollout.evidence, looked.snapshot, *arms, world.now, weight=20, mirror=20)
    assert again.state == status.rollout.evidence
    assert len(status.rollout.evidence) < 4096


@pytest.mark.parametrize("crash", list(Crash))
def test_an_operator_that_is_killed_goes_on(crash: Crash) -> None:
    world = serving(**SHADOW)
    world.apply("v2")
    for number in range(4000):
        world.step(crash=crash if number % 7 == 3 else None)
        if "Promoted" in world.decisions and world.version == "v2":
            break
    assert world.version == "v2"
    assert heard(world) == 0 or world.status.rollout is None


def test_labels_after_the_promotion_are_compared_with_the_record_of_the_shadow() -> None:
    world = shadow()
    world.until("Promoted")
    assert world.status.watch
    held = analysis.recall(world.spec.analysis, world.status.watch.evidence, None)
    assert held.reports[0].stable.trials > 0


def test_without_a_shadow_nothing_is_copied() -> None:
    world = rolling()
    world.run(60)
    assert world.copied == 0


def test_a_shadow_has_the_pods_that_its_copies_need() -> None:
    world = shadow(
        replace(GOOD, differs=0.05),
        labelled=0.0,
        rollout={"strategy": "Shadow", "shadow": {"percent": 50}},
        analysis=ACCURACY,
        server={"replicas": 4},
    )
    assert world.status.canary and world.status.canary.replicas == 2
    world.change(rollout={"shadow": {"percent": 100}})
    assert world.until("Advanced")
    assert world.status.canary and world.status.canary.replicas == 4
