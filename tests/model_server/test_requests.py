"""Decoding and encoding of the protocol, without a server."""

import contextlib
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_server.protocol.binary import write_tensor
from serin_server.protocol.datatypes import DATATYPES, to_array, to_data
from serin_server.protocol.errors import RequestError
from serin_server.protocol.feedback import MAX_LABELS, parse_feedback
from serin_server.protocol.requests import Signature, binary_outputs, parse_request, to_rows

ANY = Signature(features=None, names=None)


def tensor(data: Any, shape: Any, datatype: Any = "FP64", name: Any = "x") -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def matrix(*tensors: dict[str, Any], signature: Signature = ANY) -> Any:
    return to_rows(parse_request(json.dumps({"inputs": tensors}).encode()).inputs, signature)


def test_nested_and_flat_data_are_the_same_rows() -> None:
    nested = matrix(tensor([[1, 2, 3], [4, 5, 6]], [2, 3]))
    flat = matrix(tensor([1, 2, 3, 4, 5, 6], [2, 3]))
    assert nested.tolist() == flat.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert nested.dtype == flat.dtype == np.float64


@pytest.mark.parametrize(
    ("datatype", "values", "dtype"),
    [
        ("BOOL", [True, False], np.bool_),
        ("UINT8", [0, 255], np.uint8),
        ("UINT64", [0, 2**64 - 1], np.uint64),
        ("INT8", [-128, 127], np.int8),
        ("INT64", [-(2**63), 2**63 - 1], np.int64),
        ("FP16", [0.5, 2], np.float16),
        ("FP32", [0.5, 2], np.float32),
        ("FP64", [1e300, 2], np.float64),
        ("BYTES", ["a", "ü"], np.object_),
    ],
)
def test_each_datatype_keeps_its_values(datatype: str, values: list[Any], dtype: type) -> None:
    array = matrix(tensor(values, [1, 2], datatype))
    assert array.dtype == dtype
    assert array.tolist() == [values]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (tensor([1, 2, 3], [2, 2]), "data has 3 values, shape [2, 2] needs 4"),
        (tensor([[1, 2], [3]], [2, 2]), "row 1 of data"),
        (tensor([[1, 2], 3], [2, 2]), "row 1 of data"),
        (tensor([[1, 2]], [2, 2]), "data has 1 rows"),
        (tensor([[1], [2]], [2]), "data is nested"),
        (tensor([[[1]]], [1, 1]), "must be numbers, value 0 is an array"),
        (tensor([1, "2"], [2]), "must be numbers, value 1 is a string"),
        (tensor([1, None], [2], "INT64"), "must be integers, value 1 is null"),
        (tensor([1, None], [2]), "missing values (null or NaN), which this model does not take"),
        (tensor([None], [1], "BYTES"), "missing values"),
        (tensor([1, True], [2]), "must be numbers, value 1 is a boolean"),
        (tensor([1, 2.5], [2], "INT64"), "must be integers, value 1 is a fraction"),
        (tensor([0, 1], [2], "BOOL"), "must be true or false, value 0 is an integer"),
        (tensor(["a", 1], [2], "BYTES"), "must be strings, value 1 is an integer"),
        (tensor([256], [1], "UINT8"), "outside the range of UINT8"),
        (tensor([-1], [1], "UINT64"), "outside the range of UINT64"),
        (tensor(5, [1]), "data must be an array, not an integer"),
        (tensor({"a": 1}, [1]), "data must be an array, not an object"),
        (tensor([1], [1], "FLOAT"), "datatype must be one of BOOL"),
        (tensor([1], [1], None), "datatype must be one of BOOL"),
        (tensor([1], [1] * 9), "1 to 8 dimensions"),
        (tensor([1], []), "1 to 8 dimensions"),
        (tensor([], [0, 4]), "sizes above zero"),
        (tensor([1], [-1]), "sizes above zero"),
        (tensor([1], [True]), "sizes above zero"),
        (tensor([1], "1"), "sizes above zero"),
        (tensor([1], [1], name=3), "inputs[0] needs a name"),
        ({"name": "x", "shape": [1], "datatype": "FP64"}, "inputs[0] (x): it needs data"),
    ],
)
def test_a_bad_tensor_is_refused_and_the_message_says_why(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        matrix(bad)
    assert refusal.value.status == 400
    assert message in refusal.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[NaN]}]}', "not valid JSON"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[1e999]}]}', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "inputs must be an array"),
        (b'{"inputs": []}', "inputs must be an array"),
        (b'{"inputs": [1]}', "inputs[0] must be an object"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[1]}], "id": 7}', "id must be a string"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[1]}], "outputs": []}', "outputs must be"),
        (b'{"inputs": [{"name":"x","shape":[1],"datatype":"FP64","data":[1]}], "outputs": ["a"]}', "outputs[0]"),
    ],
)
def test_a_bad_envelope_is_refused_and_the_message_says_why(body: bytes, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_request(body)
    assert refusal.value.status == 400
    assert message in refusal.value.message


def test_named_columns_are_put_in_the_order_of_the_models_features() -> None:
    signature = Signature(features=3, names=("a", "b", "c"))
    stacked = matrix(
        tensor([3, 30], [2], name="c"),
        tensor([[1], [10]], [2, 1], "INT64", name="a"),
        tensor([2, 20], [2], "FP32", name="b"),
        signature=signature,
    )
    assert stacked.tolist() == [[1, 2, 3], [10, 20, 30]]


def test_columns_keep_the_order_sent_when_the_model_has_no_names() -> None:
    stacked = matrix(tensor([1], [1], name="z"), tensor([2], [1], name="a"), signature=Signature(2, None))
    assert stacked.tolist() == [[1, 2]]


def test_strings_and_numbers_together_stay_what_they_are() -> None:
    stacked = matrix(tensor([1.5], [1], name="n"), tensor(["red"], [1], "BYTES", name="colour"))
    assert stacked.tolist() == [[1.5, "red"]]


def test_one_vector_of_strings_is_a_text_models_input() -> None:
    assert matrix(tensor(["a", "b"], [2], "BYTES")).shape == (2,)


def test_one_vector_is_a_column_for_a_model_of_one_feature() -> None:
    assert matrix(tensor([1, 2], [2]), signature=Signature(1, None)).tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("tensors", "signature", "message"),
    [
        ([tensor([1, 2], [1, 2])], Signature(3, None), "has 2 features, the model takes 3"),
        ([tensor([1, 2, 3], [3])], Signature(3, None), "one row is shape [1, 3]"),
        ([tensor([1], [1], name="a")] * 2, ANY, "a is given twice"),
        ([tensor([1], [1]), tensor([1, 2], [2], name="y")], ANY, "y has 2 rows, x has 1"),
        ([tensor([1], [1]), tensor([1, 2], [1, 2], name="y")], ANY, "each of several tensors is a column"),
        (
            [tensor([1], [1], name="a"), tensor([1], [1], name="d")],
            Signature(2, ("a", "b")),
            "the model's features b are not",
        ),
        (
            [tensor([1], [1], name=name) for name in "abc"],
            Signature(2, ("a", "b")),
            "the inputs c are not features",
        ),
        ([tensor([1e39], [1, 1], "FP32")], ANY, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused(
    tensors: list[dict[str, Any]], signature: Signature, message: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        matrix(*tensors, signature=signature)
    assert refusal.value.status == 400
    assert message in refusal.value.message


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "FP16": st.floats(allow_nan=False, allow_infinity=False, width=16),
    "FP32": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BYTES": st.text(st.characters(codec="utf-8")),
    **{f"UINT{bits}": st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}


@given(st.data())
def test_what_is_encoded_decodes_to_the_same_array(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(DATATYPES)))
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    values = data.draw(st.lists(VALUES[datatype], min_size=rows * columns, max_size=rows * columns))
    array = np.array(values, dtype=DATATYPES[datatype].dtype).reshape(rows, columns)
    encoded = to_data(array, datatype)
    flat = encoded.tolist() if isinstance(encoded, np.ndarray) else encoded
    body = json.dumps({"inputs": [tensor(flat, [rows, columns], datatype)]}).encode()
    (decoded,) = parse_request(body).inputs
    assert decoded.array.dtype == array.dtype
    assert decoded.array.tolist() == array.tolist()


def binary(*inputs: dict[str, Any], data: bytes = b"", **fields: Any) -> Any:
    """The request of these inputs, with binary data after the JSON."""
    head = json.dumps({"inputs": inputs, **fields}).encode()
    return parse_request(head + data, len(head))


def raw(size: Any, shape: list[int], datatype: str = "FP64", **fields: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "shape": shape,
        "datatype": datatype,
        "parameters": {"binary_data_size": size},
        **fields,
    }


@given(st.data())
def test_binary_data_are_the_same_array_again(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(DATATYPES)))
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    count = math.prod(shape)
    values = data.draw(st.lists(VALUES[datatype], min_size=count, max_size=count))
    array = np.array(values, dtype=DATATYPES[datatype].dtype).reshape(shape)
    encoded = write_tensor(array, datatype)
    request = binary(raw(len(encoded), shape, datatype), tensor([1], [1], name="y"), data=encoded)
    assert [one.name for one in request.inputs] == ["x", "y"]
    decoded = request.inputs[0].array
    assert (decoded.dtype, decoded.tolist()) == (array.dtype, array.tolist())
    assert decoded.flags.writeable and decoded.flags.aligned


def test_binary_strings_that_are_not_utf_8_stay_bytes() -> None:
    array = binary(raw(11, [2], "BYTES"), data=b"\2\0\0\0\xff\xfe\1\0\0\0a").inputs[0].array
    assert array.tolist() == [b"\xff\xfe", "a"]
    assert write_tensor(array, "BYTES") == b"\2\0\0\0\xff\xfe\1\0\0\0a"


@pytest.mark.parametrize(
    ("inputs", "data", "message"),
    [
        ([raw(8, [2])], bytes(8), "its binary data has 8 bytes, FP64 of shape [2] needs 16"),
        ([raw(16, [2])], bytes(8), "its binary_data_size is 16, 8 bytes are left"),
        ([raw(8, [1])], bytes(9), "1 bytes of binary data belong to no input"),
        ([tensor([1], [1])], bytes(8), "8 bytes of binary data belong to no input"),
        ([raw(8, [1]), raw(8, [1])], bytes(15), "inputs[1] (x): its binary_data_size is 8, 7 bytes are left"),
        ([raw("8", [1])], bytes(8), "binary_data_size must be a number of bytes"),
        ([raw(-8, [1])], bytes(8), "binary_data_size must be a number of bytes"),
        ([raw(True, [1], "BOOL")], bytes(1), "binary_data_size must be a number of bytes"),
        ([raw(8, [1], data=[1])], bytes(8), "it has both data and binary_data_size"),
        ([raw(2, [2], "BOOL")], b"\1\2", "neither 0 nor 1"),
        ([raw(5, [2], "BYTES")], b"\1\0\0\0a", "has 1 elements, shape [2] needs 2"),
        ([raw(5, [1], "BYTES")], b"\2\0\0\0a", "element 0 of its binary data ends after the data"),
        ([raw(7, [2], "BYTES")], b"\1\0\0\0a\0\0", "element 1 of its binary data ends after the data"),
        ([raw(5, [1], "BYTES")], b"\xff\xff\xff\xffa", "element 0 of its binary data ends after the data"),
    ],
)
def test_binary_data_that_are_not_the_tensors_are_refused(
    inputs: list[dict[str, Any]], data: bytes, message: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        binary(*inputs, data=data)
    assert refusal.value.status == 400
    assert message in refusal.value.message


def test_binary_data_need_the_length_of_the_json() -> None:
    body = json.dumps({"inputs": [raw(8, [1])]}).encode()
    with pytest.raises(RequestError, match="needs the request header Inference-Header-Content-Length"):
        parse_request(body + bytes(8).replace(b"\0", b" "))
    with pytest.raises(RequestError, match="Inference-Header-Content-Length is 99999, the body has"):
        parse_request(body, 99_999)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, set()),
        ({"parameters": {"binary_data_output": True}}, {"a", "b"}),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]}, {"a"}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}],
            },
            {"b"},
        ),
    ],
)
def test_outputs_are_binary_where_the_client_says_so(fields: dict[str, Any], expected: set[str]) -> None:
    request = binary(tensor([1], [1]), **fields)
    assert set(binary_outputs(request, ["a", "b"])) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": []}, "parameters must be an object"),
        ({"parameters": {"binary_data_output": 1}}, "binary_data_output must be true or false"),
        ({"outputs": [{"name": "a", "parameters": {"binary_data": "yes"}}]}, "outputs[0].parameters: binary_data must"),
        ({"outputs": [{"name": "a", "parameters": {"classification": 2}}]}, "classification is not supported"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared_memory_region is not supported"),
    ],
)
def test_parameters_that_cannot_be_followed_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        binary(tensor([1], [1]), **fields)


def test_whole_numbers_are_integers_however_they_are_written() -> None:
    """As in JSON Schema; some clients write every number with a point."""
    rows = matrix(tensor([[1.0, 2]], [1, 2], "INT64"))
    assert (rows.dtype, rows.tolist()) == (np.int64, [[1, 2]])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_data_is_either_refused_or_an_array_of_the_shape(data: Any) -> None:
    for datatype in DATATYPES:
        with contextlib.suppress(RequestError):
            assert to_array(data, [2, 2], datatype).shape == (2, 2)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "must be an array"),
        (b"[1]", "item 0"),
        (b'[{"prediction_id": "a", "label": 1}, {"prediction_id": "b"}]', "item 1"),
        (b'[{"prediction_id": 5, "label": 1}]', "item 0"),
        (b"[" + b",".join([b'{"prediction_id":"a","label":1}'] * (MAX_LABELS + 1)) + b"]", "at most"),
    ],
)
def test_malformed_feedback_is_refused_as_a_whole(body: bytes, message: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parse_feedback(body)
    assert refusal.value.status == 400
    assert message in refusal.value.message
