"""Two operators as processes, at a small API server: one acts, and when it dies, hangs or ends, only the other does."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.operator.operators import FAILOVER_SECONDS, operators

from serin_operator.act.lease import LEASE_SECONDS, RENEW_SECONDS

pytestmark = pytest.mark.process


async def test_one_acts_and_its_successor_takes_over(tmp_path: Path) -> None:
    async with operators(tmp_path) as one:
        first = await one.start("a")
        processes = [first]
        try:
            await one.acts("a", 60)
            second = await one.start("b")
            processes.append(second)
            await asyncio.sleep(5)
            one.poke()
            await asyncio.sleep(1)
            assert one.writers() == ["a"]

            # It ends in order: the other acts at once.
            first.send_signal(signal.SIGTERM)
            assert await one.acts("b") < LEASE_SECONDS - RENEW_SECONDS  # the soonest without its word
            assert await asyncio.wait_for(first.wait(), 20) == 0

            # It dies.
            third = await one.start("c")
            processes.append(third)
            await asyncio.sleep(5)
            second.kill()
            await one.acts("c")

            # It stands still, and wakes up when another leads.
            fourth = await one.start("d")
            processes.append(fourth)
            await asyncio.sleep(5)
            third.send_signal(signal.SIGSTOP)
            await one.acts("d", FAILOVER_SECONDS)
            one.poke()
            third.send_signal(signal.SIGCONT)
            for _ in range(10):
                one.poke()
                await asyncio.sleep(0.5)
            assert one.writers() == ["a", "b", "c", "d"]
            assert third.returncode is None
            marks = {
                stored["metadata"].get("annotations", {}).get("serin.dev/operator", "d_")[:2]
                for stored in one.server.objects.values()
            }
            assert marks == {"d_"}
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.wait()
