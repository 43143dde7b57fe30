"""The payload log without a server: what is in it, what is not, and that nothing waits for it."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.model_server.serving import REVISION, wait_until

from serin_server.failures import FatalError
from serin_server.monitor.attempts import Attempt
from serin_server.payload_log import log as payload_log
from serin_server.payload_log.log import PayloadLog
from serin_server.payload_log.settings import PayloadLogSettings, in_sample
from serin_server.protocol.requests import Signature
from serin_server.protocol.rows import Columns
from serin_server.protocol.tensors import InferResponse, Tensor, TensorSpec
from serin_server.serving.inquiry import Inquiry

NOW = 1_800_000_000.25
NAMES = ("age", "income", "city")
NAMED = Signature(features=3, names=NAMES)
MiB = 1024 * 1024


class Log:
    """A payload log in a directory, and what it wrote once it is closed."""

    def __init__(self, directory: Path, signature: Signature = NAMED, **settings: Any) -> None:
        self._directory = directory
        options = PayloadLogSettings(directory, **settings)
        self.log = PayloadLog(options, signature, model="m", version="v1", revision=REVISION)

    def predict(self, ids: Sequence[str] | None, matrix: Any, values: Any, attempt: Attempt = Attempt.FIRST) -> None:
        outputs = [Tensor("predict", "FP64", np.asarray(values))]
        if ids is not None:
            outputs.append(Tensor("prediction_id", "BYTES", np.array(ids, dtype=object)))
        predictions = SimpleNamespace(values=np.asarray(values))
        rows = matrix if isinstance(matrix, Columns) else np.asarray(matrix)
        inquiry = SimpleNamespace(rows=rows, predictions=predictions, attempt=attempt)
        self.log.answered(cast(Inquiry, inquiry), InferResponse("m", "v1", None, outputs))

    def close(self) -> list[dict[str, Any]]:
        self.log.close(10)
        return [json.loads(line) for file in self._directory.glob("*.jsonl") for line in file.read_text().splitlines()]

    def count(self, name: str) -> float:
        families = text_string_to_metric_families(self.log.render())
        (value,) = (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == f"serin_payload_log_{name}_total"
        )
        return value


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    made = []

    def one(**options: Any) -> Log:
        made.append(Log(tmp_path, **options))
        return made[-1]

    yield one
    for log in made:
        log.close()


def test_a_row_has_what_retraining_needs(make: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serin_server.payload_log.log.time.time", lambda: NOW)
    log = make()
    log.predict(["a", "b"], [[30, 2.5, 7], [40, 3.5, 8]], [1, 0])
    log.log.labelled("b", 1, NOW + 60)
    same = {"time": NOW, "model": "m", "version": "v1", "revision": REVISION, "sample": 1.0, "attempt": "first"}
    assert log.close() == [
        {"prediction_id": "a", **same, "inputs": {"age": 30, "income": 2.5, "city": 7}, "prediction": 1},
        {"prediction_id": "b", **same, "inputs": {"age": 40, "income": 3.5, "city": 8}, "prediction": 0},
        {"prediction_id": "b", "time": NOW + 60, "label": 1},
    ]
    assert (log.count("records"), log.count("dropped")) == (3, 0)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, {"age": 30, "income": 2.5, "city": 7}),
        ({"exclude": ("age",)}, {"income": 2.5, "city": 7}),
        ({"exclude": ()}, {"age": 30, "income": 2.5, "city": 7}),
        ({"include": ("city", "age")}, {"age": 30, "city": 7}),
        ({"include": ()}, {}),
    ],
)
def test_only_the_features_that_may_be_kept_are(
    settings: dict[str, Any], kept: dict[str, float], make: Callable[..., Log]
) -> None:
    log = make(**settings)
    log.predict(["a"], [[30, 2.5, 7]], [1])
    (record,) = log.close()
    assert record["inputs"] == kept
    assert record["prediction"] == 1


@pytest.mark.parametrize(
    ("signature", "matrix", "exclude", "inputs"),
    [
        (Signature(2, None), [[1, 2]], ("0",), {"1": 2}),
        (Signature(None, None), [[1, 2]], ("1",), {"0": 1}),
        (Signature(None, None), np.array(["a text"], dtype=object), None, {"0": "a text"}),
        (Signature(None, None), np.array([[b"\xff", 1.5]], dtype=object), None, {"0": "�", "1": 1.5}),
        (Signature(1, None), np.array([[np.float32(0.1)]]), None, {"0": pytest.approx(0.1)}),
        (Signature(2, None, allows_missing=True), np.array([[np.nan, 1.5]]), None, {"0": None, "1": 1.5}),
        (Signature(None, None), np.ones((1, 2, 2)), None, {"0": [[1, 1], [1, 1]]}),
        (Signature(None, None), np.ones((1, 2, 2)), ("0",), {}),
    ],
)
def test_features_without_names_are_numbered(
    signature: Signature, matrix: Any, exclude: Any, inputs: Any, make: Callable[..., Log]
) -> None:
    log = make(signature=signature, exclude=exclude)
    log.predict(["a"], matrix, [1])
    (record,) = log.close()
    assert record["inputs"] == inputs


IMAGE_AND_TEXT = Signature(
    None, None, inputs=(TensorSpec("image", "FP32", (-1, 2)), TensorSpec("text", "BYTES", (-1,))), by_name=True
)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"exclude": ()}, ["image", "text"]),
        ({"exclude": ("text",)}, ["image"]),
        ({"include": ("text",)}, ["text"]),
        ({"include": ()}, []),
    ],
)
def test_columns_are_kept_by_name_whatever_they_hold(
    settings: dict[str, Any], kept: list[str], make: Callable[..., Log]
) -> None:
    log = make(signature=IMAGE_AND_TEXT, **settings)
    image, text = np.arange(100, dtype=np.float32).reshape(50, 2), np.array([f"t{n}" for n in range(50)], dtype=object)
    log.predict([f"id {n}" for n in range(50)], Columns({"image": image, "text": text}), np.arange(50))
    records = log.close()
    assert [record["prediction"] for record in records] == list(range(50))
    for number, record in enumerate(records):
        whole = {"image": [2 * number, 2 * number + 1], "text": f"t{number}"}
        assert record["inputs"] == {name: whole[name] for name in kept}


@pytest.mark.parametrize(
    ("signature", "settings"),
    [
        (IMAGE_AND_TEXT, {"exclude": ("0",)}),
        (NAMED, {"exclude": ("Age",)}), (NAMED, {"exclude": ("0",)}), (NAMED, {"include": ("zip",)}),
        (Signature(2, None), {"exclude": ("2",)}), (Signature(None, None), {"exclude": ("age",)}),
    ],
)  # fmt: skip
def test_a_feature_that_the_model_does_not_have_is_refused(
    signature: Signature, settings: dict[str, Any], make: Callable[..., Log]
) -> None:
    with pytest.raises(FatalError, match="which the model lacks"):
        make(signature=signature, **settings)


@given(st.lists(st.text(max_size=60), max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_the_sample_depends_on_the_id_alone_and_grows_with_the_share(ids: list[str], one: float, two: float) -> None:
    for prediction_id in ids:
        assert in_sample(prediction_id, max(one, two)) or not in_sample(prediction_id, min(one, two))
        assert in_sample(prediction_id, 1)


def test_labels_are_logged_for_the_predictions_that_are(make: Callable[..., Log]) -> None:
    log, ids = make(sample=0.25), [f"id {number}" for number in range(4000)]
    log.predict(ids, np.ones((4000, 3)), np.ones(4000))
    for prediction_id in ids:
        log.log.labelled(prediction_id, 1, NOW)
    records = log.close()
    predicted = {record["prediction_id"] for record in records if "inputs" in record}
    labelled = {record["prediction_id"] for record in records if "label" in record}
    assert predicted == labelled
    assert 800 < len(predicted) < 1200


def test_an_answer_without_ids_is_not_logged_and_a_retry_is_marked(make: Callable[..., Log]) -> None:
    log = make()
    log.predict(None, [[1, 2, 3]], [1])
    log.predict(["a"], [[1, 2, 3]], [1], attempt=Attempt.RETRY)
    (record,) = log.close()
    assert record["attempt"] == "retry"


class Stuck:
    """A volume that does not answer until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.lines = b""

    def write(self, lines: bytes) -> None:
        self.entered.set()
        self.go.wait()
        self.lines += lines

    def close(self) -> None: ...


def test_a_volume_that_hangs_costs_records_and_never_time(
    make: Callable[..., Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_log, "MOST_PENDING", MiB)
    log, stuck = make(), Stuck()
    log.log._files = stuck  # type: ignore[assignment]
    log.predict(["first"], [[1, 2, 3]], [1])
    assert stuck.entered.wait(10)
    rows = 1000
    wide = np.zeros((rows, 3))
    offered = 0
    while log.count("dropped") == 0:
        log.predict([str(row) for row in range(rows)], wide, np.zeros(rows))
        offered += rows
    assert offered * 32 <= payload_log.MOST_PENDING + rows * 300
    log.log.close(0.01)
    stuck.go.set()
    assert log.log._thread is not None
    log.log._thread.join(10)
    assert stuck.lines.count(b"\n") == log.count("records") == 1 + offered - log.count("dropped")


def test_long_texts_count_in_what_waits(make: Callable[..., Log]) -> None:
    log, stuck = make(signature=Signature(None, None)), Stuck()
    log.log._files = stuck  # type: ignore[assignment]
    log.predict(["first"], np.array(["x"], dtype=object), [1])
    assert stuck.entered.wait(10)
    for number in range(20):
        log.predict([f"{number}"], np.array(["x" * MiB], dtype=object), [1])
    assert log.count("dropped") == 5
    stuck.go.set()


def test_a_volume_that_fails_loses_records_and_recovers(
    make: Callable[..., Log], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make()
    log.log._files._directory = tmp_path / "file" / "below"
    (tmp_path / "file").write_text("")
    log.predict(["lost"], [[1, 2, 3]], [1])
    wait_until(lambda: log.count("dropped") == 1)
    log.log._files._directory = tmp_path
    log.predict(["kept"], [[1, 2, 3]], [1])
    assert [record["prediction_id"] for record in log.close()] == ["kept"]


def test_a_value_that_json_does_not_have_loses_its_record_alone(make: Callable[..., Log]) -> None:
    log = make(signature=Signature(None, None))
    log.predict(["a", "b"], np.array([[2**70], [1]], dtype=object), [1, 1])
    assert [record["prediction_id"] for record in log.close()] == ["b"]
    assert log.count("dropped") == 1


def test_nothing_is_begun_before_the_first_record(make: Callable[..., Log], tmp_path: Path) -> None:
    """Processes are forked after the log is made, and a thread does not come along."""
    log = make(sample=1e-9)
    log.predict(["a"], [[1, 2, 3]], [1])
    assert log.log._thread is None
    assert log.close() == []
    assert list(tmp_path.iterdir()) == []
