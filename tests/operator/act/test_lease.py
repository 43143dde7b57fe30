"""Who acts: one at most, whatever the network and the processes do; and soon another one, when it dies."""

import asyncio
import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.operator.virtual_time import run

from serin_operator.act.client import ApiError
from serin_operator.act.lease import ACT_SECONDS, CALL_SECONDS, LEASE_SECONDS, Election, seconds_awake_or_not
from serin_operator.settings import Candidacy

FAILOVER_SECONDS = 15.0


@dataclass
class ApiServer:
    """Holds one Lease, and lets a write through only at the version that it names."""

    lease: dict[str, Any] | None = None
    version: int = 0
    holders: list[str] = field(default_factory=list)  # every change of it
    landed: Callable[[str], None] = lambda holder: None

    def read(self) -> dict[str, Any] | None:
        return copy.deepcopy(self.lease)

    def write(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        metadata = manifest["metadata"]
        held = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if metadata.get("resourceVersion") != held:
            raise ApiError(409, "the object has been modified" if held else "not there")
        self.version += 1
        self.lease = {**manifest, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        holder = str(manifest["spec"]["holderIdentity"] or "")
        if not self.holders or self.holders[-1] != holder:
            self.holders.append(holder)
        self.landed(holder)
        return copy.deepcopy(self.lease)


@dataclass
class Wire:
    """One operator's way to the API server: how long a call takes to get there, and its answer to come back.

    cut: from when to when nothing goes through; what was sent waits until then, and lands late.
    lost: answers that never come, though the call landed.
    """

    server: ApiServer
    there: Callable[[], float] = lambda: 0.01
    back: Callable[[], float] = lambda: 0.01
    cut: tuple[float, float] = (0.0, 0.0)
    lost: Callable[[], bool] = lambda: False
    refuses: ApiError | None = None

    async def read(self, kind: str, namespace: str, name: str) -> Any:
        assert (kind, namespace, name) == ("Lease", "serin-system", "serin")
        return await self._call(self.server.read)

    async def replace(self, manifest: Mapping[str, Any]) -> Any:
        assert "resourceVersion" in manifest["metadata"]
        return await self._call(lambda: self.server.write(manifest))

    async def create(self, manifest: Mapping[str, Any]) -> Any:
        assert "resourceVersion" not in manifest["metadata"]
        return await self._call(lambda: self.server.write(manifest))

    async def _call(self, what: Callable[[], Any]) -> Any:
        if self.refuses:
            raise self.refuses
        # The packet is on its way, whether or not the caller still waits for its answer.
        landing = asyncio.ensure_future(self._land(what))
        landing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(landing)

    async def _land(self, what: Callable[[], Any]) -> Any:
        now = asyncio.get_running_loop().time()
        held_up = max(0.0, self.cut[1] - now) if self.cut[0] <= now else 0.0
        await asyncio.sleep(self.there() + held_up)
        answer = what()
        await asyncio.sleep(self.back())
        if self.lost():
            await asyncio.sleep(3600)
        return answer


@dataclass
class Operator:
    """A candidate, and what it was told."""

    wire: Wire
    election: Election
    task: asyncio.Task[None] | None = None
    told: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.task = asyncio.create_task(self.election.run(self._lead, self._rest))

    def kill(self) -> None:
        assert self.task
        self.task.cancel()

    async def resign(self) -> None:
        self.kill()
        await self.election.resign()

    @property
    def acts(self) -> bool:
        return self.election.seconds_left() > 0

    def _lead(self) -> None:
        assert self.acts
        self.told.append("lead")

    async def _rest(self) -> None:
        assert not self.acts
        self.told.append("rest")


def operator(server: ApiServer, pod: str, process: str = "1", **wire: Any) -> Operator:
    line: Any = Wire(server, **wire)
    candidacy = Candidacy("serin-system", "serin", pod)
    return Operator(line, Election(line, candidacy, asyncio.get_running_loop().time, f"{pod}_{process}"))


@contextmanager
def never_two(server: ApiServer, *operators: Operator) -> Iterator[None]:
    """Whenever somebody gets the Lease, nobody else may act; and nobody gets to act in any other way."""

    def landed(holder: str) -> None:
        acting = [one.election.identity for one in operators if one.acts and one.election.identity != holder]
        assert acting == [], f"{holder} got the Lease while {acting} acted"

    server.landed = landed
    yield
    assert sum(one.acts for one in operators) <= 1


async def until(holds: Callable[[], bool], seconds: float) -> float:
    """How long it took; fails when the time is over."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while not holds():
        assert clock() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.05)
    return clock() - began


def test_the_first_makes_the_lease_and_the_second_stands_by() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            first.start()
            await until(lambda: first.acts, 1)
            second.start()
            await asyncio.sleep(600)
            assert (first.told, second.told) == (["lead"], [])
            assert second.election.holder == "a_1"
            assert server.holders == ["a_1"]
            assert server.lease
            spec = server.lease["spec"]
            assert spec["leaseDurationSeconds"] == LEASE_SECONDS
            assert "leaseTransitions" not in spec or spec["leaseTransitions"] == 0
            assert spec["acquireTime"] <= spec["renewTime"]
            assert server.version <= 600 / 2 + 2  # two seconds between renewals

    run(main())


def test_another_takes_over_when_the_leader_dies() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            first.start()
            await until(lambda: first.acts, 1)
            second.start()
            await asyncio.sleep(7)
            first.kill()
            took = await until(lambda: second.acts, FAILOVER_SECONDS)
            assert took >= ACT_SECONDS - 2  # the dead one would have been allowed to act for so long
            assert server.lease
            assert server.lease["spec"]["leaseTransitions"] == 1

    run(main())


def test_a_graceful_end_hands_over_at_once() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            first.start()
            await until(lambda: first.acts, 1)
            second.start()
            await asyncio.sleep(5)
            await first.resign()
            assert not first.acts
            assert await until(lambda: second.acts, FAILOVER_SECONDS) < 1.5
            assert server.holders == ["a_1", "", "b_1"]

    run(main())


def test_who_does_not_lead_gives_nothing_back() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        first.start()
        second.start()
        await asyncio.sleep(5)
        await second.resign()
        assert server.holders == ["a_1"]
        assert first.acts

    run(main())


def test_a_container_that_is_started_again_does_not_wait_for_its_dead_predecessor() -> None:
    async def main() -> None:
        server = ApiServer()
        first = operator(server, "a", "1")
        first.start()
        await until(lambda: first.acts, 1)
        first.kill()
        again, other = operator(server, "a", "2"), operator(server, "a-b", "3")
        other.start()
        again.start()
        assert await until(lambda: again.acts, 2) < 0.5
        assert not other.acts

    run(main())


def test_a_leader_that_was_paused_acts_no_more() -> None:
    """Its clock went on. What it had sent to the Lease lands after its successor's, and is refused."""

    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            first.start()
            await until(lambda: first.acts, 1)
            second.start()
            await asyncio.sleep(5)
            first.wire.cut = (5, 40)
            await until(lambda: second.acts, FAILOVER_SECONDS + 2)
            assert not first.acts
            await asyncio.sleep(60)
            assert first.told == ["lead", "rest"]
            assert second.acts
            assert first.election.holder == "b_1"

    run(main())


def test_an_api_server_that_is_away_ends_the_term_and_begins_another() -> None:
    async def main() -> None:
        server = ApiServer()
        first = operator(server, "a")
        first.start()
        await until(lambda: first.acts, 1)
        first.wire.refuses = ApiError(503, "away")
        await until(lambda: not first.acts, ACT_SECONDS + 0.1)
        await until(lambda: first.told == ["lead", "rest"], 0.2)
        await asyncio.sleep(60)
        first.wire.refuses = None
        assert await until(lambda: first.acts, 5) < 1.5
        assert first.told == ["lead", "rest", "lead"]
        assert server.lease
        assert server.lease["spec"].get("leaseTransitions", 0) == 0

    run(main())


def test_a_slow_api_server_does_not_end_a_term() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            for one in (first, second):
                one.wire.there = one.wire.back = lambda: 1.0
                one.start()
            await asyncio.sleep(10)
            for _ in range(1000):
                assert first.election.seconds_left() > 1
                await asyncio.sleep(0.1)
            assert server.holders == ["a_1"]

    run(main())


def test_a_renewal_whose_answer_is_lost_is_found_out() -> None:
    async def main() -> None:
        server = ApiServer()
        first = operator(server, "a")
        lost = iter([False, False, True, False])
        first.wire.lost = lambda: next(lost, False)
        first.start()
        await asyncio.sleep(120)
        assert first.told == ["lead"]
        assert first.acts

    run(main())


def test_a_lease_that_somebody_deletes_is_made_again() -> None:
    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            first.start()
            await until(lambda: first.acts, 1)
            second.start()
            await asyncio.sleep(5)
            server.lease = None
            await until(lambda: server.lease is not None, FAILOVER_SECONDS)
            await until(lambda: first.acts or second.acts, FAILOVER_SECONDS)

    run(main())


def test_a_term_counts_from_when_the_renewal_was_sent() -> None:
    """The answer takes long, and it is the last one."""

    async def main() -> None:
        server = ApiServer()
        first, second = operator(server, "a"), operator(server, "b")
        with never_two(server, first, second):
            first.start()
            await until(lambda: first.acts, 1)
            second.start()
            await asyncio.sleep(5)
            first.wire.back = lambda: 4.5
            renewals = server.version
            await until(lambda: server.version > renewals, 3)
            first.wire.cut = (asyncio.get_running_loop().time(), 1000)
            await until(lambda: second.acts, FAILOVER_SECONDS)

    run(main())


def test_a_leader_that_sees_another_in_its_place_acts_no_more() -> None:
    async def main() -> None:
        server = ApiServer()
        first = operator(server, "a")
        first.start()
        await until(lambda: first.acts, 1)
        assert server.lease
        server.lease["metadata"]["resourceVersion"] = "77"
        server.lease["spec"]["holderIdentity"] = "b_1"
        await until(lambda: first.told == ["lead", "rest"], 4)

    run(main())


def test_the_metric_tells_who_leads() -> None:
    async def main() -> None:
        first = operator(ApiServer(), "a")
        first.start()
        await until(lambda: first.acts, 1)
        assert REGISTRY.get_sample_value("serin_operator_leading") == 1
        await first.resign()
        assert REGISTRY.get_sample_value("serin_operator_leading") == 0

    run(main())


def test_every_process_has_a_name_of_its_own() -> None:
    candidacy = Candidacy("serin-system", "serin", "serin-5d8f-x2x7p")
    one, other = (Election(None, candidacy, seconds_awake_or_not).identity for _ in range(2))  # type: ignore[arg-type]
    assert one != other
    assert one.startswith("serin-5d8f-x2x7p_")


seconds = st.floats(0.0, 4.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(seconds, min_size=1, max_size=20),
    st.lists(st.booleans(), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 80), st.floats(0, 30)), max_size=4),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 80), st.booleans()), max_size=3),
)
def test_never_two_act_whatever_happens(
    delays: list[float], losses: list[bool], cuts: list[tuple[int, float, float]], ends: list[tuple[int, float, bool]]
) -> None:
    """Delays and lost answers at random, lines that are cut and deliver late, deaths and graceful ends; then calm."""

    async def main() -> None:
        server = ApiServer()
        turn = {"delay": 0, "loss": 0}
        calm = [False]

        def delay() -> float:
            turn["delay"] += 1
            return 0.01 if calm[0] else delays[turn["delay"] % len(delays)]

        def loss() -> bool:
            turn["loss"] += 1
            return not calm[0] and losses[turn["loss"] % len(losses)] and losses[(turn["loss"] + 1) % len(losses)]

        operators = [operator(server, name, there=delay, back=delay, lost=loss) for name in "abc"]
        for index, start, length in cuts:
            operators[index].wire.cut = (start, start + length)
        with never_two(server, *operators):
            for one in operators:
                one.start()
            for index, moment, graceful in sorted(ends, key=lambda end: end[1]):
                await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
                if graceful:
                    await operators[index].resign()
                else:
                    operators[index].kill()
            while asyncio.get_running_loop().time() < 120:
                assert sum(one.acts for one in operators) <= 1
                await asyncio.sleep(0.25)
            calm[0] = True
            living = [one for one in operators if one.task and not one.task.done()]
            if living:
                await until(lambda: any(one.acts for one in living), LEASE_SECONDS + CALL_SECONDS + 5)

    run(main())
