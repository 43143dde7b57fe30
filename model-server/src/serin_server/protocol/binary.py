"""Tensors as raw bytes: little-endian and row-major, BYTES with 4 bytes of length before each element.

The binary tensor data extension has them after a message's JSON, gRPC in its raw contents.
"""

import struct
from collections.abc import Sequence
from math import prod

import numpy as np

from serin_server.protocol.datatypes import DATATYPES, Array
from serin_server.protocol.errors import invalid

_LENGTH = struct.Struct("<I")


def read_tensor(data: memoryview | bytes, shape: Sequence[int], name: str) -> Array:
    """The array of `shape` and V2 datatype `name` that the bytes are. Raises RequestError (400) for any others."""
    if name == "BYTES":
        return _read_bytes(bytes(data), shape)
    dtype = np.dtype(DATATYPES[name].dtype).newbyteorder("<")
    needed = prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise invalid(f"its binary data has {len(data)} bytes, {name} of shape {list(shape)} needs {needed}")
    if name == "BOOL" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise invalid("its binary data holds bytes that are neither 0 nor 1, BOOL needs one of them")
    # A view would be read-only and not aligned, which not every model takes.
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _read_bytes(data: bytes, shape: Sequence[int]) -> Array:
    elements: list[str | bytes] = []
    place, end = 0, len(data)
    while place < end:
        start = place + _LENGTH.size
        place = start + _LENGTH.unpack_from(data, place)[0] if start <= end else end + 1
        if place > end:
            raise invalid(f"element {len(elements)} of its binary data ends after the data itself")
        elements.append(_text(data[start:place]))
    if len(elements) != prod(shape):
        raise invalid(f"its binary data has {len(elements)} elements, shape {list(shape)} needs {prod(shape)}")
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array.reshape(shape)


def _text(element: bytes) -> str | bytes:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element


def write_tensor(array: Array, name: str) -> bytes:
    """The bytes of an array of V2 datatype `name`. What is neither boolean nor a number is written by str()."""
    if name != "BYTES":
        return np.ascontiguousarray(array, np.dtype(DATATYPES[name].dtype).newbyteorder("<")).tobytes()
    pieces: list[bytes] = []
    for value in array.ravel().tolist():
        element = value if isinstance(value, bytes) else str(value).encode()
        pieces += (_LENGTH.pack(len(element)), element)
    return b"".join(pieces)
