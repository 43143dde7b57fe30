"""`serin-server check` tells what a file is, and runs nothing of it."""

import json
import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from skl2onnx import to_onnx
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.model_server import estimators
from tests.model_server.serving import run
from tests.model_server.test_load import trained_elsewhere

from serin_server.check.command import check
from serin_server.failures import FatalError, Reason
from serin_server.protocol.metadata import input_specs
from serin_server.runtime.formats import Format, load_format
from serin_server.runtime.model import Model

ROWS = np.random.default_rng(1).normal(size=(60, 3))
WORDS = np.where(ROWS.sum(axis=1) > 0, "up", "down")
CLASSIFIER = LogisticRegression().fit(ROWS, WORDS)


def shapes(found: dict[str, Any]) -> dict[str, tuple[str, list[int]]]:
    tensors = found["metadata"]["inputs"] + found["metadata"]["outputs"]
    return {tensor["name"]: (tensor["datatype"], tensor["shape"]) for tensor in tensors}


def served(model: Any) -> dict[str, tuple[str, list[int]]]:
    """The same of the model once it is loaded."""
    loaded = Model(model)
    specs = (*input_specs(loaded.signature), *loaded.outputs)
    return {spec.name: (spec.datatype, list(spec.shape)) for spec in specs}


@pytest.mark.parametrize("compress", [0, 3, ("xz", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3)])
@pytest.mark.parametrize(
    "model",
    [
        CLASSIFIER,
        RandomForestClassifier(3).fit(ROWS, WORDS.astype(object)),
        HistGradientBoostingClassifier(max_iter=2).fit(ROWS, WORDS),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, WORDS),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_scikit_learn_model_is_described(tmp_path: Path, model: Any, compress: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(model, path, compress=compress)
    found = check(path, Format.JOBLIB, ())
    assert (found["safe"], found["problems"]) == (True, [])
    assert shapes(found) == served(model)
    assert shapes(found)["predict_proba"] == ("FP64", [-1, 2])
    assert type(model).__name__ in found["model"]


def test_a_plain_pickle_is_described(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    for protocol in (3, 4, 5):
        path.write_bytes(pickle.dumps(CLASSIFIER, protocol))
        assert shapes(check(path, Format.JOBLIB, ())) == served(CLASSIFIER)


def test_skops_and_onnx_are_described(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(skops.io.dumps(CLASSIFIER))
    assert shapes(check(path, Format.SKOPS, ())) == served(CLASSIFIER)
    data = to_onnx(CLASSIFIER, ROWS[:1].astype(np.float32)).SerializeToString()
    path.write_bytes(data)
    found = shapes(check(path, Format.ONNX, ()))
    assert found == served(load_format(data, Format.ONNX, ()))
    assert found["X"] == ("FP32", [-1, 3])
    path.write_bytes(to_onnx(LinearRegression().fit(ROWS, ROWS[:, 0]), ROWS[:1]).SerializeToString())
    assert list(shapes(check(path, Format.ONNX, ()))) == ["X", "predict", "prediction_id"]


@pytest.mark.process
def test_code_in_a_file_is_named_and_not_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "model.joblib", tmp_path / "ran"
    joblib.dump(estimators.OnLoad(Path.touch, proof), path)
    done = run("check", path)
    assert done.code == Reason.UNTRUSTED_TYPES.exit_code
    found = json.loads(done.stdout)
    assert found["safe"] is False
    assert found["asks_for"]
    assert not proof.exists()


@pytest.mark.parametrize(
    "name",
    ["os.system", "numpy.testing._private.utils.runstring", "functools.partial", "builtins.eval", "sklearn.x"],
)
def test_functions_are_not_known_to_be_safe(tmp_path: Path, name: str) -> None:
    module, _, function = name.rpartition(".")
    path = tmp_path / "model"
    path.write_bytes(f"c{module}\n{function}\n(V1\ntR.".encode())
    assert check(path, Format.JOBLIB, ())["asks_for"] == [name]


def test_a_skops_type_that_nobody_trusts_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(estimators.Words()))
    assert check(path, Format.SKOPS, ())["asks_for"] == ["tests.model_server.estimators.Words"]
    assert check(path, Format.SKOPS, ("tests.model_server.estimators.Words",))["safe"]


def test_another_scikit_learn_and_missing_modules_are_told(tmp_path: Path) -> None:
    path = tmp_path / "model"
    joblib.dump(trained_elsewhere(), path)
    assert "trained with scikit-learn 0.24.2" in check(path, Format.JOBLIB, ())["problems"][0]
    path.write_bytes(b"clightglue\nModel\n)R.")
    assert check(path, Format.JOBLIB, ())["problems"] == ["the module lightglue is not here"]


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x80\x04garbage", b"\x1f\x8b broken", b"I12\n.", b"\x80\x04\x8d" + b"\xff" * 8]
)
def test_foreign_bytes_are_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(data)
    for format_ in Format:
        with pytest.raises(FatalError) as failure:
            check(path, format_, ())
        assert failure.value.reason is Reason.NOT_A_MODEL
