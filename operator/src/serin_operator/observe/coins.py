"""Fair coins that fall the same way every time they are asked for, so that counts which they split only ever rise."""

import hashlib
import zlib
from itertools import accumulate

_TOSSES = 1 << 14


def heads(coin: str, tosses: int) -> int:
    """How many of the first `tosses` tosses of the coin of this name show heads."""
    start = zlib.crc32(coin.encode()) % _TOSSES
    rounds, rest = divmod(start + tosses, _TOSSES)
    return rounds * _HEADS[-1] + _HEADS[rest] - _HEADS[start]


def _heads() -> list[int]:
    """How many heads there are before each place of one long row of tosses, that all coins share, each from its own
    place on."""
    digests = b"".join(hashlib.sha256(number.to_bytes(2, "big")).digest() for number in range(_TOSSES // 256))
    return list(accumulate((byte >> bit & 1 for byte in digests for bit in range(8)), initial=0))


_HEADS = _heads()
