"""Whether something long lets other tasks of the event loop take their turns."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def counting_turns(long: Awaitable[Result]) -> tuple[Result, int]:
    """What it comes to, and how many turns another task had meanwhile."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    result = await long
    task.cancel()
    return result, turns
