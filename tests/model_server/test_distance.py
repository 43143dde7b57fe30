"""Models that are served without scikit-learn until it is needed: they are what they were, and stop no event loop."""

import asyncio
import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from tests.model_server import estimators
from tests.model_server.serving import infer, infer_body, outputs, save, serving
from tests.model_server.test_acceleration import CLASSIFIERS, REGRESSIONS, ROWS, WORDS
from tests.model_server.test_batching import Asked

from serin_server.runtime.acceleration import Accelerate, accelerate_at_a_distance, child, trial
from serin_server.runtime.acceleration.child import GaveUpError
from serin_server.runtime.acceleration.scout import AwayError, is_promising
from serin_server.runtime.acceleration.trial import TOLERANCE
from serin_server.runtime.batcher import Batcher
from serin_server.runtime.formats import Format
from serin_server.runtime.model import Model
from serin_server.runtime.opening import open_model

TIED = np.array([[0.0]])


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine measures; children inherit it."""
    monkeypatch.setattr(trial, "_measure", lambda *_: (2e-3, 1e-3))


def tying() -> LogisticRegression:
    """A model of two classes that ties at 0."""
    return LogisticRegression(fit_intercept=False).fit([[-1.0], [1.0]], ["low", "high"])


def as_bytes(model: Any, compress: int = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file, compress=compress)
    return file.getvalue()


def distant(original: Any) -> tuple[Model, list[str]]:
    """The model at a distance, and a list to which the thread's name goes when its original is loaded."""
    loads: list[str] = []

    def load_again() -> Any:
        loads.append(threading.current_thread().name)
        return original

    found = accelerate_at_a_distance(lambda: original, load_again)
    assert found is not None
    assert found[1] == type(original).__name__
    return Model(found[0].estimator), loads


WHOLE = {
    f"{kind}: {name}": model
    for kind, models in (("classifier", CLASSIFIERS), ("regression", REGRESSIONS))
    for name, model in models.items()
    if name != "a pipeline that ends in trees"
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_at_a_distance_is_what_it_was(name: str) -> None:
    original = WHOLE[name]
    model, loads = distant(original)
    before = Model(original)
    assert (model.classes, model.methods, model.outputs) == (before.classes, before.methods, before.outputs)
    assert model.signature == replace(before.signature, only_numbers=True)  # as all that is accelerated
    found = model.predict(ROWS)
    assert loads == []
    extras = [method for method in model.methods if method != "predict"]
    for rows in (ROWS, ROWS.astype(np.float32)):
        found, expected = model.predict(rows, extras), before.predict(rows, extras)
        if before.classes is not None:
            assert found.values.tolist() == expected.values.tolist()
        else:
            np.testing.assert_allclose(found.values, expected.values, rtol=TOLERANCE, atol=TOLERANCE)
        for name in extras:
            np.testing.assert_allclose(found.extras[name], expected.extras[name], rtol=TOLERANCE, atol=TOLERANCE)
    assert len(loads) <= 1


async def test_an_event_loop_never_waits_for_the_original() -> None:
    model, loads = distant(tying())
    assert model.predict(TIED + 1).values.tolist() == ["high"]
    with pytest.raises(AwayError):
        model.predict(TIED)
    batcher = Batcher(model, 10)
    batcher._quick, batcher._average = True, 0.0  # as after many calls
    calls = [Asked(TIED + 1), Asked(TIED)]
    for call in calls:
        batcher.submit(call)
    async with asyncio.timeout(20):
        assert [await call.result for call in calls] == [["high"], tying().predict(TIED).tolist()]
    assert loads == ["predict_0"]
    batcher._quick, batcher._average = True, 0.0
    again = Asked(TIED)
    batcher.submit(again)
    async with asyncio.timeout(20):
        assert await again.result == tying().predict(TIED).tolist()
    assert loads == ["predict_0"]  # it stays


@pytest.mark.parametrize(
    ("model", "promising"),
    [
        *((model, True) for model in WHOLE.values()),
        (CLASSIFIERS["a pipeline that ends in trees"], False),
        (SVC(), False),
        (make_pipeline(make_column_transformer((StandardScaler(), [0])), LogisticRegression()), False),
        (estimators.Words(), False),
        ([LogisticRegression()], False),
        ({"no": "model"}, False),
    ],
)
def test_only_files_that_look_like_it_are_tried(model: Any, promising: bool) -> None:
    assert is_promising(as_bytes(model)) is promising
    assert not is_promising(as_bytes(model, compress=3))


def test_what_the_child_cannot_load_says_nothing() -> None:
    def ends() -> Any:
        raise SystemExit(3)

    def dies() -> Any:
        import os

        os._exit(3)

    assert accelerate_at_a_distance(ends, ends) is None
    assert accelerate_at_a_distance(dies, dies) is None
    assert accelerate_at_a_distance(LogisticRegression, dies) is None  # was never fitted
    assert accelerate_at_a_distance(lambda: CLASSIFIERS["a pipeline that ends in trees"], dies) is None


def test_what_is_not_converted_is_loaded_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_measure", lambda *_: (1e-3, 2e-3))
    monkeypatch.setattr(child, "convert_in_child", None)
    with pytest.raises(GaveUpError, match="not faster"):
        accelerate_at_a_distance(tying, tying)
    path = save(tying(), tmp_path / "model")
    model, _ = open_model(path, None, Format.JOBLIB, (), Accelerate.AUTO)
    assert model.acceleration == "not accelerated: it is not faster as ONNX"
    assert model.predict(TIED + 1).values.tolist() == ["high"]


def test_the_original_is_the_file_that_was_checked(tmp_path: Path) -> None:
    path = save(tying(), tmp_path / "model")
    model, _ = open_model(path, None, Format.JOBLIB, (), Accelerate.AUTO)
    assert model.acceleration.startswith("accelerated")
    path.write_bytes(as_bytes(DecisionTreeClassifier().fit(ROWS, WORDS)))
    # Opening predicts a row of zeros, which ties here, so that the original has been loaded before.
    assert model.predict(TIED).values.tolist() == tying().predict(TIED).tolist()


def test_a_file_that_was_changed_meanwhile_is_not_loaded(tmp_path: Path) -> None:
    original = CLASSIFIERS["logistic regression"]
    path = save(original, tmp_path / "model")
    model, _ = open_model(path, None, Format.JOBLIB, (), Accelerate.AUTO)
    path.write_bytes(as_bytes(tying()))
    assert model.predict(ROWS).values.tolist() == original.predict(ROWS).tolist()
    with pytest.raises(Exception, match="SHA-256"):
        model.predict(ROWS, ["decision_function"])


@pytest.mark.process
def test_the_server_has_no_scikit_learn_until_a_row_needs_it(tmp_path: Path) -> None:
    original = CLASSIFIERS["logistic regression"]
    path = save(original, tmp_path / "model")
    with serving(path) as server, server.client() as client:
        libraries = Path(f"/proc/{server.process.pid}/maps")
        body = infer_body(ROWS[0].tolist())
        assert outputs(infer(client, body))["predict"] == original.predict(ROWS[:1]).tolist()
        assert "/sklearn/" not in libraries.read_text()
        answer = infer(client, body | {"outputs": [{"name": "decision_function"}]})
        np.testing.assert_allclose(outputs(answer)["decision_function"], original.decision_function(ROWS[:1]).ravel())
        assert "/sklearn/" in libraries.read_text()
