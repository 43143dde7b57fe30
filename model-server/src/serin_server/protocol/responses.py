"""Encoding of answers."""

from typing import Any

import orjson

from serin_server.protocol.datatypes import from_array
from serin_server.protocol.tensors import InferResponse, Tensor


def to_json(value: object) -> bytes:
    """Encode a JSON answer; numpy arrays may stand for arrays of numbers."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def error_body(message: str) -> bytes:
    """The protocol's error shape."""
    return to_json({"error": message})


def infer_response(response: InferResponse) -> bytes:
    """The body of an answer, in JSON; an id that was sent is echoed."""
    message: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id is not None:
        message["id"] = response.id
    message["outputs"] = [_output(tensor) for tensor in response.outputs]
    return to_json(message)


def _output(tensor: Tensor) -> dict[str, Any]:
    """One output tensor, data flat and row-major."""
    datatype, data = from_array(tensor.array)
    return {"name": tensor.name, "shape": tensor.array.shape, "datatype": datatype, "data": data}
