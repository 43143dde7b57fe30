"""The gRPC messages: in step with their definition, and with the protocol's public one."""

import runpy
from pathlib import Path

import tritonclient.grpc as triton
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict

from serin_server.grpc_service.messages import open_inference_grpc_pb2 as ours

ROOT = Path(__file__).parents[2]
GENERATOR = runpy.run_path(str(ROOT / "model-server" / "proto" / "generate.py"))


def test_the_messages_are_what_the_definitions_say() -> None:
    for path, text in GENERATOR["generated"]().items():
        assert path.read_text() == text, f"{path.name} is out of step: run `make generate`"


def test_the_numbers_on_the_wire_are_those_of_a_client_that_others_wrote() -> None:
    theirs = triton.service_pb2
    for name, message in ours.DESCRIPTOR.message_types_by_name.items():
        _check_fields(message, getattr(theirs, name).DESCRIPTOR)
    calls = theirs.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for call in ours.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        assert calls[call.name].input_type.full_name == call.input_type.full_name


def _check_fields(own: Descriptor, other: Descriptor) -> None:
    for field in own.fields:
        found = other.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (found.number, found.type, found.is_repeated), (
            field.full_name
        )
    for nested in own.nested_types:
        _check_fields(nested, other.nested_types_by_name[nested.name])


def test_a_request_of_theirs_is_one_of_ours() -> None:
    theirs = triton.service_pb2
    request = theirs.ModelInferRequest(model_name="m", id="7", raw_input_contents=[b"12345678"])
    request.inputs.add(name="x", datatype="FP64", shape=[1, 1])
    request.parameters["priority"].int64_param = 3
    assert MessageToDict(ours.ModelInferRequest.FromString(request.SerializeToString())) == MessageToDict(request)
