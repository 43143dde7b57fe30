"""Which condition comes first, as `kubectl get` shows it, and that all of them are there."""

from dataclasses import replace

import pytest
import yaml
from tests.operator.decide.world import serving
from tests.operator.definition import CRD

from serin_operator.api.status import Watch
from serin_operator.decide.conditions import Activity, with_conditions
from serin_operator.decide.drift_watch import Told
from serin_operator.decide.observed import Snapshot

BUSY = Activity("Evaluating", "It takes its time.")
STUCK = Activity("LessAccurate", "It is worse.", stalled=True)
NONE = Activity.none()
NO_DRIFT = Told("False", "NoDriftFound", "All is alike.")
GATHERING = Told("Unknown", "GatheringRows", "Some rows so far.")
DRIFT = Told("True", "DriftFound", "It is far off.")
READ, UNREADABLE = Snapshot(), Snapshot(problem="it is down")


@pytest.mark.parametrize(
    ("activity", "ready", "drifted", "snapshot", "first"),
    [
        (NONE, 1, None, None, "Serving"),
        (NONE, 1, NO_DRIFT, None, "Serving"),
        (NONE, 1, GATHERING, None, "Serving"),
        (NONE, 1, NO_DRIFT, READ, "Serving"),
        (NONE, 1, DRIFT, READ, "DriftFound"),
        (NONE, 0, DRIFT, None, "StableNotReady"),
        (NONE, 1, DRIFT, UNREADABLE, "CannotSee"),
        (BUSY, 0, DRIFT, UNREADABLE, "Evaluating"),
        (STUCK, 1, NO_DRIFT, READ, "LessAccurate"),
    ],
)
def test_what_needs_attention_is_told_first(
    activity: Activity, ready: int, drifted: Told | None, snapshot: Snapshot | None, first: str
) -> None:
    world = serving()
    observed = replace(world.passes[-1].observed, snapshot=snapshot)
    watch = None if snapshot is None else Watch("b" * 10, "a" * 10, world.now + 600)
    status = replace(world.status, ready_replicas=ready, watch=watch)
    found = with_conditions(observed, status, activity, world.now, drifted).conditions
    assert found[0].reason == first
    assert {condition.type for condition in found} == {
        "Ready",
        *(["Stalled" if activity.stalled else "Reconciling"] if activity.reason else []),
        *(["Drifted"] if drifted else []),
        *(["MetricsAvailable"] if snapshot else []),
    }


def test_the_columns_show_the_first() -> None:
    [version] = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    columns = {one["name"]: one["jsonPath"] for one in version["additionalPrinterColumns"]}
    assert columns["Reason"] == ".status.conditions[0].reason"
    assert columns["Message"] == ".status.conditions[0].message"
