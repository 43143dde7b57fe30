"""Attempts to have a file's code run that nobody pinned or trusted. `Trap` tells when one succeeds."""

import ast
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from skops.io._audit import NODE_TYPE_MAPPING
from tests.model_server import estimators
from tests.model_server.serving import ROOT, run, save

from serin_server.failures import FatalError, Reason
from serin_server.runtime import loading
from serin_server.runtime.acceleration import Accelerate
from serin_server.runtime.formats import Format
from serin_server.runtime.opening import open_model
from serin_server.runtime.skops_file import load_skops

GOOD = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
LOADERS = sorted({name for name, _ in NODE_TYPE_MAPPING})


class Trap:
    """Whatever makes or calls it leaves a mark."""

    marks: ClassVar[list[str]] = []

    def __new__(cls, *_arguments: object) -> "Trap":
        cls.marks.append("made")
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None:
        self.marks.append("filled")

    def predict(self, rows: Any) -> Any:
        return rows


def spring() -> None:
    Trap.marks.append("called")


TRAP = f"{Trap.__module__}.{Trap.__qualname__}"


@pytest.fixture(autouse=True)
def marks() -> Iterator[list[str]]:
    Trap.marks.clear()
    yield Trap.marks
    Trap.marks.clear()


def hostile_joblib() -> bytes:
    file = io.BytesIO()
    joblib.dump(estimators.OnLoad(spring), file)
    return file.getvalue()


# --- a digest that is pinned ---------------------------------------------------------------------------------


def test_the_trap_works(marks: list[str], tmp_path: Path) -> None:
    """Without which all that follows would show nothing."""
    with pytest.raises(FatalError):
        loading.load(hostile_joblib())
    assert marks == ["called"]
    loaded = load_skops(skops.io.dumps(Trap()), [TRAP])
    assert isinstance(loaded, Trap)
    assert marks[-1] in ("made", "filled")


@pytest.mark.parametrize("format_", list(Format))
def test_bytes_of_another_digest_are_not_looked_into(marks: list[str], tmp_path: Path, format_: Format) -> None:
    path = tmp_path / "model"
    path.write_bytes(hostile_joblib())
    pinned = hashlib.sha256(path.read_bytes() + b"\0").hexdigest()
    with pytest.raises(FatalError) as failure:
        open_model(path, pinned, format_, (TRAP,), Accelerate.AUTO)
    assert (failure.value.reason, marks) == (Reason.DIGEST_MISMATCH_AT_LOAD, [])


@pytest.mark.parametrize("through", ["file", "link"])
def test_a_file_that_changes_once_it_is_read_is_loaded_as_it_was(
    marks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, through: str
) -> None:
    """Its path then leads to hostile bytes, while the digest is being taken and afterwards."""
    good, hostile, path = tmp_path / "good", tmp_path / "hostile", tmp_path / "model"
    save(GOOD, good)
    hostile.write_bytes(hostile_joblib())
    pinned = hashlib.sha256(good.read_bytes()).hexdigest()
    path.symlink_to(good) if through == "link" else path.write_bytes(good.read_bytes())
    take = hashlib.sha256

    def swap(data: bytes) -> Any:
        if through == "link":
            path.unlink()
            path.symlink_to(hostile)
        else:
            path.write_bytes(hostile.read_bytes())
        return take(data)

    monkeypatch.setattr(hashlib, "sha256", swap)
    model, digest = open_model(path, pinned, Format.JOBLIB, (), Accelerate.NEVER)
    assert path.read_bytes() == hostile.read_bytes()
    assert (model.description, digest, marks) == ("LogisticRegression", pinned, [])


@pytest.mark.parametrize("format_", [Format.SKOPS, Format.ONNX])
def test_a_pickle_under_another_formats_name_is_not_unpickled(
    marks: list[str], tmp_path: Path, format_: Format
) -> None:
    path = tmp_path / f"model.{format_}"
    path.write_bytes(hostile_joblib())
    with pytest.raises(FatalError) as failure:
        open_model(path, hashlib.sha256(path.read_bytes()).hexdigest(), format_, (TRAP,), Accelerate.NEVER)
    assert (failure.value.reason, marks) == (Reason.NOT_A_MODEL, [])


@pytest.mark.process
@pytest.mark.parametrize("digest", [[], ["--sha256", ""], ["--sha256", "0" * 63], ["--sha256", "0" * 64]])
def test_a_pod_without_its_models_digest_loads_nothing(tmp_path: Path, digest: list[str]) -> None:
    """As when the operator forgot it, or somebody changed the pod's arguments."""
    proof, key = tmp_path / "ran", tmp_path / "key"
    key.write_bytes(bytes(32))
    model = save(estimators.OnLoad(Path.touch, proof), tmp_path / "model")
    names = ("--model-name", "m", "--model-version", "v1", "--revision", "0123456789", "--key-path", key)
    done = run("serve", *names, "--model-path", model, *digest, "--port", "0", "--grpc-port", "off")
    assert done.code in (Reason.INVALID_CONFIGURATION.exit_code, Reason.DIGEST_MISMATCH_AT_LOAD.exit_code)
    assert not proof.exists()


def test_one_place_unpickles_and_one_way_leads_there() -> None:
    """The tests above are of that way: another one would not be seen by them."""
    calls: dict[str, set[str]] = {}
    for file in (ROOT / "model-server" / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                calls.setdefault(ast.unparse(node.func), set()).add(f"{file.parent.name}/{file.name}")
                if ast.unparse(node.func) in ("np.load", "numpy.load"):
                    assert "allow_pickle=False" in ast.unparse(node), f"{file}: {ast.unparse(node)}"
    assert calls["joblib.load"] == {"runtime/loading.py"}
    assert calls["skops.io.loads"] == {"runtime/skops_file.py"}
    assert calls["loading.load"] == calls["load_skops"] == {"runtime/formats.py"}
    assert calls["load_format"] == {"runtime/opening.py"}
    # What a child of this process says, which has loaded the very bytes that were pinned.
    assert calls["pickle.loads"] == {"acceleration/child.py"}
    others = ("pickle.load", "pickle.Unpickler", "skops.io.load", "pandas.read_pickle", "eval", "exec")
    assert not [name for name in others if name in calls]


# --- types that are trusted ----------------------------------------------------------------------------------


def rewritten(data: bytes, change: Any) -> bytes:
    """A skops file with another schema; `change` gets the old one and returns the schemas to write."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if name != "schema.json":
                new.writestr(name, old.read(name))
        for schema in change(json.loads(old.read("schema.json"))):
            new.writestr("schema.json", json.dumps(schema))
    return made.getvalue()


def refused(data: bytes, *trusted: str) -> FatalError:
    with pytest.raises(FatalError) as failure:
        load_skops(data, trusted)
    return failure.value


@pytest.mark.parametrize("key", ["trusted", "__trusted__", "trusted_types", "trustedTypes"])
def test_a_file_cannot_name_what_it_wants_to_be_trusted(marks: list[str], key: str) -> None:
    data = rewritten(skops.io.dumps(Trap()), lambda schema: [{**schema, key: [TRAP]}])
    marks.clear()
    failure = refused(data)
    assert (failure.reason, marks) == (Reason.UNTRUSTED_TYPES, [])
    assert TRAP in failure.message


@pytest.mark.parametrize(
    "trusted",
    [
        TRAP[:-1], f"{TRAP}s", TRAP.lower(), f" {TRAP}", f"{TRAP} ", Trap.__module__, f"{Trap.__module__}.*", "*",
        "Trap", f"{TRAP}.{TRAP}", "builtins.object", "",
    ],
)  # fmt: skip
def test_another_name_than_a_types_own_does_not_trust_it(marks: list[str], trusted: str) -> None:
    data = skops.io.dumps(Trap())
    marks.clear()
    assert (refused(data, trusted).reason, marks) == (Reason.UNTRUSTED_TYPES, [])


def test_a_second_schema_in_the_file_does_not_hide_what_the_first_asks_for(marks: list[str]) -> None:
    """What is checked is what is loaded, whichever of the two a reader takes."""
    trap = json.loads(zipfile.ZipFile(io.BytesIO(skops.io.dumps(Trap()))).read("schema.json"))
    marks.clear()
    for both in (lambda good: [good, trap], lambda good: [trap, good]):
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = rewritten(skops.io.dumps(GOOD), both)
        assert outcome(data) in ("LogisticRegression", "UntrustedTypes")
        assert marks == []


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in-an-estimator"])
def test_no_kind_of_node_brings_in_a_type_that_is_not_trusted(
    marks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: str, inside: bool
) -> None:
    """Nor imports its module, whose first lines are code as well."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lurking.py").write_text(f"import {Trap.__module__} as trap\ntrap.Trap.marks.append('imported')\n")
    for module, name in ((Trap.__module__, "Trap"), (spring.__module__, "spring"), ("lurking", "Anything")):
        for content in contents(module, name):
            node = {"__class__": name, "__module__": module, "__loader__": loader, **content}
            data = rewritten(skops.io.dumps(GOOD), lambda schema, node=node: [planted(schema, node, inside)])
            # Some kinds have a use for nothing in the node: then the estimator is as it was.
            assert outcome(data) in ("UntrustedTypes", "NotAModel", "MissingModule", "LoadFailed", "LogisticRegression")
            assert marks == []
            assert "lurking" not in sys.modules


def outcome(data: bytes) -> str:
    """The reason for which a file is refused, or the class of what it holds."""
    try:
        return type(load_skops(data, ["another.Type"])).__name__
    except FatalError as failure:
        return failure.reason.label


def planted(schema: dict[str, Any], node: dict[str, Any], inside: bool) -> dict[str, Any]:
    if inside:
        schema["content"]["content"]["C"] = node
        return schema
    return {**{key: schema[key] for key in ("protocol", "_skops_version")}, **node}


def contents(module: str, name: str) -> Iterator[dict[str, Any]]:
    """What the kinds of nodes read beside their class, as far as it leads anywhere."""
    trap = {"__class__": name, "__module__": module, "__loader__": "ObjectNode"}
    text = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": '"x"', "is_json": True}
    empty = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": []}
    table = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}, "key_types": empty}
    yield {}
    yield {"content": trap}
    yield {"content": [trap], "shape": [1], "type": "json", "is_json": False}
    yield {"content": {"x": trap}, "key_types": empty}
    yield {"content": name, "attrs": trap, "args": empty, "type": "numpy"}
    yield {"content": {"module_path": module, "function": name}}
    yield {"content": {"func": "predict", "obj": trap}}
    yield {"content": {"func": trap, "args": empty, "kwds": table, "keywords": table, "namespace": table}}
    yield {"content": {"default_factory": trap, "main": table}, "default_factory": trap, "key_types": empty}
    yield {"content": {"data": trap, "mask": trap, "bit_generator_state": table, "bit_generator": trap}}
    yield {"content": {"start": trap, "stop": text, "step": text}, "attrs": {"content": trap}}
    yield {"reduce": {"content": [trap]}, "content": trap, "state": trap, "__reduce__": {"args": trap, "state": trap}}


def test_a_pickle_where_an_array_should_be_is_not_unpickled(marks: list[str]) -> None:
    file = io.BytesIO()
    np.save(file, np.array([estimators.OnLoad(spring)], dtype=object), allow_pickle=True)
    np.load(io.BytesIO(file.getvalue()), allow_pickle=True)
    assert marks == ["called"]  # of whoever lets numpy do it
    marks.clear()
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(GOOD))) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, file.getvalue() if name.endswith(".npy") else old.read(name))
    assert (refused(made.getvalue()).reason, marks) == (Reason.LOAD_FAILED, [])


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_schema_without_end_is_no_model(depth: int) -> None:
    head, tail = '{"__class__":"list","__module__":"builtins","__loader__":"ListNode","content":[', "]}"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", head * depth + tail * depth)
    assert refused(file.getvalue()).reason is Reason.NOT_A_MODEL


def test_a_damaged_archive_is_no_model() -> None:
    """Whichever byte it is: it may be one that nobody reads."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        zipfile.ZipFile(io.BytesIO(skops.io.dumps(GOOD))) as old,
    ):
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    data = file.getvalue()
    outcomes = {
        outcome(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]) for place in range(0, len(data), 7)
    }
    assert outcomes <= {"NotAModel", "UntrustedTypes", "LoadFailed", "VersionMismatch", "LogisticRegression"}
    assert "NotAModel" in outcomes
