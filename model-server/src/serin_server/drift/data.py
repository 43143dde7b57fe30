"""Training data from a file, as named columns. Nothing in such a file is run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from serin_server.failures import FatalError, Reason
from serin_server.protocol.datatypes import Array

Table = dict[str, Array]


def read_table(path: Path, names: Sequence[str] | None) -> Table:
    """The columns of a CSV, Parquet, .npy or .npz file, each of shape [rows]. Raises FatalError.

    Of an .npz file, arrays of two dimensions give a column for each of theirs. names: those of the columns of a matrix,
    which has none in its file; without them they are `0`, `1` and so on.
    """
    readers = {".csv": _csv, ".parquet": _parquet, ".npy": _npy, ".npz": _npz}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise FatalError(
            Reason.INVALID_CONFIGURATION,
            f"{path} is none of {', '.join(readers)}: write the training data as one of them",
        )
    try:
        table = reader(path, names)
    except OSError as error:
        raise FatalError(Reason.NOT_FOUND, f"the data {path} cannot be read: {error.strerror or error}") from error
    except ImportError as error:
        raise FatalError(Reason.MISSING_MODULE, f"{path} needs a package that is not here: {error}") from error
    except ValueError as error:  # also of pandas' parsers, and of numpy for an array of objects
        raise FatalError(Reason.INVALID_CONFIGURATION, f"{path} cannot be read: {error}") from error
    if not table or not len(next(iter(table.values()))):
        raise FatalError(Reason.INVALID_CONFIGURATION, f"{path} has no rows")
    return table


def _csv(path: Path, _names: Sequence[str] | None) -> Table:
    return _columns(pd.read_csv(path, low_memory=False))


def _parquet(path: Path, _names: Sequence[str] | None) -> Table:
    return _columns(pd.read_parquet(path))


def _columns(frame: pd.DataFrame) -> Table:
    table = {}
    for name in frame.columns:
        column = frame[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not column.isna().any()
        if pd.api.types.is_numeric_dtype(column) and not numeric:
            table[str(name)] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            table[str(name)] = column.to_numpy() if numeric else column.astype(object).to_numpy()
    return table


def _npy(path: Path, names: Sequence[str] | None) -> Table:
    return _matrix(np.load(path, allow_pickle=False), "", names)


def _npz(path: Path, names: Sequence[str] | None) -> Table:
    with np.load(path, allow_pickle=False) as arrays:
        table: Table = {}
        for key in arrays.files:
            array = arrays[key]
            table |= {key: array} if array.ndim == 1 else _matrix(array, key, names)
    lengths = {len(column) for column in table.values()}
    if len(lengths) > 1:
        raise ValueError(f"its arrays have different numbers of rows: {', '.join(map(str, sorted(lengths)))}")
    return table


def _matrix(array: Array, key: str, names: Sequence[str] | None) -> Table:
    """A column for each of a matrix."""
    if array.ndim != 2:
        raise ValueError(f"the array {key or 'in it'} has {array.ndim} dimensions, a table has two: rows and features")
    own = list(names) if names is not None and len(names) == array.shape[1] else [str(i) for i in range(array.shape[1])]
    return {name: array[:, place] for place, name in enumerate(own)}
