"""Encoding of answers."""

from collections.abc import Collection
from typing import Any

import orjson

from serin_server.protocol.binary import write_tensor
from serin_server.protocol.datatypes import to_data
from serin_server.protocol.tensors import InferResponse, Tensor


def to_json(value: object) -> bytes:
    """Encode a JSON answer; numpy arrays may stand for arrays of numbers."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def error_body(message: str) -> bytes:
    """The protocol's error shape."""
    return to_json({"error": message})


def infer_response(response: InferResponse, binary: Collection[str] = ()) -> tuple[bytes, int | None]:
    """The body of an answer, and the bytes of JSON in it when binary data follow; an id that was sent is echoed.

    `binary` names the outputs whose data come as raw bytes.
    """
    message: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id is not None:
        message["id"] = response.id
    if not binary:
        message["outputs"] = [_output(tensor) for tensor in response.outputs]
        return to_json(message), None
    pieces: list[bytes] = []
    outputs = message["outputs"] = []
    for tensor in response.outputs:
        if tensor.name not in binary:
            outputs.append(_output(tensor))
            continue
        pieces.append(write_tensor(tensor.array, tensor.datatype))
        parameters = {"binary_data_size": len(pieces[-1])}
        outputs.append({**_head(tensor), "parameters": parameters})
    head = to_json(message)
    return b"".join((head, *pieces)), len(head)


def _output(tensor: Tensor) -> dict[str, Any]:
    """One output tensor, data flat and row-major."""
    return {**_head(tensor), "data": to_data(tensor.array, tensor.datatype)}


def _head(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": tensor.array.shape, "datatype": tensor.datatype}
