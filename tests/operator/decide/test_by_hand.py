"""What somebody asks for by annotations: when it is heeded, once, and what it can not do."""

import pytest
from tests.operator.decide.models import BROKEN, GOOD, HARMFUL, Model
from tests.operator.decide.world import Crash, World, rolling, serving

from serin_operator.api.status import Phase, Record
from serin_operator.decide.observed import Route

PAUSED = {"steps": [{"weight": 10, "duration": "20s", "pause": True}, {"weight": 50, "duration": "20s"}]}


def paused(model: Model = GOOD, **rollout: object) -> World:
    """v2 waits at its first step until somebody promotes."""
    world = serving(rollout=PAUSED | rollout)
    world.apply("v2", model)
    world.until_activity("AwaitingPromotion")
    return world


def last(world: World, decision: str) -> Record:
    return next(record for record in reversed(world.records) if record.decision == decision)


# --- pauses


def test_a_paused_step_lasts_its_time_and_then_waits() -> None:
    world = serving(rollout=PAUSED)
    world.apply("v2")
    first = world.until("Advanced")
    world.until_activity("AwaitingPromotion")
    assert 20 <= world.now - first.time < 30
    assert world.status.phase is Phase.PAUSED
    assert "waiting until somebody allows the next step (serin promote iris, or kubectl annotate" in world.told
    world.run(60)
    assert (world.status.weight, world.activity) == (10, "AwaitingPromotion")


def test_a_mark_ends_the_pause_and_the_evidence_promotes() -> None:
    world = paused()
    world.ask_promote("1")
    record = world.until("Advanced", within=5)
    assert (record.reason, record.weight) == ("ByHand", 50)
    assert world.status.phase is Phase.PROGRESSING
    assert world.until("Promoted").reason == "NonInferior"


def test_a_mark_ends_a_timed_step_before_its_time() -> None:
    world = rolling(rollout={"steps": [{"weight": 10, "duration": "1h"}, {"weight": 50, "duration": "1h"}]})
    world.run(20)
    world.ask_promote("1")
    assert world.until("Advanced", within=5).reason == "ByHand"
    world.run(60)
    assert (world.status.weight, world.activity) == (50, "Evaluating")


def test_a_pause_at_the_last_step_waits_for_somebody_and_for_the_evidence() -> None:
    world = serving(
        rollout={"steps": [{"weight": 50, "duration": "5s", "pause": True}]},
        analysis={"metrics": [{"name": "errors", "margin": 0.001}]},
    )
    world.apply("v2")
    world.until_activity("AwaitingPromotion")
    assert "allows promotion" in world.told
    world.ask_promote("1")
    world.run(20)
    assert world.activity == "GatheringEvidence"
    world.change(analysis={"metrics": [{"name": "errors", "margin": 0.05}]})
    promoted = world.until("Promoted")
    assert promoted.reason == "NonInferior"
    assert "as allowed by hand" in promoted.message


def test_a_pause_does_not_count_for_max_duration() -> None:
    world = paused(maxDuration="3m", onInconclusive="Rollback")
    world.run(300)
    assert world.activity == "AwaitingPromotion"
    world.ask_promote("1")
    world.until("Promoted", within=300)


def test_a_canary_that_turns_bad_in_a_pause_is_rolled_back() -> None:
    world = paused()
    world.models[world.status.canary.sha256] = HARMFUL  # type: ignore[union-attr]
    assert world.until("RolledBack", within=120).reason == "MoreErrors"


def test_a_pause_that_is_taken_out_of_the_spec_is_over() -> None:
    world = paused()
    world.change(rollout={"steps": [{"weight": 10, "duration": "20s"}, {"weight": 50, "duration": "20s"}]})
    assert world.until("Advanced", within=5).reason == "StepPassed"


def test_a_longer_duration_goes_on_where_the_pause_began() -> None:
    world = paused()
    world.run(120)
    world.change(rollout={"steps": [{"weight": 10, "duration": "60s", "pause": True}, {"weight": 50}]})
    world.run(10)
    assert world.activity == "Evaluating"
    world.until_activity("AwaitingPromotion", within=40)


@pytest.mark.parametrize("mode", ["Steps", "Adaptive"])
def test_manual_promotion_waits_once_the_evidence_suffices(mode: str) -> None:
    world = serving(rollout={"promotion": "Manual", "mode": mode})
    world.apply("v2")
    world.until_activity("AwaitingPromotion")
    assert {report.verdict for report in world.status.metrics} <= {"NonInferior", "Superior"}
    world.run(60)
    assert world.activity == "AwaitingPromotion"
    world.ask_promote("ship it")
    promoted = world.until("Promoted", within=5)
    assert (promoted.reason, "as allowed by hand" in promoted.message) == ("NonInferior", True)


# --- promotion without evidence


@pytest.mark.parametrize("mark", ["full", "full-1750000000"])
def test_full_promotes_at_once_and_is_watched(mark: str) -> None:
    world = paused()
    world.ask_promote(mark)
    promoted = world.until("Promoted", within=5)
    assert promoted.reason == "ByHand"
    assert "by hand and without waiting for evidence" in promoted.message
    assert world.status.watch is not None


@pytest.mark.parametrize("mark", ["full:{}", "full:{}-1750000000"])
def test_full_for_a_revision_promotes_no_other(mark: str) -> None:
    """Somebody looks at v2 and allows it; what came in the same moment is v3."""
    world = paused()
    looked_at = world.revision("v2")
    world.apply("v3")
    world.until_activity("AwaitingPromotion")
    world.ask_promote(mark.format(looked_at))
    ignored = world.until("Ignored", within=5)
    assert (ignored.reason, looked_at in ignored.message) == ("NothingToPromote", True)
    assert f"the one under way is {world.revision('v3')}" in ignored.message
    world.run(30)
    assert world.activity == "AwaitingPromotion"
    world.ask_promote(mark.format(world.revision("v3")))
    assert world.until("Promoted", within=5).reason == "ByHand"


@pytest.mark.parametrize("mark", ["full:", "full:-1750000000"])
def test_full_for_a_revision_without_a_name_promotes_nothing(mark: str) -> None:
    """It is what a script writes that found no canary to look at."""
    world = paused()
    world.ask_promote(mark)
    assert world.until("Ignored", within=5).reason == "NothingToPromote"
    assert world.activity == "AwaitingPromotion"


@pytest.mark.parametrize("mark", ["Mon Nov 30 11:35:36 UTC 2026", "11:35:36", "ship it: yes"])
def test_a_colon_names_a_revision_only_after_full(mark: str) -> None:
    world = paused()
    world.ask_promote(mark)
    assert world.until("Advanced", within=5).reason == "ByHand"


def test_full_does_not_go_before_evidence_of_harm() -> None:
    world = paused()
    world.models[world.status.canary.sha256] = Model(errors=1.0)  # type: ignore[union-attr]
    world.elapse(60)
    world.ask_promote("full")
    world.elapse(6)
    world.until("RolledBack", within=5)
    assert "Promoted" not in world.decisions


def test_full_waits_for_pods_and_for_a_pause_of_the_spec() -> None:
    world = paused()
    world.change(rollout={"paused": True})
    world.ask_promote("full")
    world.run(60)
    assert world.activity == "Paused"
    world.start_seconds = 30.0
    world.restart_pods(world.revision("v2"))
    world.change(rollout={"paused": False})
    world.run(10)
    assert world.activity in ("CanaryNotReady", "CannotSee")
    assert world.until("Promoted", within=60).reason == "ByHand"


def test_full_promotes_although_metrics_can_not_be_read() -> None:
    world = serving()
    world.metrics = False
    world.apply("v2")
    world.until_activity("CannotSee")
    world.ask_promote("full")
    assert world.until("Promoted", within=5).reason == "ByHand"
    assert world.status.watch is None
    assert world.version == "v2"


# --- abort


def test_an_abort_rolls_back_and_is_remembered_until_a_retry() -> None:
    world = paused()
    world.ask_abort("1")
    record = world.until("RolledBack", within=5)
    assert record.reason == "Aborted"
    assert (world.status.weight, world.activity) == (0, "Aborted")
    world.run(60)
    assert world.live and world.live.route == Route(world.revision("v1"))
    assert world.decisions.count("Started") == 2
    world.ask_retry("again")
    world.until("Started", within=5)
    world.until_activity("AwaitingPromotion")


def test_an_abort_before_the_first_step_rejects() -> None:
    world = serving()
    world.start_seconds = 60.0
    world.apply("v2")
    world.run(5)
    world.ask_abort("1")
    assert world.until("Rejected", within=5).reason == "Aborted"


def test_of_both_marks_at_once_the_abort_counts() -> None:
    world = paused()
    world.promote, world.abort = "full", "1"
    world.step(most=1.0)
    assert world.status.phase is Phase.ROLLED_BACK


# --- once


def test_a_mark_acts_once() -> None:
    world = serving(rollout={"steps": [{"weight": w, "duration": "5s", "pause": True} for w in (10, 20, 30)]})
    world.apply("v2")
    world.until_activity("AwaitingPromotion")
    world.ask_promote("1")
    world.until("Advanced", within=5)
    world.run(60)
    assert world.status.weight == 20
    world.ask_promote(None)
    world.run(5)
    world.ask_promote("1")
    assert world.until("Advanced", within=5).weight == 30


@pytest.mark.parametrize("where", list(Crash), ids=lambda where: where.name)
def test_a_mark_acts_once_over_a_crash(where: Crash) -> None:
    world = serving(rollout={"steps": [{"weight": w, "duration": "5s", "pause": True} for w in (10, 20, 30)]})
    world.apply("v2")
    world.until_activity("AwaitingPromotion")
    world.ask_promote("1")
    world.step(crash=where)
    world.run(60)
    assert world.status.weight == 20


def test_a_mark_of_an_earlier_rollout_means_nothing_to_the_next() -> None:
    world = paused()
    world.ask_promote("1")
    world.until("Promoted")
    world.apply("v3")
    world.until_activity("AwaitingPromotion")
    world.run(60)
    assert world.status.weight == 10


def test_a_mark_that_comes_with_another_spec_is_not_for_the_new_canary() -> None:
    world = paused()
    world.apply("v3")
    world.ask_promote("full")
    world.until_activity("AwaitingPromotion")
    world.run(60)
    assert (world.version, world.status.weight) == ("v1", 10)


@pytest.mark.parametrize(
    ("ask", "reason", "words"),
    [
        ("ask_promote", "NothingToPromote", "No rollout is under way"),
        ("ask_abort", "NothingToAbort", "No rollout is under way"),
    ],
)
def test_what_is_asked_in_vain_is_told(ask: str, reason: str, words: str) -> None:
    world = serving()
    getattr(world, ask)("1")
    record = world.until("Ignored", within=5)
    assert (record.reason, words in record.message) == (reason, True)
    world.run(60)
    assert world.decisions.count("Ignored") == 1
    world.apply("v2")
    world.until("Promoted")


def test_an_adaptive_ramp_waits_for_nobody() -> None:
    world = serving(rollout={"mode": "Adaptive"})
    world.apply("v2")
    world.until("Advanced")
    world.ask_promote("1")
    assert "value full promotes" in world.until("Ignored", within=5).message


def test_annotations_that_a_new_resource_comes_with_mean_nothing() -> None:
    world = World()
    world.promote, world.abort = "full", "1"
    world.apply("v1")
    world.until("Serving")
    assert "Ignored" not in world.decisions
    world.apply("v2", BROKEN)
    assert world.until("Rejected").reason == "MissingModule"
