"""What every kind of source hands to its reader."""

from collections.abc import Iterator
from dataclasses import dataclass

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Source:
    """An open model file.

    `name` is fit to be shown: no credentials. `size` is in bytes, None when the source does not say. `chunks`
    raises FatalError when the source breaks off, and never OSError, so that a reader can tell it from its own
    disk.
    """

    name: str
    size: int | None
    chunks: Iterator[bytes]
