"""Predictions off the event loop, so that health checks are answered while a model computes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sklearn

T = TypeVar("T")


class OverloadedError(Exception):
    """As many calls as allowed already run or wait."""


class Worker:
    """One thread that takes calls in order: models need not be safe to call from several threads."""

    def __init__(self, max_in_flight: int) -> None:
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="predict", initializer=_prepare_thread)

    def submit(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `call` in the thread. Raises OverloadedError. Cancelling the future drops a waiting call."""
        if self._in_flight >= self._max_in_flight:
            raise OverloadedError
        self._in_flight += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, call)
        future.add_done_callback(self._done)
        return future

    def _done(self, _future: "asyncio.Future[T]") -> None:
        self._in_flight -= 1


def _prepare_thread() -> None:
    # Requests are checked for NaN and infinities once, when decoded. The setting is the thread's own.
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)
