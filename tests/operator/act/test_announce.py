"""What people are told, and when they are left in peace."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from serin_operator.act.announce import announce, announce_mended, log_decisions
from serin_operator.act.client import ApiError
from serin_operator.api.status import (
    Condition,
    Failure,
    MetricReport,
    Record,
    Remark,
    Revision,
    Rollout,
    Status,
    Tally,
    Watch,
)

NOW = 1_750_000_000.0
RESOURCE = {
    "apiVersion": "serin.dev/v1alpha1",
    "kind": "ModelDeployment",
    "metadata": {"name": "iris", "namespace": "shop", "uid": "0b29", "resourceVersion": "7"},
}
STARTED = Record(NOW, "Started", "SpecChanged", "Rolling out v2 in 3 steps.", to_revision="b" * 10)
REPORT = MetricReport("errors", "Worse", Tally(9, 10), Tally(1, 90), 4000.0, 0.1, "90 % failed.")
ROLLED_BACK = Record(NOW + 9, "RolledBack", "MoreErrors", "errors: 90 % failed.", step=0, metrics=(REPORT,))


class Events:
    """An API server that takes Events, or refuses them with this error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.bodies: list[Mapping[str, Any]] = []
        self.error = error

    async def create(self, body: Mapping[str, Any]) -> None:
        if self.error:
            raise self.error
        self.bodies.append(body)


def reconciling(reason: str, message: str = "why") -> Status:
    return Status(conditions=(Condition("Reconciling", "True", reason, message, NOW),))


def remarked(*remarks: tuple[str, str], canary: str = "b" * 10) -> Status:
    """A rollout of this canary with these remarks, each a reason and a sentence."""
    revision = Revision(canary, "v2", "https://models.example.com/v2", "joblib", "0" * 64, "server:1")
    return Status(canary=revision, rollout=Rollout(NOW, remarks=tuple(Remark(*remark) for remark in remarks)))


def watched(reason: str) -> Status:
    """A promotion that is watched, stalled for this reason."""
    stalled = (Condition("Stalled", "True", reason, "why", NOW),)
    return Status(conditions=stalled, watch=Watch("b" * 10, "a" * 10, NOW + 600))


def drifted(status: str) -> Status:
    return Status(conditions=(Condition("Drifted", status, "DriftFound" if status == "True" else "Other", "why", NOW),))


async def told(before: Status, after: Status) -> list[tuple[str, str, str]]:
    events = Events()
    await announce(events, RESOURCE, before, after)  # type: ignore[arg-type]
    return [(body["type"], body["reason"], body["note"]) for body in events.bodies]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(Status(), Status(), [], id="nothing"),
        pytest.param(Status(history=(STARTED,)), Status(history=(STARTED,), weight=5), [], id="no decision"),
        pytest.param(
            Status(),
            Status(history=(STARTED,)),
            [("Normal", "Started", "SpecChanged: Rolling out v2 in 3 steps.")],
            id="a decision",
        ),
        pytest.param(
            Status(),
            Status(history=(ROLLED_BACK, STARTED)),
            [
                ("Normal", "Started", "SpecChanged: Rolling out v2 in 3 steps."),
                ("Warning", "RolledBack", "MoreErrors: errors: 90 % failed."),
            ],
            id="two decisions, oldest first",
        ),
        pytest.param(
            Status(),
            Status(last_failure=Failure("b", "MissingModule", "no module named 'x'", NOW, 21)),
            [("Warning", "MissingModule", "no module named 'x' (exit code 21)")],
            id="a failure",
        ),
        pytest.param(
            Status(),
            Status(last_failure=Failure("b", "Crashed", "container server ended with exit code 42 (Error)", NOW, 42)),
            [("Warning", "Crashed", "container server ended with exit code 42 (Error)")],
            id="a failure that says its exit code",
        ),
        pytest.param(
            Status(last_failure=Failure("b", "Crashed", "again", NOW)),
            Status(last_failure=Failure("b", "Crashed", "again", NOW)),
            [],
            id="the same failure",
        ),
        pytest.param(Status(), drifted("True"), [("Warning", "DriftFound", "why")], id="drift begins"),
        pytest.param(drifted("True"), drifted("True"), [], id="drift goes on"),
        pytest.param(drifted("True"), drifted("False"), [("Normal", "Other", "why")], id="drift ends"),
        pytest.param(drifted("Unknown"), drifted("False"), [], id="no drift"),
        pytest.param(Status(), reconciling("NoTraffic"), [("Normal", "NoTraffic", "why")], id="a hold begins"),
        pytest.param(reconciling("NoTraffic"), reconciling("NoTraffic", "other words"), [], id="a hold goes on"),
        pytest.param(
            reconciling("NoTraffic"), reconciling("CannotSee"), [("Normal", "CannotSee", "why")], id="another hold"
        ),
        pytest.param(Status(), reconciling("Evaluating"), [], id="no hold"),
        pytest.param(reconciling("NoTraffic"), Status(), [], id="a hold ends"),
        pytest.param(
            Status(), reconciling("ExposureSpent"), [("Warning", "ExposureSpent", "why")], id="a hold that needs help"
        ),
        pytest.param(
            Status(), watched("PreviousNotReady"), [("Warning", "PreviousNotReady", "why")], id="nothing to go back to"
        ),
        pytest.param(watched("PreviousNotReady"), watched("PreviousNotReady"), [], id="still nothing to go back to"),
        pytest.param(
            remarked(),
            remarked(("CannotDecideInTime", "It takes 9 h.")),
            [("Warning", "CannotDecideInTime", "It takes 9 h.")],
            id="a remark",
        ),
        pytest.param(
            remarked(("CannotDecideInTime", "It takes 9 h.")),
            remarked(("CannotDecideInTime", "It takes 8 h."), ("Overdispersed", "by 2.")),
            [("Normal", "Overdispersed", "by 2.")],
            id="one more remark, and one in other words",
        ),
        pytest.param(
            remarked(("Overdispersed", "by 2.")),
            remarked(("Overdispersed", "by 2."), canary="c" * 10),
            [("Normal", "Overdispersed", "by 2.")],
            id="the same remark on another canary",
        ),
        pytest.param(remarked(("Overdispersed", "by 2.")), Status(), [], id="the rollout is over"),
        pytest.param(
            remarked(),
            remarked(("AnswersDiffer", "0.0 % of 16 requests got another answer.")),
            [("Normal", "AnswersDiffer", "0.0 % of 16 requests got another answer.")],
            id="a remark that asks nobody to do anything",
        ),
    ],
)
async def test_people_are_told_what_is_new(before: Status, after: Status, expected: list[tuple[str, str, str]]) -> None:
    assert await told(before, after) == expected


async def test_a_full_history_tells_only_the_new_decision() -> None:
    before = Status()
    for index in range(25):
        before = before.recorded(replace(STARTED, time=NOW + index))
    assert len(await told(before, before.recorded(ROLLED_BACK))) == 1


async def test_an_event_is_about_the_resource_and_within_limits() -> None:
    events = Events()
    long = replace(ROLLED_BACK, message="ä" * 2000)
    await announce(events, RESOURCE, Status(), Status(history=(long,)))  # type: ignore[arg-type]
    (body,) = events.bodies
    assert body["regarding"] == {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ModelDeployment",
        "name": "iris",
        "namespace": "shop",
        "uid": "0b29",
        "resourceVersion": "7",
    }
    assert body["metadata"]["namespace"] == "shop"
    assert 1000 < len(body["note"].encode()) <= 1024
    assert body["reportingController"] and body["reportingInstance"] and body["action"]


async def test_a_route_that_was_put_right_is_told_by_its_name() -> None:
    events = Events()
    await announce_mended(events, RESOURCE, [("HTTPRoute", "shop", "iris")])  # type: ignore[arg-type]
    (body,) = events.bodies
    assert (body["type"], body["reason"]) == ("Warning", "RoutePutRight")
    assert body["note"].startswith("HTTPRoute iris was changed by somebody else")


@pytest.mark.parametrize("error", [ApiError(403, "no"), TimeoutError()], ids=["refused", "timeout"])
async def test_an_event_that_does_not_get_through_costs_only_itself(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    await announce(Events(error), RESOURCE, Status(), Status(history=(STARTED,)))  # type: ignore[arg-type]
    assert "an Event was not posted" in caplog.text


def test_each_decision_is_one_line_with_its_evidence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "serin.decision")
    before = Status(history=(STARTED,))
    log_decisions(RESOURCE, before, before.recorded(ROLLED_BACK))
    (line,) = [json.loads(record.getMessage()) for record in caplog.records]
    assert (line["namespace"], line["modelDeployment"], line["decision"]) == ("shop", "iris", "RolledBack")
    assert line["metrics"][0]["canary"] == {"failures": 9, "trials": 10}
    log_decisions(RESOURCE, before, before)
    assert len(caplog.records) == 1
