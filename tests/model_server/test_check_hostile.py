"""Files that are made to look harmless to `serin-server check`, or to hurt who runs it."""

import gzip
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from serin_server.check import inert
from serin_server.check.command import check
from serin_server.check.inert import Reading
from serin_server.failures import FatalError, Reason
from serin_server.runtime.formats import Format


def verdict(path: Path, data: bytes, format_: Format = Format.JOBLIB) -> list[str] | None:
    """What the check says that the file asks for; None when it refuses the file."""
    path.write_bytes(data)
    try:
        found = check(path, format_, ())
    except FatalError as failure:
        return None if failure.reason in (Reason.NOT_A_MODEL, Reason.TOO_LARGE) else [failure.message]
    assert found["safe"] == (not found["asks_for"])
    json.dumps(found, ensure_ascii=False).encode()
    return list(found["asks_for"])


def call(module: str, name: str, argument: bytes = b"") -> bytes:
    """A pickle that calls something with texts, named as protocol 4 does: a name may have dots."""
    named = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    return b"\x80\x04" + named + b"\x93(" + argument + b"tR."


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.utils.parallel", "joblib.externals.loky.process_executor.mp.Process"),
        ("sklearn", "utils.parallel.joblib.Memory"),
        ("sklearn.utils.parallel.joblib", "Memory"),
        ("sklearn.datasets._openml", "GzipFile"),
        ("sklearn.pipeline", "Bunch.X"),
        ("sklearn.base", "Path"),
        ("numpy", "ndarray.tofile"),
        ("builtins", "set.__class__"),
        ("datetime", "date.X"),
    ],
)
def test_a_name_that_leads_elsewhere_is_no_known_one(tmp_path: Path, module: str, name: str) -> None:
    assert verdict(tmp_path / "model", call(module, name)) == [f"{module}.{name}"]


def array_file(dtype_code: str, state: tuple[Any, ...] | None, data: bytes, **wrapper: Any) -> bytes:
    """A joblib file with one array, whose datatype and wrapper say what they are told to."""

    class Dtype:
        def __reduce__(self) -> Any:
            return (np.dtype, (dtype_code, False, True), state)

    class Wrapper:
        def __reduce__(self) -> Any:
            attributes = {"subclass": np.ndarray, "shape": (1,), "order": "C", "dtype": Dtype(), "allow_mmap": False}
            kind = joblib.numpy_pickle.NumpyArrayWrapper
            return (kind.__new__, (kind,), {**attributes, **wrapper})

    text = pickle.dumps(Wrapper(), 2)
    return text[:-1] + data + b"."  # the array's bytes come after BUILD, before what follows


HIDDEN = pickle.dumps(json.loads)  # a name that nobody knows, where an array's bytes should be
OBJECTS_INSIDE = (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 27)


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("V8", OBJECTS_INSIDE),
        ("V8", (3, "|", None, None, None, 8, 1, 1)),
        ("f8", (3, "<", None, None, None, -1, -1, 1)),
        ("V8", (3, "|", None, None, None, 64, 1, 0)),
        ("S8", (3, "|", None, None, None, 64, 1, 0)),
        ("U2", (3, "<", None, None, None, 64, 4, 8)),
        ("V8", (3, "|", None, ("f",), {"f": ("no dtype", 0)}, 8, 1, 0)),
        ("V8", (3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0)),
        ("f8", (3,)),
        ("f8", ()),
    ],
)
def test_a_datatype_that_is_not_what_it_says_is_refused(tmp_path: Path, code: str, state: tuple[Any, ...]) -> None:
    """joblib would read other bytes than the check, or run a pickle where the check sees numbers."""
    assert verdict(tmp_path / "model", array_file(code, state, HIDDEN)) is None


def test_a_pickle_inside_an_array_of_objects_is_read_too(tmp_path: Path) -> None:
    array = np.array([json.loads, LogisticRegression()], dtype=object)
    joblib.dump({"a": LogisticRegression(), "b": array}, tmp_path / "inner")
    assert "json.loads" in Reading((tmp_path / "inner").read_bytes()).names


def test_an_array_is_described_once(tmp_path: Path) -> None:
    """What an earlier description leaves behind would change how joblib reads."""
    wrapper = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n"
    state = pickle.dumps({"shape": (1,), "dtype": np.dtype("f8"), "order": "C"}, 2)[2:-1]
    for begin in (wrapper + b"(I1\nI2\nI3\nI4\ntR", wrapper + b")\x81}b"):
        assert verdict(tmp_path / "model", b"\x80\x02" + begin + state + b"b" + bytes(8) + b".") is None


def test_data_that_repeats_itself_is_not_shown(tmp_path: Path) -> None:
    """Lists of lists of lists, by reference: small in the file and in memory, endless as text."""
    bomb: Any = ["x"]
    for _ in range(100):
        bomb = [bomb] * 10
    for values in ([bomb], [10**5000], [b"x"], [None]):
        model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
        model.classes_ = np.empty(1, dtype=object)
        model.classes_[0] = values[0]
        model.n_features_in_ = 10**5000
        assert verdict(tmp_path / "model", pickle.dumps(model, 4)) == []


def test_a_small_file_does_not_become_a_large_one_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inert, "MOST_BYTES", 10_000_000)
    many = b"\x8e" + struct.pack("<Q", 2**33) + bytes(2 * 10**7)
    for data in (
        gzip.compress(b"\x80\x04" + many + b"."),
        b"\x80\x04" + many,
        b"\x80\x04\x95" + struct.pack("<Q", 2**60),
    ):
        assert verdict(tmp_path / "model", data) is None


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"__class__": "x"}', b"[]", b"\xff"])
def test_a_broken_schema_is_no_model(tmp_path: Path, text: bytes) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", text)
    assert verdict(tmp_path / "model", file.getvalue(), Format.SKOPS) is None
