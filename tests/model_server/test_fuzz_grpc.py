"""Any bytes as a gRPC request: refused, or decoded into tensors of the shape they claim."""

from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2
from serin_server.grpc_service.tensors import from_message
from serin_server.protocol.datatypes import DATATYPES
from serin_server.protocol.errors import RequestError

SIZES = st.one_of(st.integers(-2, 4), st.sampled_from([2**31, 2**62, -(2**63)]))
FIELDS = [field.name for field in v2.InferTensorContents.DESCRIPTOR.fields]


@st.composite
def tensors(draw: Any) -> v2.ModelInferRequest.InferInputTensor:
    tensor = v2.ModelInferRequest.InferInputTensor(name=draw(st.text(max_size=3)))
    tensor.datatype = draw(st.sampled_from([*DATATYPES, "BF16", ""]))
    tensor.shape.extend(draw(st.lists(SIZES, max_size=3)))
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=2)):
        value: Any = draw(st.binary(max_size=3)) if field == "bytes_contents" else draw(st.integers(0, 1))
        getattr(tensor.contents, field).extend([value] * draw(st.integers(0, 6)))
    return tensor


@st.composite
def requests(draw: Any) -> bytes:
    request = v2.ModelInferRequest(model_name="m", inputs=draw(st.lists(tensors(), max_size=3)))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    request.outputs.extend([v2.ModelInferRequest.InferRequestedOutputTensor()] * draw(st.sampled_from([0, 1, 200])))
    body = bytearray(request.SerializeToString())
    for _ in range(draw(st.integers(0, 2))):  # spoil a byte
        if body:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@given(st.one_of(requests(), st.binary(max_size=60)))
@example(v2.ModelInferRequest().SerializeToString())
def test_any_bytes_are_refused_or_decoded(body: bytes) -> None:
    try:
        request = from_message(v2.ModelInferRequest.FromString(body))
    except (DecodeError, RequestError):
        return
    for tensor in request.inputs:
        assert tensor.array.size > 0
        assert tensor.array.dtype == DATATYPES[tensor.datatype].dtype
