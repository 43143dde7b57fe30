"""Checks skops and ONNX files."""

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np

from serin_server.check.joblib_file import methods_of
from serin_server.check.report import Estimator, Report
from serin_server.failures import FatalError, Reason
from serin_server.protocol.metadata import PREDICT, PROBABILITIES

_MOST_SCHEMA_BYTES = 256 * 1024 * 1024


def check_skops(data: bytes, trusted: tuple[str, ...]) -> Report:
    """What the file is, and the types that it asks for beyond the trusted ones. Raises FatalError."""
    from serin_server.runtime.skops_file import untrusted_types

    try:
        schema = _schema(data)  # the bound on its size comes before skops reads it
        asked = [name for name in untrusted_types(data) if name not in trusted]
        estimator = _skops_estimator(data, schema)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise FatalError(Reason.NOT_A_MODEL, f"the file is not one that skops can load ({error!r})") from error
    versions: set[str] = set()
    _collect_versions(schema, versions)
    needs = {"skops": [str(schema.get("_skops_version", ""))], "sklearn": sorted(versions)}
    return Report("skops", needs, asked, estimator)


def _skops_estimator(data: bytes, schema: dict[str, Any]) -> Estimator:
    """The object's own attributes; those of a pipeline are its steps', and known once the file is loaded."""
    kind = f"{schema.get('__module__')}.{schema.get('__class__')}"
    state = schema.get("content")
    attributes = state.get("content") if isinstance(state, dict) else None
    features = attributes.get("n_features_in_") if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or not isinstance(features, dict):
        return Estimator(kind, described=False)
    names, classes = (_array(data, attributes.get(key)) for key in ("feature_names_in_", "classes_"))
    if ("feature_names_in_" in attributes and names is None) or ("classes_" in attributes and classes is None):
        return Estimator(kind, described=False)
    return Estimator(
        kind,
        features=int(features["content"]),
        names=None if names is None else tuple(map(str, names)),
        classes=classes,
        methods=methods_of(kind),
    )


def _array(data: bytes, node: Any) -> list[Any] | None:
    """The elements of an array of numbers or fixed-width strings; None for an array of objects."""
    if not isinstance(node, dict) or "file" not in node:
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(node["file"]) as file:
        return list(np.load(io.BytesIO(file.read(_MOST_SCHEMA_BYTES)), allow_pickle=False).tolist())


def _schema(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if archive.getinfo("schema.json").file_size > _MOST_SCHEMA_BYTES:
            raise FatalError(Reason.TOO_LARGE, f"the file's schema has more than {_MOST_SCHEMA_BYTES} bytes")
        schema = json.loads(archive.read("schema.json"))
    if not isinstance(schema, dict):
        raise FatalError(Reason.NOT_A_MODEL, "the file's schema is not an object")
    return schema


def _collect_versions(node: Any, versions: set[str]) -> None:
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            state = item.get("_sklearn_version")
            if isinstance(state, dict) and isinstance(state.get("content"), str):
                versions.add(state["content"].strip('"'))
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def check_onnx(data: bytes) -> Report:
    """What the model is, from its graph. Raises FatalError. ONNX files run no code of their own."""
    from serin_server.runtime.onnx_file import graph_layout, signature
    from serin_server.runtime.onnx_graph import parse

    model = parse(data)
    found = graph_layout(model)
    needs = {
        "onnx": [f"IR {model.ir_version}"],
        **{opset.domain or "ai.onnx": [str(opset.version)] for opset in model.opset_import},
    }
    taken = signature(found.inputs)
    estimator = Estimator(
        kind=f"ONNX graph by {model.producer_name or 'an unknown producer'} {model.producer_version}".strip(),
        features=taken.features,
        names=taken.names,
        inputs=taken.inputs,
        classes=None if found.classes is None else list(found.classes),
        methods=(PREDICT,) if found.scores is None else (PREDICT, PROBABILITIES),
    )
    return Report("onnx", needs, [], estimator)
