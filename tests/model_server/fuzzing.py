"""Makes requests that nobody would send: valid ones, changed in their values, their structure and their bytes.

An input is a function of the seed, the kind and its number, so that each can be made again by itself.
"""

import gzip
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2
from serin_server.grpc_service.messages import serin_feedback_pb2 as labels

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324),
    *("", "x", "\0", "\ud7ff", "NaN", "FP64", "BYTES", "__proto__", "é" * 50, "1" * 5000),
    *([], {}, [[]], [None], {"": {}}, [[1, 2], [3]], [[[[[]]]]], list(range(300))),
)
DATATYPES = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
ODD_NUMBERS = (
    b"0",
    b"-1",
    b"00",
    b"1e9",
    b"4294967296",
    b"18446744073709551616",
    b"9" * 400,
    b"+1",
    b"0x10",
    b" 1 ",
    b"",
)
ODD_BYTES = (
    *(
        b"\0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b":",
        b"\xff" * 8,
        b"[" * 2000,
        b'{"a":' * 500,
        b'"',
        b"\\u0000",
    ),
    *(b"\xed\xa0\x80", b"1e999", b"-", b"%00", b"\xef\xbb\xbf", b"NaN", b",", b"0" * 300),
)


@dataclass(frozen=True)
class Input:
    """One request: what goes over the wire, and whether it is framed so that an answer must come."""

    wire: bytes
    framed: bool = True


def make(kind: str, seed: int, number: int, tokens: list[str]) -> Input:
    """The input of this number. `tokens` are prediction ids that are genuine."""
    return KINDS[kind](random.Random(f"{seed}/{kind}/{number}"), tokens)


# --- mutation --------------------------------------------------------------------------------------------------


def changed_value(chance: random.Random, value: Any) -> Any:
    """The JSON value with one node of it replaced, dropped, doubled or wrapped."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = dict(value)
        kind = chance.randrange(6)
        if kind == 0:
            del rest[key]
        elif kind == 1:
            rest[str(chance.choice(ODD_VALUES))] = rest.pop(key)
        else:
            rest[key] = changed_value(chance, value[key])
        return rest
    if isinstance(value, list) and value and chance.random() < 0.9:
        index = chance.randrange(len(value))
        kind = chance.randrange(6)
        if kind == 0:
            return value[:index] + value[index + 1 :]
        if kind == 1:
            return value[: index + 1] + value[index:]
        return [*value[:index], changed_value(chance, value[index]), *value[index + 1 :]]
    return chance.choice((chance.choice(ODD_VALUES), [value], {"data": value}, str(value), chance.random() * 1e6))


def changed_bytes(chance: random.Random, data: bytes) -> bytes:
    """The bytes after a few random edits."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        start = chance.randrange(len(made) + 1)
        end = min(len(made), start + chance.choice((1, 1, 2, 4, 16, 200)))
        kind = chance.randrange(7)
        if kind == 0 and start < len(made):
            made[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            made[start:start] = chance.choice(ODD_BYTES)
        elif kind == 2:
            del made[start:end]
        elif kind == 3:
            made[start:end] = made[start:end] * 2
        elif kind == 4:
            made[start:end] = chance.choice(ODD_NUMBERS)
        elif kind == 5:
            made[start:end] = chance.randbytes(end - start)
        else:
            del made[start:]
    return bytes(made)


def _json(chance: random.Random, value: Any) -> bytes:
    """The value as text; sometimes with numbers and texts that a JSON library would not write."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    return changed_bytes(chance, text) if chance.random() < 0.3 else text


# --- requests --------------------------------------------------------------------------------------------------


def http(path: bytes, body: bytes, *headers: bytes, method: bytes = b"POST") -> bytes:
    """A request that is framed well, whatever its body is."""
    lines = [b"%s %s HTTP/1.1" % (method, path), b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


_INFER = b"/v2/models/m/infer"
_FEEDBACK = b"/v2/models/m/feedback"
_ODD_HEADERS = (
    *(b"transfer-encoding: chunked", b"content-length: 3", b"expect: 100-continue", b"connection: close", b": x"),
    *(b"connection: upgrade\r\nupgrade: h2c", b"grpc-timeout: 1n", b"x-envoy-expected-rq-timeout-ms: " + b"9" * 20),
    *(b"accept-encoding: gzip;q=x", b"traceparent: 00-" + b"0" * 60, b"content-encoding: br"),
)


def _request(chance: random.Random) -> dict[str, Any]:
    rows = chance.choice((1, 2, 5))
    datatype = chance.choice(list(DATATYPES))
    values = [
        [chance.choice((0, 1)) if datatype == "BOOL" else chance.randrange(100) for _ in range(4)] for _ in range(rows)
    ]
    data: Any = [[bool(value) for value in row] for row in values] if datatype == "BOOL" else values
    inputs = [{"name": "x", "shape": [rows, 4], "datatype": datatype, "data": data}]
    if chance.random() < 0.2:
        names = ("a", "b", "c", "d")
        inputs = [{"name": name, "shape": [rows], "datatype": "FP64", "data": [1.5] * rows} for name in names]
    request: dict[str, Any] = {"id": "1", "parameters": {"a": 1}, "inputs": inputs}
    if chance.random() < 0.6:
        wanted = ("predict", "predict_proba", "prediction_id")
        parameters = {"binary_data": chance.random() < 0.5}
        request["outputs"] = [{"name": name, "parameters": parameters} for name in chance.sample(wanted, 2)]
    return request


def _changed_request(chance: random.Random) -> dict[str, Any]:
    request = _request(chance)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        request = changed_value(chance, request)
        if not isinstance(request, dict):
            break
    return request


def infer(chance: random.Random, _tokens: list[str]) -> Input:
    """JSON tensors."""
    return Input(http(_INFER, _json(chance, _changed_request(chance))))


def binary(chance: random.Random, _tokens: list[str]) -> Input:
    """Tensors as bytes after the JSON, with sizes that may lie."""
    request = _request(chance)
    raw = b""
    for tensor in request["inputs"]:
        if chance.random() < 0.2:
            tensor["datatype"] = "BYTES"
            values = [b"word"] * 4
            part = b"".join(struct.pack("<I", len(value)) + value for value in values)
        else:
            flat = [value for row in tensor["data"] for value in (row if isinstance(row, list) else [row])]
            part = struct.pack(f"<{len(flat)}{DATATYPES[tensor['datatype']]}", *flat)
        del tensor["data"]
        if chance.random() < 0.4:
            part = changed_bytes(chance, part)
        size: Any = len(part)
        if chance.random() < 0.2:
            size = chance.choice((*ODD_VALUES, size + 1, size - 1, 2**40))
        tensor["parameters"] = {"binary_data_size": size}
        raw += part
    if chance.random() < 0.5:
        request = changed_value(chance, request)
    head = _json(chance, request)
    length = b"%d" % len(head)
    if chance.random() < 0.1:
        length = chance.choice((*ODD_NUMBERS, b"%d" % (len(head) + 1), b"%d" % (len(head) - 1)))
    return Input(http(_INFER, head + raw, b"inference-header-content-length: " + length))


def feedback(chance: random.Random, tokens: list[str]) -> Input:
    """Labels, for genuine, changed and foreign prediction ids."""
    sent: Any = []
    for _ in range(chance.choice((0, 1, 1, 3))):
        token = chance.choice(tokens)
        if chance.random() < 0.5:
            token = changed_bytes(chance, token.encode()).decode("latin-1")
        label = chance.choice((0, 1, "0", *ODD_VALUES))
        sent.append({"prediction_id": token, "label": label})
    if chance.random() < 0.5:
        sent = changed_value(chance, sent)
    return Input(http(_FEEDBACK, _json(chance, sent)))


def zipped(chance: random.Random, _tokens: list[str]) -> Input:
    """Compressed bodies: whole, broken, with more behind them, and many times as large as they look."""
    body = json.dumps(_request(chance)).encode()
    if chance.random() < 0.1:
        body = chance.choice((b" ", b"[", b'{"inputs":', b"0")) * chance.choice((10**4, 10**6, 2 * 10**7))
    data = gzip.compress(body, 1)
    if chance.random() < 0.1:
        data = gzip.compress(data)
    if chance.random() < 0.2:
        data += chance.choice((b"\0", data, b"more"))
    if chance.random() < 0.5:
        data = changed_bytes(chance, data)
    return Input(http(chance.choice((_INFER, _FEEDBACK)), data, b"content-encoding: gzip"))


def framing(chance: random.Random, _tokens: list[str]) -> Input:
    """HTTP itself: heads, lengths, chunks, several requests in a row."""
    body = json.dumps(_request(chance)).encode()
    whole = http(_INFER, body)
    kind = chance.randrange(6)
    if kind == 0:
        step = chance.choice((1, 7, len(body)))
        chunks = [body[start : start + step] for start in range(0, len(body), step)]
        parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        whole = b"POST %s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%s" % (_INFER, parts)
    elif kind == 1:
        whole = http(_INFER, body, chance.choice(_ODD_HEADERS))
    elif kind == 2:
        paths = (b"/", b"*", b"http://x/v2", b"/v2/models/m", b"/v2/models/%6d/infer", b"/%ff", b"/" + b"a" * 9000, b"")
        methods = (b"GET", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"PRI", b"post")
        whole = http(chance.choice(paths), b"", method=chance.choice(methods))
    elif kind == 3:
        whole = whole * chance.choice((2, 40))
    elif kind == 4:
        whole = http(_INFER, body, *(b"x-%d: %s" % (n, b"v" * 40) for n in range(chance.choice((5, 300, 2000)))))
    return Input(changed_bytes(chance, whole) if chance.random() < 0.8 else whole, framed=False)


KINDS: dict[str, Callable[[random.Random, list[str]], Input]] = {
    "infer": infer,
    "binary": binary,
    "feedback": feedback,
    "zipped": zipped,
    "framing": framing,
}


# --- gRPC ------------------------------------------------------------------------------------------------------


def make_message(seed: int, number: int, token: str) -> tuple[str, bytes]:
    """A method's path and the bytes of a message to it, well formed or not."""
    chance = random.Random(f"{seed}/grpc/{number}")
    if chance.random() < 0.15:
        label = labels.FeedbackRequest(model_name="m")
        label.labels.add(prediction_id=token, int64_value=1)
        return "/serin.FeedbackService/Feedback", changed_bytes(chance, label.SerializeToString())
    request = v2.ModelInferRequest(model_name="m", id="1")
    rows = chance.choice((1, 3))
    raw_contents = chance.random() < 0.6
    for name in chance.choice((["x"], ["a", "b", "c", "d"])):
        shape = [rows, 4] if name == "x" else [rows]
        datatype = chance.choice(list(DATATYPES))
        size = rows * (4 if name == "x" else 1)
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if chance.random() < 0.1:
            tensor.shape[0] = chance.choice((0, -1, 2**62, 2**31, 7))
        if raw_contents:
            raw = struct.pack(f"<{size}{DATATYPES[datatype]}", *([1] * size))
            request.raw_input_contents.append(changed_bytes(chance, raw) if chance.random() < 0.3 else raw)
        else:
            tensor.contents.fp64_contents.extend([1.5] * size)
            tensor.contents.bool_contents.extend([True] * chance.choice((0, size)))
            tensor.contents.int64_contents.extend([2**40] * chance.choice((0, 0, size)))
    for name in chance.sample(("predict", "predict_proba", "prediction_id"), chance.choice((0, 0, 1, 2))):
        request.outputs.add(name=name)
    data = request.SerializeToString()
    return "/inference.GRPCInferenceService/ModelInfer", changed_bytes(chance, data) if chance.random() < 0.5 else data
