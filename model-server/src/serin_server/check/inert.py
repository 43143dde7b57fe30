"""Reads a joblib file or pickle with inert stand-ins for all that it names.

A pickle is a program for a machine whose one dangerous instruction is to fetch a function or class by name. Here, that
gives a class that does nothing but remember what it was called with. joblib puts the bytes of arrays between the
instructions, so that a plain list of them (pickletools) ends at the first array; this reader steps over them.
"""

import bz2
import io
import lzma
import pickle
import re
from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

import numpy as np
from joblib.compressor import BinaryGzipFile, BinaryZlibFile

from serin_server.failures import FatalError, Reason

# An array, a text or bytes of more than this are stepped over, not kept.
_KEPT_BYTES = 1024 * 1024
# Of a frame, which must be kept. Python writes frames of 64 KiB.
_MOST_FRAME_BYTES = 64 * 1024 * 1024
# In all, after decompression: a small file can hold a large one.
MOST_BYTES = 8 * 1024**3
_CHUNK = 1024 * 1024
_PLAIN_DTYPE = re.compile(r"[<>=|]?([?biufcSUV])(\d{0,9})|[<>=|]?O\d?")
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_HAS_OBJECTS = 1  # of a dtype's flags
_COMPRESSIONS: tuple[tuple[bytes, Callable[[io.BytesIO], Any]], ...] = (
    (b"\x1f\x8b", lambda file: BinaryGzipFile(file, "rb")),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ", lzma.LZMAFile),
    (b"\x5d\x00", lzma.LZMAFile),
    (b"x", lambda file: BinaryZlibFile(file, "rb")),
)


class Inert:
    """An object that the file would make: which class or function, called with what, and its state."""

    path: ClassVar[str] = ""

    def __new__(cls, *arguments: Any, **_named: Any) -> "Inert":
        made = super().__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    arguments: tuple[Any, ...]
    state: Any

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, _item: Any) -> None:
        """Part of a list subclass; its items say nothing about a model."""

    def extend(self, _items: Any) -> None:
        """The same."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def attribute(self, name: str) -> Any:
        """A value from the object's state, None when there is none."""
        return self.state.get(name) if isinstance(self.state, dict) else None


class Reading:
    """What is in a file: its root object, and the names of all that it would fetch.

    `indirect` are those names that lead through an object: what `a.b` is in a module is anybody's guess.
    """

    def __init__(self, data: bytes) -> None:
        self.names: set[str] = set()
        self.indirect: set[str] = set()
        self.sklearn_versions: set[str] = set()
        try:
            self.root = _Reader(_decompressed(data), self).load()
        except FatalError:
            raise
        except Exception as error:
            # Foreign bytes meet the reader with exceptions of any kind.
            raise FatalError(
                Reason.NOT_A_MODEL, f"the file is not one that joblib can load ({type(error).__name__}: {error})"
            ) from error


class _Counted:
    """A file that ends the reading when more comes out of it than anybody's model."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = MOST_BYTES

    def _count(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise FatalError(Reason.TOO_LARGE, f"the file holds more than {MOST_BYTES} bytes when decompressed")
        return data

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none of them when they are too many to be kept."""
        if size > _KEPT_BYTES:
            self.skip(size)
            return b""
        return self.read_all(size)

    def read_all(self, size: int) -> bytes:
        parts = []
        while size > 0:  # in pieces: a damaged file may ask for any size
            part = self._file.read(min(size, _CHUNK))
            if not part:
                break
            parts.append(self._count(part))
            size -= len(part)
        return b"".join(parts)

    def readline(self) -> bytes:
        return self._count(self._file.readline())

    def skip(self, size: int) -> None:
        while size > 0:
            part = self._count(self._file.read(min(size, _CHUNK)))
            if not part:
                raise EOFError("the file ends within an array")
            size -= len(part)


def _decompressed(data: bytes) -> _Counted:
    for prefix, opened in _COMPRESSIONS:
        if data.startswith(prefix):
            return _Counted(opened(io.BytesIO(data)))
    if data.startswith(b"\x04\x22\x4d\x18"):
        raise FatalError(Reason.NOT_A_MODEL, "the file is compressed by lz4, which this image does not read")
    return _Counted(io.BytesIO(data))


class _Reader(pickle._Unpickler):  # the one in Python: its instructions can be replaced, C's cannot
    stack: list[Any]
    read: Any  # of what is unframed
    _unframer: Any
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: _Counted, reading: Reading) -> None:
        super().__init__(file)
        self._counted = file
        self._reading = reading
        self._made: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        self._reading.names.add(path)
        if "." in name:
            self._reading.indirect.add(path)
        if path not in self._made:
            self._made[path] = type(re.sub(r"\W", "_", name) or "_", (Inert,), {"path": path})
        return self._made[path]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension {code} is not one that a model needs")

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Inert):
            raise pickle.UnpicklingError("a state for what has none")
        if isinstance(state, tuple) and len(state) == 2 and state[0] is None and isinstance(state[1], dict):
            state = state[1]  # attributes in slots
        if target.path == _WRAPPER and (target.state is not None or target.arguments):
            # joblib would read with what is left of the earlier values, and so not what is read here.
            raise pickle.UnpicklingError("an array that is described twice")
        target.state = state
        version = target.attribute("_sklearn_version")
        if isinstance(version, str):
            self._reading.sklearn_versions.add(version)
        if target.path == _WRAPPER:
            self.stack[-1] = self._array(target)

    dispatch[pickle.BUILD[0]] = load_build

    def load_frame(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        if size > _MOST_FRAME_BYTES:
            raise pickle.UnpicklingError("a frame that is larger than any")
        self._unframer.current_frame = io.BytesIO(self._counted.read_all(size))

    dispatch[pickle.FRAME[0]] = load_frame

    def _array(self, wrapper: Inert) -> Any:
        """What follows joblib's wrapper: the array's bytes, or a pickle of its objects."""
        shape, dtype = wrapper.attribute("shape"), wrapper.attribute("dtype")
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError("an array without a shape")
        code = _dtype_code(dtype)
        if code is None:
            raise pickle.UnpicklingError("an array of an unknown datatype")
        if code.lstrip("<>=|").startswith("O"):
            return _Reader(self._counted, self._reading).load()
        if wrapper.attribute("numpy_array_alignment_bytes") is not None:
            (padding,) = self._counted.read(1)
            self._counted.skip(padding)
        kind = np.dtype(code)
        size = prod(shape) * kind.itemsize
        if size > _KEPT_BYTES or kind.kind == "V":
            self._counted.skip(size)
            return None
        data = self._counted.read(size)
        if len(data) != size:
            raise EOFError("the file ends within an array")
        return np.frombuffer(data, kind).reshape(shape, order="F" if wrapper.attribute("order") == "F" else "C")


def values_of(array: Any) -> list[Any] | None:
    """The elements of an array of one dimension, as joblib or numpy's own pickling writes it; None if it is another."""
    if isinstance(array, np.ndarray):
        return _scalars(array.tolist()) if array.ndim == 1 else None
    if not isinstance(array, Inert):
        return None
    if isinstance(array.state, tuple) and len(array.state) == 5:  # numpy's _reconstruct
        _, shape, dtype, _, data = array.state
        return _scalars(_elements(shape, dtype, data))
    if array.path.endswith("._frombuffer") and len(array.arguments) == 4:
        data, dtype, shape, _ = array.arguments
        return _scalars(_elements(shape, dtype, data))
    return None


def _scalars(values: list[Any] | None) -> list[Any] | None:
    """The values if all are texts and numbers of ordinary size; other things could be endless when they are shown."""
    return values if values is not None and all(_is_scalar(value) for value in values) else None


def _is_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**64
    return isinstance(value, str | float)


def _elements(shape: Any, dtype: Any, data: Any) -> list[Any] | None:
    if not isinstance(shape, tuple) or len(shape) != 1:
        return None
    if isinstance(data, list):
        return data
    code = _dtype_code(dtype)
    if not isinstance(data, bytes | bytearray) or code is None or "O" in code:
        return None
    return list(np.frombuffer(data, np.dtype(code)).tolist())


def _dtype_code(dtype: Any) -> str | None:
    """The code that a pickled dtype was made with, such as `f8`, with its byte order; None when it is no plain one."""
    if not isinstance(dtype, Inert) or not dtype.arguments or not isinstance(dtype.arguments[0], str):
        return None
    code = dtype.arguments[0]
    if not _PLAIN_DTYPE.fullmatch(code):
        return None
    if dtype.state is not None and not _is_plain(dtype.state, code):
        return None
    order = dtype.state[1] if dtype.state else "="
    return order + code if order in ("<", ">") and code[0] not in "<>=|" else code


def _is_plain(state: Any, code: str) -> bool:
    """Whether a dtype's pickled state says the same as its code about its size, and about objects in it.

    numpy believes the state: one that says otherwise would make joblib read other bytes, or a pickle, where this
    reader sees numbers.
    """
    if not isinstance(state, tuple) or len(state) < 8:
        return False
    _, _, base, names, fields, size, _, flags, *_ = state
    kind = code.lstrip("<>=|")
    if kind.startswith("O"):
        return names is None and fields is None and base is None
    if not isinstance(flags, int) or flags & _HAS_OBJECTS or base is not None or not isinstance(size, int):
        return False
    if kind[0] in "SUV" and size != np.dtype(kind).itemsize:
        return False
    if kind[0] not in "SUV" and size != -1:
        return False
    if fields is None:
        return names is None
    if kind[0] != "V" or not isinstance(fields, dict):
        return False
    parts = [field[0] for field in fields.values() if isinstance(field, tuple) and field]
    codes = [_dtype_code(part) for part in parts]
    return len(parts) == len(fields) and all(one is not None and "O" not in one for one in codes)
