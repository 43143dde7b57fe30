"""Decoding of inference requests."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from serin_server.protocol.binary import read_tensor
from serin_server.protocol.categories import Categories, check_categories
from serin_server.protocol.datatypes import DATATYPES, Array, to_array
from serin_server.protocol.errors import RequestError, invalid
from serin_server.protocol.rows import Columns, Rows
from serin_server.protocol.tensors import InferRequest, RequestedOutput, Tensor, TensorSpec

MOST_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes: the number of features and their names, each None when the model does not say.

    `inputs` are the tensors that it takes, as its metadata lists them; without them it takes a matrix of numbers, or
    the features as columns. `by_name`: columns keep their datatypes, instead of becoming one matrix.
    `allows_missing`: NaN, and null in JSON, stand for missing values. `only_numbers`: it cannot compute with strings.
    `categories`: those of its features, by name, where it tells; all its other features are numbers then.
    """

    features: int | None
    names: tuple[str, ...] | None
    inputs: tuple[TensorSpec, ...] | None = None
    by_name: bool = False
    allows_missing: bool = False
    only_numbers: bool = False
    categories: Mapping[str, Categories] | None = None


def parse_json(body: bytes) -> Any:
    """Parse a request body. Raises RequestError (400); NaN and infinities are not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise invalid(f"the body is not valid JSON: {error}") from None


def parse_request(body: bytes, header_length: int | None = None) -> InferRequest:
    """Decode the body of a V2 inference request. Raises RequestError (400).

    `header_length` are the bytes of JSON before binary tensor data, None when the body is JSON alone.
    """
    raw: _Raw | None = None
    if header_length is not None:
        if header_length > len(body):
            raise invalid(f"Inference-Header-Content-Length is {header_length}, the body has {len(body)} bytes")
        raw = _Raw(memoryview(body)[header_length:])
        body = body[:header_length]
    message = parse_json(body)
    if not isinstance(message, dict):
        raise invalid("the body must be a JSON object")
    request_id = message.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise invalid("id must be a string")
    inputs = message.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise invalid("inputs must be an array of at least one tensor")
    tensors = tuple(_tensor(position, item, raw) for position, item in enumerate(inputs))
    if raw is not None and raw.left:
        raise invalid(f"{raw.left} bytes of binary data belong to no input: binary_data_size says which do")
    return InferRequest(
        id=request_id,
        parameters=_parameters("parameters", message.get("parameters")),
        inputs=tensors,
        outputs=_outputs(message.get("outputs")),
    )


class _Raw:
    """The binary data of a body, which its tensors take in their order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data

    @property
    def left(self) -> int:
        return len(self._data)

    def take(self, size: int) -> memoryview:
        if size > len(self._data):
            raise invalid(f"its binary_data_size is {size}, {len(self._data)} bytes are left in the body")
        taken, self._data = self._data[:size], self._data[size:]
        return taken


def _tensor(position: int, item: object, raw: _Raw | None) -> Tensor:
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
    if not 0 < len(shape) <= MOST_DIMENSIONS:
        raise invalid(f"{where}: shape {shape} must have 1 to {MOST_DIMENSIONS} dimensions")
    parameters = item.get("parameters")
    size = None if parameters is None else _parameters(f"{where}: parameters", parameters).get("binary_data_size")
    try:
        if size is not None:
            return Tensor(name, datatype, _binary(item, size, shape, datatype, raw))
        if "data" not in item:
            raise invalid("it needs data")
        return Tensor(name, datatype, to_array(item["data"], shape, datatype))
    except RequestError as error:
        raise invalid(f"{where}: {error.message}") from None


def _binary(item: Mapping[str, object], size: object, shape: list[int], datatype: str, raw: _Raw | None) -> Array:
    if type(size) is not int or size < 0:
        raise invalid("binary_data_size must be a number of bytes")
    if "data" in item:
        raise invalid("it has both data and binary_data_size")
    if raw is None:
        raise invalid("binary_data_size needs the request header Inference-Header-Content-Length")
    return read_tensor(raw.take(size), shape, datatype)


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
_FLAGS = ("binary_data", "binary_data_output")
_FOREIGN = ("classification", "shared_memory_region")


def _parameters(where: str, parameters: object) -> Mapping[str, object]:
    """Parameters that this server does not know mean nothing to it, except some that would change the answer's form."""
    if parameters is None:
        return _NONE
    if not isinstance(parameters, dict):
        raise invalid(f"{where} must be an object")
    for name in _FLAGS:
        if not isinstance(parameters.get(name, False), bool):
            raise invalid(f"{where}: {name} must be true or false")
    for name in _FOREIGN:
        if name in parameters:
            raise invalid(f"{where}: {name} is not supported")
    return parameters


def binary_outputs(request: InferRequest, names: Iterable[str]) -> Collection[str]:
    """Those of the outputs that the client wants as binary data, each by itself or all of them."""
    if request.outputs is None and not request.parameters:
        return ()
    whole = request.parameters.get("binary_data_output", False)
    asked = {output.name: output.parameters.get("binary_data", whole) for output in request.outputs or ()}
    return {name for name in names if asked.get(name, whole)}


def to_rows(inputs: Sequence[Tensor], signature: Signature) -> Rows:
    """Put the tensors together into what the model computes on.

    Returns shape [rows, features]; [rows] for one tensor of strings when the model counts no features (text); more
    dimensions for a model that takes them; or columns by name. Raises RequestError (400) when the tensors do not fit
    each other or the model, or hold values that are not finite and not allowed to be missing.
    """
    rows: Rows
    if len(inputs) == 1 and not (signature.by_name and signature.features is None):
        rows = _single(inputs[0], signature)
        arrays: Iterable[Array] = (rows,)
    else:
        columns = _columns(inputs, signature)
        rows = Columns(columns) if signature.by_name else np.column_stack(list(columns.values()))
        arrays = columns.values() if signature.by_name else (rows,)  # type: ignore[assignment]
    for array in arrays:
        _check_values(array, signature)
    if signature.categories is not None and signature.by_name:
        check_categories(rows, signature.categories)
    return rows


def _check_values(array: Array, signature: Signature) -> None:
    if array.dtype.kind == "f":
        # The sum of squares is finite only if all are, and takes a third of the time; large ones may overflow it.
        if math.isfinite(np.vdot(array, array)) or np.isfinite(array).all():
            return
        if np.isinf(array).any():
            raise invalid("the input holds values that are not finite in its datatype")
    elif array.dtype != np.object_:
        return
    elif signature.only_numbers:
        raise invalid("the input holds strings, the model takes numbers")
    elif not any(_is_missing(value) for value in array.flat):
        return
    if not signature.allows_missing:
        raise invalid("the input has missing values (null or NaN), which this model does not take")


def _is_missing(value: object) -> bool:
    return value is None or value != value


def _single(tensor: Tensor, signature: Signature) -> Array:
    array, features = tensor.array, signature.features
    if array.ndim > 2 or (signature.inputs is not None and len(signature.inputs[0].shape) > 2):
        return _many_dimensions(tensor, signature)
    if array.ndim == 1:
        if features is None and array.dtype == np.object_:
            return array
        if features not in (None, 1):
            raise invalid(
                f"{tensor.name} has shape [{array.shape[0]}], the model takes {features} features: "
                f"one row is shape [1, {features}]"
            )
        array = array.reshape(-1, 1)
    if features is not None and array.shape[1] != features:
        raise invalid(f"the input has {array.shape[1]} features, the model takes {features}")
    return array


def _many_dimensions(tensor: Tensor, signature: Signature) -> Array:
    """The tensor as it is, for a model that takes such shapes or does not say what it takes."""
    shape = tensor.array.shape
    if signature.inputs is not None and len(signature.inputs) == 1:
        (taken,) = signature.inputs
        if not taken.fits(shape):
            raise invalid(f"{tensor.name} has shape {list(shape)}, the model takes {list(taken.shape)}")
    elif signature.features is not None or signature.names is not None:
        raise invalid(f"{tensor.name} has shape {list(shape)}, the model takes rows of features: one or two dimensions")
    return tensor.array


def _columns(inputs: Sequence[Tensor], signature: Signature) -> Mapping[str, Array]:
    columns: dict[str, Array] = {}
    rows = inputs[0].array.shape[0]
    for tensor in inputs:
        if tensor.array.shape[0] != rows:
            raise invalid(f"{tensor.name} has {tensor.array.shape[0]} rows, {inputs[0].name} has {rows}")
        if tensor.name in columns:
            raise invalid(f"{tensor.name} is given twice")
        columns[tensor.name] = tensor.array
    if signature.names is not None:
        columns = _in_order(columns, signature.names)
    specs = {spec.name: spec for spec in signature.inputs or ()}
    found = {name: _column(name, array, specs.get(name)) for name, array in columns.items()}
    if signature.features is not None and len(found) != signature.features:
        raise invalid(f"the input has {len(found)} features, the model takes {signature.features}")
    return found


def _column(name: str, array: Array, spec: TensorSpec | None) -> Array:
    """One value for each row; for a model that names its inputs' shapes, of that shape."""
    if spec is not None and len(spec.shape) > 1:
        array = array.reshape(-1, 1) if array.ndim == 1 else array
        if not spec.fits(array.shape):
            raise invalid(f"{name} has shape {list(array.shape)}, the model takes {list(spec.shape)}")
        return array
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 1):
        raise invalid(
            f"{name} has shape {list(array.shape)}: each of several tensors is a column, [{array.shape[0]}, 1]"
        )
    return array.reshape(-1)


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
