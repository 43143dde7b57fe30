"""Which requests share a call of the model, which are not computed at all, and where calls run."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from serin_server.monitor.activity import Activity
from serin_server.runtime.batcher import BATCH_ROWS, Batcher, OverloadedError
from serin_server.runtime.model import Model, PredictionError, Predictions


class Recorder(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts each row's first value, fails for rows below 0, and notes its calls. Waits while `closed`."""

    classes_ = np.arange(1000)

    def __init__(self) -> None:
        self.calls: list[int] = []  # rows
        self.threads: list[int] = []
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.opened.set()

    def predict(self, matrix: Any) -> Any:
        self.calls.append(len(matrix))
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.opened.wait(10)
        if (matrix < 0).any():
            raise ValueError("below 0")
        return matrix[:, 0].astype(int)

    def predict_proba(self, matrix: Any) -> Any:
        return np.column_stack([matrix[:, 0], 1 - matrix[:, 0]])


@dataclass(eq=False)
class Asked:
    """A call, and what became of it: the predicted values, an error, or the word expired."""

    rows: Any
    extras: tuple[str, ...] = ()
    deadline: float | None = None
    lane: Any = None
    waited: float = 0.0
    result: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def done(self, predictions: Predictions) -> None:
        self.result.set_result(predictions.values.tolist())

    def failed(self, error: PredictionError) -> None:
        self.result.set_result(error)

    def expired(self) -> None:
        self.result.set_result("expired")


def rows(*first: float, dtype: Any = np.float64) -> Any:
    return np.array([[value, 0] for value in first], dtype=dtype)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.opened.set()


async def busy(recorder: Recorder, batcher: Batcher) -> Asked:
    """Have the model compute something until it is opened."""
    recorder.opened.clear()
    recorder.entered.clear()
    running = Asked(rows(0))
    batcher.submit(running)
    await asyncio.to_thread(recorder.entered.wait)
    return running


async def test_what_arrives_while_the_model_is_busy_shares_its_next_call(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 10)
    running = await busy(recorder, batcher)
    waiting = [Asked(rows(1)), Asked(rows(2, 3)), Asked(rows(4))]
    for asked in waiting:
        batcher.submit(asked)
    recorder.opened.set()
    assert [await asked.result for asked in waiting] == [[1], [2, 3], [4]]
    assert await running.result == [0]
    assert recorder.calls == [1, 4]


async def test_calls_rows_and_waits_are_counted(recorder: Recorder) -> None:
    activity = Activity("m", "r")
    batcher = Batcher(Model(recorder), 10, activity)
    running = await busy(recorder, batcher)
    waiting = [Asked(rows(1)), Asked(rows(2, 3))]
    for asked in waiting:
        batcher.submit(asked)
    assert (batcher.in_flight, batcher.waiting) == (3, 2)
    recorder.opened.set()
    for asked in (running, *waiting):
        await asked.result
    assert (batcher.in_flight, batcher.waiting) == (0, 0)
    assert all(asked.waited > 0 for asked in waiting)
    told = activity.render()
    for sample in (
        'serin_model_call_rows_bucket{model="m",revision="r",le="1.0"} 1.0',
        'serin_model_call_rows_bucket{model="m",revision="r",le="4.0"} 2.0',
        'serin_model_call_rows_sum{model="m",revision="r"} 4.0',
        'serin_model_call_seconds_count{model="m",revision="r"} 2.0',
        'serin_queue_seconds_count{model="m",revision="r"} 3.0',
    ):
        assert f"{sample}\n" in told


async def test_a_lone_request_waits_for_nobody(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 10)
    for value in range(3):
        asked = Asked(rows(value))
        batcher.submit(asked)
        assert await asked.result == [value]
    assert recorder.calls == [1, 1, 1]


async def test_a_bad_request_does_not_fail_those_beside_it(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 10)
    asked = [Asked(rows(1)), Asked(rows(-1)), Asked(rows(2))]
    for one in asked:
        batcher.submit(one)
    good, bad, other = [await one.result for one in asked]
    assert (good, other) == ([1], [2])
    assert isinstance(bad, PredictionError)
    assert recorder.calls == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("second", "calls"),
    [
        (lambda: Asked(rows(1)), [2]),
        (lambda: Asked(rows(1, dtype=np.float32)), [1, 1]),
        (lambda: Asked(rows(1), extras=("predict_proba",)), [1, 1]),
        (lambda: Asked(np.ones((1, 3))), [1, 1]),
        (lambda: Asked(rows(*[1] * (BATCH_ROWS - 1))), [BATCH_ROWS]),
        (lambda: Asked(rows(*[1] * BATCH_ROWS)), [1, BATCH_ROWS]),
        (lambda: Asked(rows(*[1] * 3 * BATCH_ROWS)), [1, 3 * BATCH_ROWS]),
    ],
    ids=["alike", "datatype", "probabilities", "columns", "full", "too many rows", "more rows than a batch"],
)
async def test_only_requests_that_are_alike_share_a_call(
    recorder: Recorder, second: Callable[[], Asked], calls: list[int]
) -> None:
    batcher = Batcher(Model(recorder), 10)
    asked = [Asked(rows(1)), second()]
    for one in asked:
        batcher.submit(one)
    for one in asked:
        assert await one.result == [1] * len(one.rows)
    assert recorder.calls == calls


async def test_probabilities_are_shared_out_too(recorder: Recorder) -> None:
    found: list[Any] = []

    class WithProbabilities(Asked):
        def done(self, predictions: Predictions) -> None:
            assert predictions.outcomes is not None
            found.append(
                (predictions.extras["predict_proba"].tolist(), [outcome.text for outcome in predictions.outcomes])
            )
            self.result.set_result(None)

    batcher = Batcher(Model(recorder), 10)
    asked = [WithProbabilities(rows(1), ("predict_proba",)), WithProbabilities(rows(0, 1), ("predict_proba",))]
    for one in asked:
        batcher.submit(one)
    await asyncio.gather(*(one.result for one in asked))
    assert found == [([[1, 0]], ["1"]), ([[0, 1], [1, 0]], ["0", "1"])]


async def test_the_queue_is_bounded_and_running_calls_count(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 2)
    await busy(recorder, batcher)
    waiting = Asked(rows(1))
    batcher.submit(waiting)
    with pytest.raises(OverloadedError):
        batcher.submit(Asked(rows(2)))
    batcher.drop(waiting)
    last = Asked(rows(3))
    batcher.submit(last)
    recorder.opened.set()
    assert await last.result == [3]


async def test_what_nobody_waits_for_is_not_computed(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 10)
    await busy(recorder, batcher)
    now = time.perf_counter()
    gone, late, in_time = Asked(rows(1)), Asked(rows(2), deadline=now - 1), Asked(rows(3), deadline=now + 3600)
    for asked in (gone, late, in_time):
        batcher.submit(asked)
    batcher.drop(gone)
    recorder.opened.set()
    assert await in_time.result == [3]
    assert await late.result == "expired"
    assert recorder.calls == [1, 1]
    assert not gone.result.done()


async def test_a_quick_model_is_called_on_the_event_loop_until_it_is_quick_no_more(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 10)

    async def ask(value: float = 1, count: int = 1) -> bool:
        """Whether the model was called on the event loop."""
        asked = Asked(rows(*[value] * count))
        batcher.submit(asked)
        await asked.result
        return recorder.threads[-1] == threading.get_ident()

    assert not await ask()
    while not await ask():
        assert len(recorder.calls) < 10_000
    assert not await ask(count=BATCH_ROWS + 1)
    assert await ask()
    recorder.opened.clear()
    threading.Timer(0.1, recorder.opened.set).start()
    await ask()  # takes a tenth of a second
    assert not await ask()


async def test_a_failing_batch_is_not_computed_for_ever(recorder: Recorder) -> None:
    batcher = Batcher(Model(recorder), 10)
    asked = [Asked(rows(-1)) for _ in range(3)]
    for one in asked:
        batcher.submit(one)
    assert all([isinstance(await one.result, PredictionError) for one in asked])
    assert recorder.calls == [3, 1, 1, 1]
