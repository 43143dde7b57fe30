"""The formats skops and ONNX: what loads, what is refused, and what it answers."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sklearn
import skops.io
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression, LogisticRegression
from tests.model_server import estimators
from tests.model_server.serving import infer_body, outputs, run, save, served, serving

from serin_server.failures import FatalError, Reason
from serin_server.runtime.acceleration import Accelerate
from serin_server.runtime.formats import Format, load_format
from serin_server.runtime.model import Model
from serin_server.runtime.opening import open_model

ROWS = np.random.default_rng(1).normal(size=(60, 3))
WORDS = np.where(ROWS.sum(axis=1) > 0, "up", "down")
MODEL = LogisticRegression().fit(ROWS, WORDS)


def as_onnx(model: Any, dtype: Any = np.float32, **options: Any) -> bytes:
    made: bytes = to_onnx(model, ROWS[:1].astype(dtype), **options).SerializeToString()
    return made


def refused(data: bytes, format_: Format, *trusted: str) -> FatalError:
    with pytest.raises(FatalError) as failure:
        load_format(data, format_, trusted)
    return failure.value


def test_a_skops_model_answers_as_the_one_that_was_saved() -> None:
    loaded = load_format(skops.io.dumps(MODEL), Format.SKOPS, ())
    assert loaded.predict(ROWS).tolist() == MODEL.predict(ROWS).tolist()


def test_a_type_that_nobody_trusts_is_named_and_never_made() -> None:
    data = skops.io.dumps(estimators.Words())
    failure = refused(data, Format.SKOPS, "another.Type")
    assert failure.reason is Reason.UNTRUSTED_TYPES
    assert "tests.model_server.estimators.Words" in failure.message
    assert "model.trustedTypes" in failure.message
    loaded = load_format(data, Format.SKOPS, ("tests.model_server.estimators.Words",))
    assert isinstance(loaded, estimators.Words)


@pytest.mark.parametrize("format_", [Format.SKOPS, Format.ONNX])
@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 a zip", pickle.dumps(MODEL), b"\x80\x04garbage"])
def test_foreign_bytes_are_refused(format_: Format, data: bytes) -> None:
    assert refused(data, format_).reason is Reason.NOT_A_MODEL


def test_a_skops_file_of_another_scikit_learn_is_refused() -> None:
    data = skops.io.dumps(MODEL)

    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(sklearn.__version__.encode(), b"0.24.2"))
    failure = refused(changed.getvalue(), Format.SKOPS)
    assert failure.reason is Reason.VERSION_MISMATCH
    assert "scikit-learn 0.24.2" in failure.message


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.float32, {}),  # a map a row, which ONNX has in single precision only
        (np.float32, {"options": {"zipmap": False}}),
        (np.float64, {"options": {"zipmap": False}}),
    ],
)
def test_an_onnx_classifier_gives_labels_and_probabilities(dtype: Any, options: Any) -> None:
    model = Model(load_format(as_onnx(MODEL, dtype, **options), Format.ONNX, ()))
    found = model.predict(ROWS, ["predict_proba"])
    assert (model.classes, model.predict_datatype, model.signature.features) == (["down", "up"], "BYTES", 3)
    assert found.values.tolist() == MODEL.predict(ROWS).tolist()
    np.testing.assert_allclose(found.extras["predict_proba"], MODEL.predict_proba(ROWS), atol=1e-5)


def test_an_onnx_regression_gives_values() -> None:
    original = LinearRegression().fit(ROWS, ROWS[:, 0] * 2)
    model = Model(load_format(as_onnx(original), Format.ONNX, ()))
    assert (model.classes, model.methods) == (None, ("predict",))
    np.testing.assert_allclose(model.predict(ROWS).values, original.predict(ROWS), atol=1e-5)


def graph(*nodes: Any, inputs: list[Any], outputs: list[Any], constants: tuple[Any, ...] = ()) -> Any:
    made = helper.make_graph(list(nodes), "g", inputs, outputs, list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_inputs_of_an_onnx_model_are_columns_by_name() -> None:
    columns = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, 1]) for name in ("a", "b")]
    value = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [None, 1])
    made = graph(helper.make_node("Sub", ["a", "b"], ["y"]), inputs=columns, outputs=[value])
    model = Model(load_format(made.SerializeToString(), Format.ONNX, ()))
    assert model.signature.names == ("a", "b")
    assert model.predict(np.array([[5.0, 3.0], [1.0, 4.0]])).values.tolist() == [2.0, -3.0]


def test_weights_in_other_files_are_refused() -> None:
    """No digest covers them."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.append(onnx.StringStringEntryProto(key="location", value="/etc/passwd"))
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 1])
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    made = graph(helper.make_node("Add", ["x", "w"], ["y"]), inputs=[port], outputs=[value], constants=(weights,))
    failure = refused(made.SerializeToString(), Format.ONNX)
    assert failure.reason is Reason.NOT_A_MODEL
    assert "in other files" in failure.message


def test_the_bytes_that_were_checked_are_the_bytes_that_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(as_onnx(MODEL))
    reads: list[Path] = []
    read_bytes = Path.read_bytes

    def counted(self: Path) -> bytes:
        reads.append(self)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    open_model(path, None, Format.ONNX, (), Accelerate.NEVER)
    assert reads == [path]


@pytest.mark.process
@pytest.mark.parametrize(("suffix", "data"), [("onnx", as_onnx(MODEL)), ("skops", skops.io.dumps(MODEL))])
def test_the_server_answers_with_either(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(data)
    with serving(path) as server, server.client() as client:
        answer = client.post("/v2/models/m/infer", json=infer_body([3.0, 3.0, 3.0], [-3.0, -3.0, -3.0]))
    assert outputs(answer)["predict"] == ["up", "down"]


@pytest.mark.process
def test_a_file_of_ones_own_is_served_with_no_more_than_its_name(tmp_path: Path) -> None:
    path = save(MODEL, tmp_path / "my model.joblib")
    with served("serve", str(path), "--host", "127.0.0.1", "--port", "0") as server, server.client() as client:
        answer = client.post("/v2/models/my-model/infer", json=infer_body([3.0, 3.0, 3.0]))
        (loaded,) = [line for line in server.log_lines() if line["message"] == "model loaded"]
    assert outputs(answer)["predict"] == ["up"]
    assert loaded["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "accelerated" in loaded["acceleration"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name one model file"),
        (["a", "--model-path", "a"], "name one model file"),
        (["--model-path", "a"], "--model-path needs"),  # a pod with a forgotten option serves nothing
    ],
)
def test_a_file_is_named_once_and_a_pods_is_checked(arguments: list[str], message: str) -> None:
    done = run("serve", *arguments)
    assert done.code == Reason.INVALID_CONFIGURATION.exit_code
    assert message in done.stderr
