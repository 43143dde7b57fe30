"""Sums of log likelihood ratios: adding up over alternatives, rounding, and a compact text to keep them in `status`.

In the text whole numbers take seven bits per byte; floats are stored plane by plane (all first bytes, then all second
ones), because neighbours share their exponents; then deflate and base85, whose alphabet needs no escapes in JSON.
"""

import base64
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Singles = npt.NDArray[np.float32]

_RAW_DEFLATE = -15
_MORE_THAN_SINGLE, _MORE_THAN_SHORT = (1 << 29) - 1, (1 << 37) - 1  # the bits that only doubles have


def pack(integers: Iterable[int], doubles: npt.ArrayLike, singles: Singles) -> str:
    """`unpack` gives back equal values. integers: none is negative. doubles, singles: one-dimensional."""
    whole = list(integers)
    wide = np.asarray(doubles, "<f8")
    data = bytearray()
    for number in (len(whole), len(wide), *whole):
        while number > 0x7F:
            data.append(number & 0x7F | 0x80)
            number >>= 7
        data.append(number)
    data += _planes(wide) + _planes(singles.astype("<f4"))
    squeezed = zlib.compress(bytes(data), level=9, wbits=_RAW_DEFLATE)
    return base64.b85encode(squeezed).decode()


def unpack(text: str) -> tuple[list[int], npt.NDArray[np.float64], Singles]:
    """Whole numbers, doubles and singles of a text that `pack` made. Raises ValueError for anything else."""
    try:
        data = zlib.decompress(base64.b85decode(text), wbits=_RAW_DEFLATE)
        at = 0

        def number() -> int:
            nonlocal at
            value = shift = 0
            while data[at] > 0x7F:
                value |= (data[at] & 0x7F) << shift
                at, shift = at + 1, shift + 7
            at += 1
            return value | data[at - 1] << shift

        integers, doubles = number(), number()
        whole = [number() for _ in range(integers)]
        cut = at + 8 * doubles
        if cut > len(data) or (len(data) - cut) % 4:
            raise ValueError(f"{len(data)} bytes, of them {doubles} doubles from {at} on")
        return whole, _rows(data[at:cut], 8).view("<f8").ravel(), _rows(data[cut:], 4).view("<f4").ravel()
    except (zlib.error, ValueError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"not a packed state: {error!r}") from error


def rounded_down(sums: npt.NDArray[np.float64], *, short: npt.ArrayLike = False) -> Singles:
    """Single precision, so that what is stored is what is computed with. A lower sum is still valid evidence.

    short: where the last byte is 0 and takes no room in the text.
    """
    lost = np.where(short, _MORE_THAN_SHORT, _MORE_THAN_SINGLE)
    bits = sums.view(np.int64)
    negative = bits >> 63  # in all bits: what is lower is farther from 0 then
    lower = bits + (negative & lost) & ~lost
    return lower.view(np.float64).astype(np.float32)


def log_mean_exp(sums: npt.NDArray[Any], log_weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(B,), ln of the weighted mean of the exponentials of sums (B, J)."""
    return log_sum_exp(log_weights[:, None] + per_alternative(sums))


def log_sum_exp(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(B,), ln of the sum of the exponentials of values (J, B)."""
    greatest = values.max(axis=0)
    return np.asarray(greatest + np.log(np.exp(values - greatest).sum(axis=0)))


def per_alternative(sums: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(J, B) of (B, J): many tests are added up faster than many short rows."""
    return sums.T.astype(np.float64, order="C")


def _planes(values: npt.NDArray[Any]) -> bytes:
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _rows(planes: bytes, size: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(planes, np.uint8).reshape(size, -1).T.copy()
