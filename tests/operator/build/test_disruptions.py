"""Which pods may not be evicted all at once: the stable revision's, wherever it stands, and no others."""

from dataclasses import replace
from typing import Any

import pytest
from tests.operator.build.test_manifests import CANARY, NOW, OWNER, ROLLING, STABLE, built, revision
from tests.operator.definition import make_spec

from serin_operator.api.spec import RouterType, Strategy
from serin_operator.api.status import Phase, Rollout, Routing, Status

BUDGET = ("PodDisruptionBudget", "iris-stable")
PROMOTED = replace(ROLLING, stable=ROLLING.canary, canary=None, previous=ROLLING.stable, weight=0, rollout=None)
BACK = replace(PROMOTED, stable=revision(STABLE), previous=None, retiring=(revision(CANARY),))
FIRST = Status(phase=Phase.PENDING, stable=revision(STABLE))


def guarded(status: Status, **spec: Any) -> str | None:
    """The revision that the budget is over; None where there is none."""
    found = built(status, make_spec(**spec)).get(BUDGET)
    if found is None:
        return None
    labels: dict[str, str] = found["spec"]["selector"]["matchLabels"]
    assert labels == OWNER.labels("server", labels["serin.dev/revision"])
    return labels["serin.dev/revision"]


def test_nodes_are_drained_of_one_pod_of_stable_at_a_time() -> None:
    """A pod that answers nobody can go at once: it must not keep a node from being drained."""
    budget = built()[BUDGET]
    assert budget["apiVersion"] == "policy/v1"
    assert budget["spec"] == {
        "maxUnavailable": 1,
        "selector": built()["Deployment", f"iris-{STABLE}"]["spec"]["selector"],
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(Status(), None, id="nothing yet"),
        pytest.param(FIRST, STABLE, id="the first one starts"),
        pytest.param(ROLLING, STABLE, id="beside a canary"),
        pytest.param(PROMOTED, CANARY, id="promoted"),
        pytest.param(BACK, STABLE, id="gone back"),
    ],
)
@pytest.mark.parametrize("router", list(RouterType))
def test_it_follows_the_role_whatever_routes(router: RouterType, status: Status, expected: str | None) -> None:
    assert guarded(replace(status, routing=Routing(router))) == expected


@pytest.mark.parametrize("replicas", [0, 1, 2, 5])
def test_a_single_pod_has_no_budget(replicas: int) -> None:
    """Only stable's own number counts, however large a canary is."""
    status = replace(ROLLING, stable=revision(STABLE, replicas=replicas), canary=revision(CANARY, replicas=4))
    assert guarded(status) == (STABLE if replicas > 1 else None)


def test_before_the_switch_a_preview_can_be_evicted() -> None:
    preview = replace(ROLLING, weight=0, rollout=Rollout(NOW, strategy=Strategy.BLUE_GREEN))
    assert guarded(preview, rollout={"strategy": "BlueGreen"}) == STABLE


def test_what_is_taken_down_is_not_guarded_and_what_takes_its_place_is() -> None:
    down = revision(STABLE, replicas=0, stopped=True)
    rollout = Rollout(NOW, strategy=Strategy.RECREATE)
    recreate = {"rollout": {"strategy": "Recreate"}}
    assert guarded(replace(ROLLING, stable=down, weight=0, rollout=rollout), **recreate) is None
    promoted = replace(PROMOTED, previous=None, retiring=(down,))
    assert guarded(promoted, **recreate) == CANARY
