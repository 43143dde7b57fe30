"""What a model computes on: one array with rows first, or columns by name that keep a datatype each."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from serin_server.protocol.datatypes import Array


class Columns:
    """Named columns in the model's order: arrays that have as many rows as each other, and one or more dimensions."""

    __slots__ = ("arrays",)

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def matrix(self) -> Array:
        """All columns side by side, [rows, values of a row]; of Python objects when some are strings."""
        return np.column_stack([array.reshape(len(array), -1) for array in self.arrays.values()])


Rows = Array | Columns


def kind(rows: Rows) -> Hashable:
    """What is equal for rows that may be put together: datatypes, and sizes beside the number of rows."""
    if isinstance(rows, Columns):
        return tuple((name, array.dtype, array.shape[1:]) for name, array in rows.arrays.items())
    return rows.dtype, rows.shape[1:]


def together(parts: Sequence[Rows]) -> Rows:
    """All rows of parts of one kind, in order."""
    first = parts[0]
    if not isinstance(first, Columns):
        return np.concatenate(parts)  # type: ignore[arg-type]
    columns = [part.arrays for part in parts if isinstance(part, Columns)]
    return Columns({name: np.concatenate([part[name] for part in columns]) for name in first.arrays})


def some(rows: Rows, which: slice) -> Rows:
    """Some of the rows."""
    if isinstance(rows, Columns):
        return Columns({name: array[which] for name, array in rows.arrays.items()})
    return rows[which]
