"""What was counted before a takeover does not count again, however old the successor's watch cache is."""

import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import cast

import aiohttp
import pytest
from tests.loopback import free_port
from tests.operator.build.test_manifests import STABLE, revision
from tests.operator.definition import raw_spec
from tests.operator.observe.http import answering, pod
from tests.operator.test_loop import PLACE, SETTINGS, Writes, new_resource

from serin_operator.act.client import Client
from serin_operator.api.spec import parse_spec
from serin_operator.api.status import Phase, Rollout, Status, dump_status
from serin_operator.decide import analysis
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Defaults, Snapshot
from serin_operator.decide.revisions import revision_of
from serin_operator.loop import Loop
from serin_operator.observe import scrape
from serin_operator.observe.cache import Cache
from serin_operator.observe.pods import Pod

SPEC = raw_spec(analysis={"interval": "1s", "metrics": [{"name": "errors", "margin": 0.02}]})
ANALYSIS = parse_spec(SPEC).analysis
TARGET = revision_of(parse_spec(SPEC), "0" * 64, Defaults(SETTINGS.images.server))
CANARY = TARGET.revision
PORT = free_port()
BEGUN = float(int(time.time()) - 100)


def served(number: int, name: str, born: float, requests: int) -> tuple[Pod, str, str]:
    """A pod, what it tells when it is scraped, and the name of its series."""
    text = f'serin_requests_total{{revision="{name}",code="200",attempt="first"}} {requests}\n'
    one = pod(f"iris-{name}-{number}", f"127.77.3.{number}", revision=name)
    return one, f"process_start_time_seconds {born}\n{text}", f"{one.name}/{born:.0f}"


OLD = [served(1, CANARY, BEGUN - 50, 500), served(2, STABLE, BEGUN - 50, 4000)]
ADDED = served(3, CANARY, BEGUN + 50, 1000)  # a pod that came with a higher weight


def tells(found: tuple[Pod, str, str]) -> AbstractAsyncContextManager[list[str]]:
    one, text, _ = found
    return answering(str(one.ip), PORT, text)


class Predecessors(Writes):
    """An API server that has had these pods for a while."""

    async def names(self, kind: str, namespace: str, selector: str) -> frozenset[str]:
        assert (kind, namespace, selector) == ("Pod", PLACE[0], f"serin.dev/model-deployment={PLACE[1]}")
        return frozenset(one.name for one, *_ in (*OLD, ADDED))


def snapshot(*found: tuple[Pod, str, str]) -> Snapshot:
    """What the predecessor saw of these pods."""
    counts = {series: Counts(0, int(text.split()[-1])) for _, text, series in found}
    by_arm = {arm: {s: c for s, c in counts.items() if f"-{arm}-" in s} for arm in (CANARY, STABLE)}
    names = frozenset(one.name for one, *_ in found)
    return Snapshot(dict.fromkeys(("requests", "errors"), by_arm), frozenset(counts), names)


def left_behind() -> Status:
    """The status that the predecessor wrote last."""
    state = analysis.begin(ANALYSIS, snapshot(*OLD), CANARY, STABLE, BEGUN)
    judged = analysis.judge(ANALYSIS, state, snapshot(*OLD, ADDED), CANARY, STABLE, BEGUN + 90, weight=None)
    rollout = Rollout(BEGUN, step=0, steps=1, evidence=judged.state, evidence_at=BEGUN + 90)
    canary, stable = (replace(each, ready_replicas=1) for each in (TARGET, revision(STABLE)))
    return Status(phase=Phase.PROGRESSING, weight=10, stable=stable, canary=canary, rollout=rollout)


def trials(one: Loop) -> dict[str, int]:
    [report] = one._memories[PLACE].status.metrics
    return {"canary": report.canary.trials, "stable": report.stable.trials}


async def test_a_pod_that_the_cache_does_not_show_yet_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_PORT", PORT)
    held = {**new_resource(**dump_status(left_behind())), "spec": SPEC}
    client = Predecessors(held)
    pods = {PLACE: [one for one, *_ in OLD]}
    async with aiohttp.ClientSession() as session:
        cache = Cache({PLACE: [held]}, pods)
        one = Loop(SETTINGS, cast(Client, client), session, cache, "operator-1")
        async with tells(OLD[0]), tells(OLD[1]), tells(ADDED):
            await one._pass(PLACE)
            assert trials(one) == {"canary": 1000, "stable": 0}
            pods[PLACE].append(ADDED[0])
            memory = one._memories[PLACE]
            assert memory.status.rollout
            memory.status = replace(memory.status, rollout=replace(memory.status.rollout, evidence_at=None))
            metadata = {**held["metadata"], "resourceVersion": str(memory.resource_version)}
            cache.resources = {PLACE: [{**held, "metadata": metadata, "status": memory.stored}]}
            await one._pass(PLACE)
        assert trials(one) == {"canary": 1000, "stable": 0}
        assert memory.unseen == frozenset()
