"""What runs beside Kopf."""

import asyncio

import pytest

from serin_operator.__main__ import _helper


async def test_a_helper_that_ends_by_itself_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise OSError("the port is taken")

    await asyncio.wait([_helper(broken())])
    assert "ended by itself: <Task finished" in caplog.text
    assert "broken() done" in caplog.text
    assert "OSError: the port is taken" in caplog.text


async def test_a_helper_that_is_cancelled_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    task = _helper(asyncio.sleep(3600))
    task.cancel()
    await asyncio.wait([task])
    assert caplog.text == ""
