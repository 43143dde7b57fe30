"""Decoding of inference requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from serin_server.protocol.datatypes import DATATYPES, Array, to_array
from serin_server.protocol.errors import RequestError, invalid
from serin_server.protocol.tensors import InferRequest, RequestedOutput, Tensor


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes: the number of features and their names, each None when the model does not say."""

    features: int | None
    names: tuple[str, ...] | None


def parse_json(body: bytes) -> Any:
    """Parse a request body. Raises RequestError (400); NaN and infinities are not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the body is not valid JSON: {error}") from None


def parse_request(body: bytes) -> InferRequest:
    """Decode the body of a V2 inference request. Raises RequestError (400)."""
    message = parse_json(body)
    if not isinstance(message, dict):
        raise invalid("the body must be a JSON object")
    request_id = message.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise invalid("id must be a string")
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise invalid("inputs must be an array of at least one tensor")
    return InferRequest(
        id=request_id,
        parameters=_parameters("parameters", message.get("parameters")),
        inputs=tuple(_tensor(position, item) for position, item in enumerate(inputs)),
        outputs=_outputs(message.get("outputs")),
    )


def _tensor(position: int, item: object) -> Tensor:
    where = f"inputs[{position}]"
    if not isinstance(item, dict):
        raise invalid(f"{where} must be an object")
    name, shape, datatype = item.get("name"), item.get("shape"), item.get("datatype")
    if not isinstance(name, str):
        raise invalid(f"{where} needs a name")
    where = f"{where} ({name})"
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise invalid(f"{where}: datatype must be one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise invalid(f"{where}: shape must be an array of sizes above zero")
    if len(shape) not in (1, 2):
        raise invalid(f"{where}: shape {shape} must have one or two dimensions")
    if "data" not in item:
        raise invalid(f"{where} needs data")
    try:
        return Tensor(name, datatype, to_array(item["data"], shape, datatype))
    except RequestError as error:
        raise invalid(f"{where}: {error.message}") from None


def _outputs(outputs: object) -> tuple[RequestedOutput, ...] | None:
    if outputs is None:
        return None
    if not isinstance(outputs, list) or not outputs:
        raise invalid("outputs must be an array of at least one object with a name")
    return tuple(_requested(position, output) for position, output in enumerate(outputs))


def _requested(position: int, output: object) -> RequestedOutput:
    if not isinstance(output, dict) or not isinstance(output.get("name"), str):
        raise invalid(f"outputs[{position}] must be an object with a name")
    return RequestedOutput(output["name"], _parameters(f"outputs[{position}].parameters", output.get("parameters")))


_NONE: Mapping[str, object] = MappingProxyType({})


def _parameters(where: str, parameters: object) -> Mapping[str, object]:
    if parameters is None:
        return _NONE
    if not isinstance(parameters, dict):
        raise invalid(f"{where} must be an object")
    return parameters


def to_matrix(inputs: Sequence[Tensor], signature: Signature) -> Array:
    """Put the tensors together into what the model's predict takes.

    Returns shape [rows, features], or [rows] for one tensor of strings when the model counts no features
    (text). Raises RequestError (400) when the tensors do not fit each other or the model, or hold values that
    are not finite.
    """
    matrix = _single(inputs[0], signature) if len(inputs) == 1 else _stacked(inputs, signature)
    if signature.features is not None and matrix.shape[1] != signature.features:
        raise invalid(f"the input has {matrix.shape[1]} features, the model takes {signature.features}")
    if matrix.dtype.kind == "f" and not np.isfinite(matrix).all():
        raise invalid("the input holds values that are not finite in its datatype")
    return matrix


def _single(tensor: Tensor, signature: Signature) -> Array:
    array = tensor.array
    if array.ndim == 2:
        return array
    if signature.features is None and array.dtype == np.object_:
        return array
    if signature.features not in (None, 1):
        raise invalid(
            f"{tensor.name} has shape [{array.shape[0]}], the model takes {signature.features} features: "
            f"one row is shape [1, {signature.features}]"
        )
    return array.reshape(-1, 1)


def _stacked(inputs: Sequence[Tensor], signature: Signature) -> Array:
    columns: dict[str, Array] = {}
    rows = inputs[0].array.shape[0]
    for tensor in inputs:
        shape = tensor.array.shape
        if len(shape) == 2 and shape[1] != 1:
            raise invalid(f"{tensor.name} has shape {list(shape)}: each of several tensors is a column, [{rows}, 1]")
        if shape[0] != rows:
            raise invalid(f"{tensor.name} has {shape[0]} rows, {inputs[0].name} has {rows}")
        if tensor.name in columns:
            raise invalid(f"{tensor.name} is given twice")
        columns[tensor.name] = tensor.array.reshape(-1)
    if signature.names is not None:
        columns = _in_order(columns, signature.names)
    return np.column_stack(list(columns.values()))


def _in_order(columns: dict[str, Array], names: tuple[str, ...]) -> dict[str, Array]:
    missing = [name for name in names if name not in columns]
    if missing:
        raise invalid(f"the model's features {_listed(missing)} are not among the inputs")
    unknown = sorted(columns.keys() - set(names))
    if unknown:
        raise invalid(f"the inputs {_listed(unknown)} are not features of the model")
    return {name: columns[name] for name in names}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
