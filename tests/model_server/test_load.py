"""Models that cannot be served: each ends the process with its exit code and a message that says what to do."""

import json
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import joblib
import pytest
import sklearn
from sklearn.linear_model import LogisticRegression
from tests.model_server import estimators
from tests.model_server.serving import Finished, run, save, serve_arguments, serving_settings

from serin_server.failures import FatalError, Reason
from serin_server.runtime.loading import load
from serin_server.serve import serve as serve_here

pytestmark = pytest.mark.process


def trained_elsewhere() -> LogisticRegression:
    """A model whose pickled state says that another scikit-learn trained it."""

    class Elsewhere(LogisticRegression):  # type: ignore[misc]
        def __reduce__(self) -> tuple[Any, ...]:
            state = {**vars(self), "_sklearn_version": "0.24.2"}
            return (LogisticRegression, (), state)

    return Elsewhere().fit([[0.0], [1.0]], [0, 1])


class _Missing:
    """Pickles as an instance of a class in a module that the loading process does not have."""

    def __init__(self, module: str) -> None:
        self._module = module

    def save(self, path: Path) -> Path:
        module = types.ModuleType(self._module)
        kind = type("Model", (), {"__module__": self._module, "__qualname__": "Model"})
        module.Model = kind  # type: ignore[attr-defined]
        sys.modules[self._module] = module
        try:
            return save(kind(), path)
        finally:
            del sys.modules[self._module]


def serve(model: Path, tmp_path: Path, sha256: str | None = None) -> Finished:
    key = tmp_path / "key"
    key.write_bytes(bytes(32))
    return run(*serve_arguments(model, key, sha256=sha256))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model"


def check(done: Finished, code: int, reason: str, *texts: str) -> None:
    assert done.code == code, done.stderr
    assert done.termination is not None
    assert done.termination["reason"] == reason
    assert json.loads(done.stderr.splitlines()[-1]) == done.termination
    for text in texts:
        assert text in done.termination["message"]


def test_another_digest_than_expected(iris: Path, tmp_path: Path) -> None:
    check(serve(iris, tmp_path, "0" * 64), 24, "DigestMismatch", "expected " + "0" * 64)


def test_bytes_that_are_no_model(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"<html>Please log in</html>")
    check(serve(path, tmp_path), 20, "NotAModel", "not one that joblib can load")


def test_a_missing_module(path: Path, tmp_path: Path) -> None:
    check(serve(_Missing("lightglue").save(path), tmp_path), 21, "MissingModule", "'lightglue'")


def test_a_model_that_raises_on_load(path: Path, tmp_path: Path) -> None:
    save(estimators.OnLoad(estimators.raise_on_load), path)
    check(serve(path, tmp_path), 22, "LoadFailed", "RuntimeError: no licence found")


def test_another_scikit_learn(path: Path, tmp_path: Path) -> None:
    save(trained_elsewhere(), path)
    check(serve(path, tmp_path), 23, "VersionMismatch", "scikit-learn 0.24.2", f"scikit-learn {sklearn.__version__}")


@pytest.mark.parametrize(("function", "code"), [("vanish_on_load", 77), ("killed_on_load", -11)])
def test_a_model_that_crashes_on_load_ends_the_process(path: Path, tmp_path: Path, function: str, code: int) -> None:
    save(estimators.OnLoad(getattr(estimators, function)), path)
    done = serve(path, tmp_path)
    assert (done.code, done.termination) == (code, None)


@pytest.mark.parametrize("key", [None, b"too short"])
def test_a_key_that_is_missing_or_too_short(iris: Path, tmp_path: Path, key: bytes | None) -> None:
    settings = serving_settings(model_path=iris, key_path=tmp_path / "key")
    if key is not None:
        (tmp_path / "key").write_bytes(key)
    with pytest.raises(FatalError, match="the key") as failure:
        serve_here(settings)
    assert failure.value.reason is Reason.INVALID_CONFIGURATION


def test_a_file_that_is_not_there(path: Path, tmp_path: Path) -> None:
    settings = serving_settings(model_path=path, key_path=tmp_path / "key")
    (tmp_path / "key").write_bytes(bytes(32))
    with pytest.raises(FatalError, match=str(path)) as failure:
        serve_here(settings)
    assert failure.value.reason is Reason.NOT_FOUND


def reason_of(data: bytes) -> Reason:
    with pytest.raises(FatalError) as failure:
        load(data)
    return failure.value.reason


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 100, b"\x80\x04garbage", b'{"a": 1}', b"PK\x03\x04 a zip", b"\x08\x07\x12\x0bonnx", b"hello\n",
        b"\x1f\x8b broken gzip", b"x\x9c broken zlib", b"\xfd7zXZ\0 broken xz", b"BZh9 broken bzip2", b"I12x\n.",
        pickle.dumps({"weights": [1, 2]}), pickle.dumps(LogisticRegression), pickle.dumps([1])[:-3],
    ],
)  # fmt: skip
def test_foreign_bytes_are_not_a_model(data: bytes) -> None:
    assert reason_of(data) is Reason.NOT_A_MODEL


@pytest.mark.parametrize("function", [estimators.value_error_on_load, estimators.leave_on_load])
def test_a_models_own_exception_is_not_taken_for_foreign_bytes(function: Any, path: Path) -> None:
    save(estimators.OnLoad(function), path)
    assert reason_of(path.read_bytes()) is Reason.LOAD_FAILED


def test_a_module_that_scikit_learn_once_had_is_another_version(path: Path) -> None:
    assert reason_of(_Missing("sklearn.gone").save(path).read_bytes()) is Reason.VERSION_MISMATCH


@pytest.mark.parametrize("compress", [0, 3, ("xz", 3)])
def test_every_way_joblib_writes_is_read(path: Path, compress: Any) -> None:
    joblib.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), path, compress=compress)
    assert load(path.read_bytes()).predict([[5.0]]).tolist() == [1]
