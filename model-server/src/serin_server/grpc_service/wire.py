"""A look at a message's bytes before they are parsed: what would grow out of all proportion is refused.

A field that holds an empty message has two bytes and becomes an object of about ninety, so that a message within the
limit of bytes could take forty-four times as much memory.
"""

from serin_server.protocol.errors import invalid

# More than the tensors of a model with ten thousand named features, and less memory than a large body takes.
MOST_FIELDS = 50_000
# What is shorter cannot have so many.
_FEWEST_BYTES = 2 * MOST_FIELDS

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def check_fields(message: bytes) -> None:
    """Raises RequestError (400) for a message with more than MOST_FIELDS fields at its top.

    What is no message at all passes: the parser has the words for it.
    """
    if len(message) <= _FEWEST_BYTES:
        return
    place = 0
    for _ in range(MOST_FIELDS):
        if place >= len(message):
            return
        try:
            tag, place = _varint(message, place)
            kind = tag & 7
            if kind == _DELIMITED:
                size, place = _varint(message, place)
                place += size
            elif kind == _VARINT:
                _, place = _varint(message, place)
            elif kind in (_FIXED64, _FIXED32):
                place += 8 if kind == _FIXED64 else 4
            else:
                return
        except IndexError:
            return
    if place < len(message):
        raise invalid(f"a message takes at most {MOST_FIELDS} tensors, outputs or labels together")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and the place behind it. Raises IndexError at the end of the message."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise IndexError
