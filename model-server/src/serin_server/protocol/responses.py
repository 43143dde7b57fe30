"""Encoding of answers."""

from collections.abc import Mapping
from typing import Any

import orjson

from serin_server.protocol.datatypes import Array, from_array


def to_json(value: object) -> bytes:
    """Encode a JSON answer; numpy arrays may stand for arrays of numbers."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def error_body(message: str) -> bytes:
    """The protocol's error shape."""
    return to_json({"error": message})


def output(name: str, array: Array) -> dict[str, Any]:
    """One output tensor, data flat and row-major."""
    datatype, data = from_array(array)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def strings(name: str, values: list[str]) -> dict[str, Any]:
    """One output tensor of strings."""
    return {"name": name, "shape": [len(values)], "datatype": "BYTES", "data": values}


def infer_response(model: Mapping[str, str], request_id: str | None, outputs: list[dict[str, Any]]) -> bytes:
    """The body of an answer. `model` holds model_name and model_version; an id that was sent is echoed."""
    message: dict[str, Any] = dict(model)
    if request_id is not None:
        message["id"] = request_id
    message["outputs"] = outputs
    return to_json(message)
