"""Tensors from the protocol's messages, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from serin_server.grpc_service.messages.open_inference_grpc_pb2 import InferParameter as ParameterMessage
from serin_server.grpc_service.messages.open_inference_grpc_pb2 import ModelInferRequest, ModelInferResponse
from serin_server.protocol.binary import read_tensor, write_tensor
from serin_server.protocol.datatypes import DATATYPES, Array, to_array
from serin_server.protocol.errors import RequestError, invalid
from serin_server.protocol.requests import MOST_DIMENSIONS
from serin_server.protocol.tensors import InferRequest, InferResponse, RequestedOutput, Tensor

# More than a model has. Empty ones are two bytes each: a message could have millions.
_MOST_OUTPUTS = 100
# The field of a datatype's values; FP16 has none.
_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def from_message(message: ModelInferRequest) -> InferRequest:
    """Decode a request. Raises RequestError (400)."""
    if not message.inputs:
        raise invalid("inputs must have at least one tensor")
    if len(message.outputs) > _MOST_OUTPUTS:
        raise invalid(f"a request takes at most {_MOST_OUTPUTS} outputs, this one has {len(message.outputs)}")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise invalid(f"there are {len(raw)} raw_input_contents for {len(message.inputs)} inputs")
    return InferRequest(
        id=message.id or None,
        parameters=_parameters(message.parameters),
        inputs=[_input(message, position) for position in range(len(message.inputs))],
        outputs=[RequestedOutput(output.name, _parameters(output.parameters)) for output in message.outputs] or None,
    )


def _input(message: ModelInferRequest, position: int) -> Tensor:
    tensor = message.inputs[position]
    name, datatype, shape = tensor.name, tensor.datatype, list(tensor.shape)
    try:
        if not name:
            raise invalid("it needs a name")
        if datatype not in DATATYPES:
            raise invalid(f"datatype must be one of {', '.join(DATATYPES)}")
        if not 0 < len(shape) <= MOST_DIMENSIONS or min(shape) < 1:
            raise invalid(f"shape {shape} must have 1 to {MOST_DIMENSIONS} sizes above zero")
        if not message.raw_input_contents:
            return Tensor(name, datatype, _typed(tensor, shape))
        if tensor.HasField("contents"):
            raise invalid("it has contents, though the request has raw_input_contents")
        return Tensor(name, datatype, read_tensor(message.raw_input_contents[position], shape, datatype))
    except RequestError as error:
        raise invalid(f"inputs[{position}] ({name}): {error.message}") from None


def _typed(tensor: ModelInferRequest.InferInputTensor, shape: list[int]) -> Array:
    field = _FIELDS.get(tensor.datatype)
    if field is None:
        raise invalid(f"{tensor.datatype} has no typed contents: use raw_input_contents")
    for other, values in tensor.contents.ListFields():
        if other.name != field:
            raise invalid(f"its {len(values)} values are in {other.name}, {tensor.datatype} has them in {field}")
    values = getattr(tensor.contents, field)
    return to_array(list(map(_text, values)) if tensor.datatype == "BYTES" else list(values), shape, tensor.datatype)


def _text(element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise invalid("an element of bytes_contents is not UTF-8: send such bytes as raw_input_contents") from None


def _parameters(messages: Mapping[str, ParameterMessage]) -> dict[str, object]:
    return {name: _parameter(message) for name, message in messages.items()} if messages else {}


def _parameter(message: ParameterMessage) -> object:
    choice = message.WhichOneof("parameter_choice")
    return None if choice is None else getattr(message, choice)


def to_message(response: InferResponse, raw: bool) -> ModelInferResponse:
    """Encode an answer; `raw` puts the values into raw_output_contents, as FP16 always are."""
    message = ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id or ""
    )
    raw = raw or any(tensor.datatype not in _FIELDS for tensor in response.outputs)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if raw:
            message.raw_output_contents.append(write_tensor(tensor.array, tensor.datatype))
        else:
            getattr(output.contents, _FIELDS[tensor.datatype]).extend(_values(tensor))
    return message


def _values(tensor: Tensor) -> Sequence[Any]:
    values: list[Any] = tensor.array.ravel().tolist()
    if tensor.datatype != "BYTES":
        return values
    return [value if isinstance(value, bytes) else str(value).encode() for value in values]
