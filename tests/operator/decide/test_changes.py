"""Changes of the spec before, during and after a rollout, and models that are turned down or not pinned."""

from dataclasses import replace

import pytest
from tests.operator.decide.models import GOOD, HARMFUL
from tests.operator.decide.world import DEFAULTS, Crash, World, digest, rolling, serving
from tests.operator.definition import Json, status_problems

from serin_operator.api.spec import Signature
from serin_operator.api.status import Phase, dump_status
from serin_operator.decide.observed import Resolution, Trouble
from serin_operator.decide.rollout import decide

ERRORS_ONLY = [{"name": "errors", "margin": 0.05}]


# --- changes of mind


def test_a_newer_spec_supersedes_the_canary() -> None:
    world = rolling(step=1)
    world.apply("v3")
    this = world.look()
    assert [record.decision for record in this.news] == ["Superseded", "Started"]
    assert world.status.weight == 0
    assert world.status.canary and world.status.canary.version == "v3"
    assert [revision.version for revision in world.status.retiring] == ["v2"]
    world.until("Promoted")
    assert world.version == "v3"
    assert set(world.pods) == {world.revision("v1"), world.revision("v3")}


def test_going_back_to_stable_ends_the_rollout() -> None:
    world = rolling(step=1)
    world.apply("v1")
    world.look()
    assert [record.decision for record in world.passes[-1].news] == ["Superseded"]
    assert (world.status.phase, world.status.weight, world.status.canary) == (Phase.SERVING, 0, None)
    world.run(60)
    assert set(world.pods) == {world.revision("v1")}
    assert world.activity == ""


def test_going_to_and_fro_takes_the_draining_canary_over() -> None:
    world = rolling(step=1)
    pods = list(world.pods[world.revision("v2")])
    world.apply("v3")
    world.look()
    world.apply("v2")
    world.look()
    assert world.status.canary and world.status.canary.version == "v2"
    assert world.pods[world.revision("v2")] == pods
    world.until("Promoted")
    assert world.version == "v2"


def test_a_change_of_the_server_is_rolled_out_too() -> None:
    world = serving()
    world.change(server={"env": [{"name": "THREADS", "value": "2"}]})
    world.until("Promoted")
    assert world.status.stable and world.status.stable.config["env"] == [{"name": "THREADS", "value": "2"}]


@pytest.mark.parametrize(
    "changes",
    [
        {"server": {"replicas": 3}},
        {"server": {"readyTimeout": "10m"}},
        {"traffic": {"timeout": "5s", "router": {"replicas": 2}}},
        {"rollout": {"steps": [{"weight": 50}], "keepPrevious": "1h"}},
        {"analysis": {"falseRollbackRate": 0.01, "metrics": ERRORS_ONLY}},
        {"model": {"uri": "https://elsewhere.example.com/v1"}},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_other_changes_start_no_rollout(changes: Json) -> None:
    world = serving()
    world.change(**changes)
    world.run(200)
    assert world.decisions == ["Started", "Serving"]
    assert world.status.observed_generation == world.generation


# --- turned down, and tried again


def rejected() -> World:
    world = serving()
    world.apply("v2", HARMFUL)
    world.until("RolledBack")
    return world


def test_a_rejected_revision_is_not_tried_again() -> None:
    world = rejected()
    world.run(400)
    world.change(rollout={"steps": [{"weight": 1}]}, server={"replicas": 2})
    world.run(400)
    assert world.decisions.count("Started") == 2
    assert world.status.phase is Phase.ROLLED_BACK
    assert world.activity == "MoreErrors"


def test_a_new_retry_mark_tries_it_again() -> None:
    world = rejected()
    world.models[digest("v2")] = GOOD
    world.ask_retry("1")
    world.until("Promoted")
    assert world.version == "v2"
    assert world.status.rejected is None


def test_one_retry_mark_is_one_retry() -> None:
    world = rejected()
    world.ask_retry("1")
    world.until("RolledBack")
    world.run(400)
    assert world.decisions.count("RolledBack") == 2
    assert world.activity == "MoreErrors"


def test_taking_the_retry_mark_away_asks_for_nothing() -> None:
    world = rejected()
    world.ask_retry("1")
    world.until("RolledBack")
    world.ask_retry(None)
    world.run(200)
    assert world.decisions.count("RolledBack") == 2


def test_another_revision_is_tried_after_a_rejected_one() -> None:
    world = rejected()
    world.apply("v3")
    world.until("Promoted")
    assert world.version == "v3"
    assert world.status.rejected is None


def test_mending_the_spec_forgets_the_rejected_revision() -> None:
    world = rejected()
    world.apply("v1")
    world.look()
    assert (world.status.phase, world.status.rejected) == (Phase.SERVING, None)
    world.apply("v2", GOOD)
    world.until("Promoted")


# --- changes while a rollout runs


@pytest.mark.parametrize(("weights", "how"), [([20], "in 1 step."), ([5, 20], "in 2 steps.")])
def test_a_rollout_begins_with_how_it_goes(weights: list[int], how: str) -> None:
    world = serving(rollout={"steps": [{"weight": weight, "duration": "60s"} for weight in weights]})
    world.apply("v2")
    assert world.until("Started").message == f"Rolling out v2 {how}"


def test_a_wider_margin_lets_it_pass_with_what_is_known() -> None:
    world = serving(analysis={"metrics": [{"name": "errors", "margin": 0.001}]})
    world.apply("v2")
    world.until_activity("GatheringEvidence")
    world.run(60)
    (before,) = world.status.metrics
    world.change(analysis={"metrics": [{"name": "errors", "margin": 0.1}]})
    world.until("Promoted")
    (after,) = world.records[-1].metrics
    assert after.canary.trials >= before.canary.trials
    assert world.decisions.count("Started") == 2


def test_a_metric_that_is_added_has_to_pass_as_well() -> None:
    world = rolling(step=2, analysis={"metrics": ERRORS_ONLY})
    world.change(analysis={"metrics": [*ERRORS_ONLY, {"name": "accuracy", "margin": 0.05}]})
    promoted = world.until("Promoted")
    assert [report.name for report in promoted.metrics] == ["errors", "accuracy"]
    errors, accuracy = promoted.metrics
    assert 0 < accuracy.canary.trials < errors.canary.trials
    assert accuracy.odds_non_inferior >= 20


def test_a_metric_that_is_taken_away_no_longer_holds() -> None:
    world = serving(analysis={"metrics": [*ERRORS_ONLY, {"name": "accuracy", "margin": 0.05}]})
    world.labelled = 0.0
    world.apply("v2")
    world.until_activity("NoTraffic")
    world.change(analysis={"metrics": ERRORS_ONLY})
    assert [report.name for report in world.until("Promoted").metrics] == ["errors"]


def test_another_latency_bound_counts_anew_and_does_not_wait_for_the_old_count() -> None:
    world = serving(analysis={"metrics": [{"name": "latency", "margin": 0.05, "slowerThan": "250ms"}]})
    world.apply("v2")
    while world.status.weight < 50:
        world.until("Advanced")
    world.until_activity("Evaluating")
    world.change(analysis={"metrics": [{"name": "latency", "margin": 0.05, "slowerThan": "500ms"}]})
    world.step()
    changed = world.now
    world.run(15)
    assert world.activity in ("Evaluating", "GatheringEvidence")
    world.until("Promoted")
    assert world.now - changed < 120


@pytest.mark.parametrize(
    ("steps", "weights"),
    [
        ([5, 25, 50, 75], [5, 25, 50, 75]),
        ([10, 30], [5, 25]),
        ([5], [5, 25]),
        ([5, 25, 26], [5, 25, 26]),
        ([1, 2, 3], [5, 25, 3]),
    ],
)
def test_changed_steps_hold_from_the_next_one_on(steps: list[int], weights: list[int]) -> None:
    world = rolling(step=1)
    world.change(rollout={"steps": [{"weight": weight, "duration": "60s"} for weight in steps]})
    world.until("Promoted")
    assert [record.weight for record in world.records if record.decision == "Advanced"] == weights


@pytest.mark.parametrize(
    ("steps", "where", "listed"),
    [
        ([5, 20, 50], "Step 2 of 3 at 25 %", 20),
        ([5], "Step 1 of 1 at 25 %", 5),
        ([5, 25, 60], "Step 2 of 3 at 25 %", 0),
    ],
)
def test_a_step_that_the_spec_has_otherwise_by_now_says_so(steps: list[int], where: str, listed: int) -> None:
    world = rolling(step=1)
    world.change(rollout={"steps": [{"weight": weight, "duration": "60s"} for weight in steps]})
    world.run(5)
    assert world.status.weight == 25
    assert world.told.startswith(f"{where}: ")
    assert world.status.rollout
    remarks = {remark.reason: remark.message for remark in world.status.rollout.remarks}
    assert ("StepsChanged" in remarks) is (listed > 0)
    if listed:
        assert f"{listed} %" in remarks["StepsChanged"]
        assert ("a promotion is next" in remarks["StepsChanged"]) is (len(steps) == 1)


def test_more_replicas_midway_hold_until_they_are_ready() -> None:
    world = rolling(step=1)
    world.start_seconds = 90.0
    world.change(server={"replicas": 5})
    world.step()
    assert "pods are ready" in world.until_activity("CanaryNotReady")
    world.until("Promoted")
    (report, *_) = world.records[-1].metrics
    assert report.canary.trials <= world.served[world.revision("v2")]


# --- a model without a pinned digest


def test_the_digest_is_read_first() -> None:
    world = World(resolution=None)
    world.apply("v1")
    world.change(model={"sha256": None})
    world.run(30)
    assert all(each.decision.resolve for each in world.passes)
    assert (world.activity, world.status.stable) == ("ResolvingModel", None)
    world.resolution = Resolution(sha256=digest("v1"), size=1234)
    world.until("Serving")
    assert not world.passes[-1].decision.resolve
    assert world.status.resolved
    assert (world.status.resolved.sha256, world.status.resolved.size) == (digest("v1"), 1234)


def test_where_signatures_are_required_nothing_new_starts_without_one() -> None:
    world = serving()
    seen = replace(world.passes[-1].observed, status=world.status)
    unsigned = replace(seen.spec, model=replace(seen.spec.model, sha256=digest("v2"), version="v2"))
    required = replace(seen, defaults=replace(DEFAULTS, require_signature=True), spec=unsigned)
    held = decide(required, world.now)
    told = held.status.condition("Stalled")
    assert told and told.reason == "SignatureRequired"
    assert (held.status.stable, held.status.canary, held.resolve) == (world.status.stable, None, False)
    assert status_problems(dump_status(held.status)) == []
    signed = replace(unsigned, model=replace(unsigned.model, signature=Signature("https://a/b.sig", "PEM")))
    started = decide(replace(required, spec=signed), world.now).status
    assert started.canary and started.canary.signature == signed.model.signature
    assert status_problems(dump_status(started)) == []


@pytest.mark.parametrize(("permanent", "condition"), [(False, "Reconciling"), (True, "Stalled")])
def test_why_a_digest_can_not_be_read_is_told_and_outlives_the_operator(permanent: bool, condition: str) -> None:
    trouble = Trouble("NotFound", "404 from models.example.com", 11, permanent)
    world = World(resolution=Resolution(trouble=trouble))
    world.apply("v1")
    world.change(model={"sha256": None})
    world.run(10, most=1.0)
    world.step(crash=Crash.BEFORE_ACT)
    told = world.status.condition(condition)
    assert told and (told.reason, told.message) == ("ModelUnresolved", "404 from models.example.com")
    assert world.status.last_failure and world.status.last_failure.exit_code == 11
    assert status_problems(dump_status(world.status)) == []
    assert status_problems(world.statuses[-1]) == []
    world.resolution = Resolution(sha256=digest("v1"), size=1234)
    world.until("Serving")


def test_the_digest_stays_pinned_until_the_address_or_version_changes() -> None:
    world = World(resolution=Resolution(sha256=digest("v1"), size=1))
    world.apply("v1")
    world.change(model={"sha256": None})
    world.until("Serving")
    world.resolution = Resolution(sha256=digest("v2"), size=1)
    world.models[digest("v2")] = GOOD
    world.run(200)
    assert world.decisions == ["Started", "Serving"]
    world.change(model={"version": "v2"})
    world.until("Promoted")
    assert world.version == "v2"


def test_a_spec_without_digest_drops_the_canary_under_way() -> None:
    world = rolling(step=1)
    world.resolution = Resolution(sha256=digest("v3"), size=1)
    world.models[digest("v3")] = GOOD
    world.change(model={"uri": "https://models.example.com/v3", "sha256": None, "version": "v3"})
    this = world.look()
    assert [record.decision for record in this.news] == ["Superseded"]
    assert (this.after.weight, world.activity, this.decision.resolve) == (0, "ResolvingModel", True)
    world.until("Promoted")
    assert world.version == "v3"
