"""Requests as bytes: HTTP/1.1 whole, gRPC as the message in its frame of five bytes."""

import struct

import orjson
from tritonclient.grpc import service_pb2

from bench.server.cases import Wire
from bench.server.models import Rows

MODEL = "m"
PATH = f"/v2/models/{MODEL}/infer"
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def request(wire: Wire, rows: Rows) -> bytes:
    """What asks for predictions of these rows [rows, features], in double precision."""
    if wire is Wire.GRPC:
        return grpc_frame(rows)
    tensor = {"name": "input-0", "shape": list(rows.shape), "datatype": "FP64"}
    if wire is Wire.JSON:
        body = orjson.dumps({"inputs": [tensor | {"data": rows.ravel().tolist()}]})
        return _post(body, "content-type: application/json")
    raw = rows.astype("<f8").tobytes()
    head = orjson.dumps(
        {
            "inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    )
    return _post(head + raw, f"content-type: application/octet-stream\r\ninference-header-content-length: {len(head)}")


def grpc_frame(rows: Rows) -> bytes:
    """The message of a ModelInfer call as it goes into HTTP/2 data."""
    message = service_pb2.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name="input-0", datatype="FP64", shape=rows.shape)
    message.raw_input_contents.append(rows.astype("<f8").tobytes())
    data: bytes = message.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def _post(body: bytes, fields: str) -> bytes:
    head = f"POST {PATH} HTTP/1.1\r\nhost: bench\r\n{fields}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
