"""Whoever dies at any write, before it or after it, leaves a rollout that ends as it would have.

By default some of the writes are tried; SERIN_KILLS_EVERY=1 tries all.
"""

import os
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from tests.operator.definition import raw_spec
from tests.operator.mortal import MortalCluster, installed

from serin_operator.api import ANNOTATION_ABORT
from serin_operator.api.status import Phase, Record

EVERY = int(os.environ.get("SERIN_KILLS_EVERY") or 11)  # an odd number, so that both are tried
pytestmark = [pytest.mark.simulation, pytest.mark.timeout(300 + 3000 // EVERY)]

STEPS = [{"weight": 10, "duration": "8s"}, {"weight": 50, "duration": "8s"}]
ENDINGS = ("Promoted", "RolledBack", "Rejected")


@dataclass(frozen=True)
class Course:
    """What is rolled out how."""

    strategy: str
    router: str
    harmful: bool

    def spec(self) -> dict[str, Any]:
        return raw_spec(
            model={"version": "v1"},
            traffic={"router": {"type": self.router}},
            server={"replicas": 2, "readyTimeout": "60s"},
            rollout={"strategy": self.strategy, "steps": STEPS, "keepPrevious": "15s", "watch": "0s"},
            analysis={"metrics": [{"name": "errors", "margin": 0.05, "bound": 0.05}]},
        )


async def serving(course: Course, patch: pytest.MonkeyPatch) -> MortalCluster:
    """The first model serves, and the second is asked for."""
    cluster = installed(MortalCluster(course.spec()), patch)
    await cluster.run(100)
    stable = cluster.status.stable
    assert stable and cluster.status.phase is Phase.SERVING
    cluster.good = stable.revision if course.harmful else ""
    cluster.writes, cluster.lost, cluster.together = 0, 0, False
    cluster.change(model={"sha256": "2" * 64, "version": "v2"})
    return cluster


def outcome(cluster: MortalCluster) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The decisions, and what runs in the end."""
    runs = [(name, raw["spec"]["replicas"]) for (kind, name), raw in cluster.objects.items() if kind == "Deployment"]
    return [(record.decision, record.weight) for record in cluster.status.history], sorted(runs)


def ending(cluster: MortalCluster) -> Record:
    return next(record for record in cluster.status.history if record.decision in ENDINGS)


def counted(record: Record) -> int:
    return sum(report.canary.trials for report in record.metrics)


@pytest.mark.parametrize(
    "course",
    [
        Course("Canary", "Embedded", harmful=False),
        Course("Canary", "Embedded", harmful=True),
        Course("Canary", "ReplicaRatio", harmful=False),
        Course("Canary", "ReplicaRatio", harmful=True),
        Course("BlueGreen", "Embedded", harmful=False),
        Course("Recreate", "Embedded", harmful=False),
    ],
    ids=str,
)
async def test_a_death_at_any_write_changes_no_outcome(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = await serving(course, monkeypatch)
    await undisturbed.run(400)
    expected = outcome(undisturbed)
    kills = [(number, late) for number in range(1, undisturbed.writes + 1) for late in (False, True)]
    for number, late in kills[::EVERY]:
        cluster = await serving(course, monkeypatch)
        cluster.dies_at, cluster.late = number, late
        cluster.stale = Random(number) if number % 2 else None
        await cluster.run(400)
        assert cluster.operators == 2 or cluster.stale, "old caches can save a write"
        assert outcome(cluster) == expected, (number, late)
        record = ending(cluster)
        canary = record.to_revision if record.decision == "Promoted" else record.from_revision
        assert counted(record) <= cluster.served_then[str(canary)], (number, late)
        if course.strategy == "Recreate":
            assert not cluster.together, (number, late)
        else:
            assert cluster.lost == 0, (number, late)


async def test_an_abort_that_comes_while_a_promotion_is_decided_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await serving(Course("Canary", "Embedded", harmful=False), monkeypatch)
    came: list[bool] = []

    def abort(status: dict[str, Any]) -> None:
        if status["history"][0]["decision"] == "Promoted" and not came:
            came.append(True)
            cluster.annotate_mdep(ANNOTATION_ABORT, "1")

    cluster.meanwhile = abort
    await cluster.run(400)
    assert came
    record = ending(cluster)
    assert (record.decision, record.reason) == ("RolledBack", "Aborted")
    assert cluster.lost == 0
