"""Tensor datatypes: V2 names, numpy dtypes, and JSON values that may stand for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from serin_server.protocol.errors import invalid

Array = NDArray[Any]


@dataclass(frozen=True)
class Datatype:
    """`types` are the Python types that JSON values of this datatype have, `expected` says so to a user.

    None is among them where it can stand for a missing value: NaN among floats, itself among strings.
    """

    dtype: DTypeLike
    types: frozenset[type]
    expected: str


_INTEGER: tuple[frozenset[type], str] = (frozenset({int}), "integers")
_FLOAT: tuple[frozenset[type], str] = (frozenset({int, float, type(None)}), "numbers")

DATATYPES = {
    "BOOL": Datatype(np.bool_, frozenset({bool}), "true or false"),
    "UINT8": Datatype(np.uint8, *_INTEGER),
    "UINT16": Datatype(np.uint16, *_INTEGER),
    "UINT32": Datatype(np.uint32, *_INTEGER),
    "UINT64": Datatype(np.uint64, *_INTEGER),
    "INT8": Datatype(np.int8, *_INTEGER),
    "INT16": Datatype(np.int16, *_INTEGER),
    "INT32": Datatype(np.int32, *_INTEGER),
    "INT64": Datatype(np.int64, *_INTEGER),
    "FP16": Datatype(np.float16, *_FLOAT),
    "FP32": Datatype(np.float32, *_FLOAT),
    "FP64": Datatype(np.float64, *_FLOAT),
    "BYTES": Datatype(np.object_, frozenset({str, type(None)}), "strings"),
}

# Floats that do not hold all numbers that JSON has.
_NARROW = ("FP16", "FP32")
_NAMES = {np.dtype(datatype.dtype): name for name, datatype in DATATYPES.items()}


def to_array(data: object, shape: Sequence[int], name: str) -> Array:
    """Turn JSON `data`, row-major and nested or flat, into an array of `shape`.

    BYTES become an object array of str. null is NaN, or None among BYTES.

    Raises RequestError (400) when data, shape and datatype disagree.
    """
    datatype = DATATYPES[name]
    values = _flatten(data, shape)
    if len(values) != prod(shape):
        raise invalid(f"data has {len(values)} values, shape {list(shape)} needs {prod(shape)}")
    # Checked before numpy sees them: numpy would turn "1" and None into floats and true into 1 without a
    # word.
    if not datatype.types.issuperset(map(type, values)):
        values = _checked(values, name, datatype)
    try:
        if name in _NARROW:
            with np.errstate(over="ignore"):  # a number too large becomes infinite, and is refused as such
                return np.array(values, dtype=datatype.dtype).reshape(shape)
        return _array(values, datatype.dtype).reshape(shape)
    except OverflowError:
        raise invalid(f"data holds an integer outside the range of {name}") from None


def _checked(values: list[Any], name: str, datatype: Datatype) -> list[Any]:
    """The values with 3.0 as 3 where integers are expected: JSON knows one kind of number, and so do some clients."""
    if int in datatype.types:
        values = [int(value) if type(value) is float and value.is_integer() else value for value in values]
    for position, value in enumerate(values):
        if type(value) not in datatype.types:
            raise invalid(f"{name} data must be {datatype.expected}, value {position} is {_kind(value)}")
    return values


def _array(values: list[Any], dtype: DTypeLike) -> Array:
    if dtype == np.float64:
        try:
            return np.fromiter(values, np.float64, len(values))  # several times as fast
        except TypeError:
            pass  # null is among them
    return np.array(values, dtype=dtype)


def _flatten(data: object, shape: Sequence[int]) -> list[Any]:
    if not isinstance(data, list):
        raise invalid(f"data must be an array, not {_kind(data)}")
    if not data or not isinstance(data[0], list):
        return data
    if len(shape) == 1:
        raise invalid(f"data is nested, shape {list(shape)} is not")
    if len(data) != shape[0]:
        raise invalid(f"data has {len(data)} rows, shape {list(shape)} needs {shape[0]}")
    for size in shape[1:]:
        for position, row in enumerate(data):
            if not isinstance(row, list) or len(row) != size:
                raise invalid(f"row {position} of data is not an array of {size} values as shape {list(shape)} needs")
        data = list(chain.from_iterable(data))
    return data


_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a fraction",
    type(None): "null",
}


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def datatype_name(array: Array) -> str:
    """The V2 name for the array's elements: BYTES for what is neither boolean nor a number."""
    return _NAMES.get(array.dtype, "BYTES")


def to_data(array: Array, name: str) -> list[Any] | Array:
    """The values of an array of V2 datatype `name`, flat and row-major, fit for the JSON encoder.

    Anything that is neither boolean nor a number becomes BYTES, by str().
    """
    flat = array.ravel()
    if name == "BYTES":
        return [value if type(value) is str else str(value) for value in flat.tolist()]
    return flat.tolist() if flat.size <= _SMALL else flat


# Below this many values a list is encoded faster than an array.
_SMALL = 16
