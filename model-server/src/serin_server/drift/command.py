"""`serin-server profile`: a reference profile from training data."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serin_server.drift.build import build
from serin_server.drift.data import Table, read_table
from serin_server.drift.profile import SUFFIX, Profile, dump
from serin_server.failures import FatalError, Reason
from serin_server.protocol.datatypes import Array
from serin_server.protocol.metadata import PREDICT
from serin_server.protocol.rows import Columns, Rows, some
from serin_server.runtime.acceleration import Accelerate
from serin_server.runtime.formats import Format
from serin_server.runtime.model import Model, PredictionError
from serin_server.runtime.opening import open_model

_ROWS_A_CALL = 10_000


def profile(
    data: Path,
    *,
    model: Path | None,
    format_: Format | None,
    trusted_types: Sequence[str],
    predictions: str | None,
    ignore: Sequence[str],
    bins: int,
    output: Path | None,
) -> dict[str, Any]:
    """Write the profile of `data`, and return what to say about it. Raises FatalError.

    With a model, its features are profiled, and its own predictions unless a column holds them.
    """
    opened = (
        None if model is None else open_model(model, None, format_ or Format.of(model), trusted_types, _AS_IT_IS)[0]
    )
    names = None if opened is None else opened.signature.names
    table = read_table(data, names)
    for name in (*ignore, *([predictions] if predictions else [])):
        if name not in table:
            raise FatalError(Reason.INVALID_CONFIGURATION, f"{data} has no column {name}: it has {_listed(table)}")
    given = None if predictions is None else table[predictions]
    features = _features(table, names, {*ignore, predictions}, data)
    classes = None if opened is None else opened.classes
    if opened is not None:
        opened.open()
    if opened is not None and opened.signature.features not in (None, len(features)):
        raise FatalError(
            Reason.PROFILE_MISMATCH,
            f"{data} has {len(features)} features, the model takes {opened.signature.features}: "
            "leave columns such as the label out with --ignore",
        )
    found = build(features, _predicted(opened, features) if opened and given is None else given, classes, bins)
    path = output or Path(f"{model or data}{SUFFIX}")
    text = dump(found).encode()
    try:
        path.write_bytes(text)
    except OSError as error:
        raise FatalError(Reason.STORAGE_FAILED, f"cannot write {path}: {error.strerror}") from error
    return _told(path, hashlib.sha256(text).hexdigest(), found)


_AS_IT_IS = Accelerate.NEVER


def _features(table: Table, names: Sequence[str] | None, left_out: set[str | None], data: Path) -> Table:
    if names is None:
        features = {name: column for name, column in table.items() if name not in left_out}
        if not features:
            raise FatalError(Reason.INVALID_CONFIGURATION, f"no column of {data} is left")
        return features
    missing = [name for name in names if name not in table]
    if missing:
        raise FatalError(Reason.PROFILE_MISMATCH, f"{data} lacks columns that the model takes: {_listed(missing)}")
    return {name: table[name] for name in names}


def _predicted(model: Model, features: Table) -> Array | None:
    """What the model predicts; None for several values a row, which have no bins. Raises FatalError."""
    if model.main != PREDICT:
        return None
    columns = Columns(features)
    rows: Rows = columns if model.signature.by_name else columns.matrix()
    starts = range(0, len(rows), _ROWS_A_CALL)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            parts = [model.predict(some(rows, slice(start, start + _ROWS_A_CALL))) for start in starts]
    except PredictionError as error:
        raise FatalError(
            Reason.INVALID_CONFIGURATION, f"the model can not predict for these rows ({error}): is it their model?"
        ) from error
    values = np.concatenate([part.values for part in parts])
    return values if values.ndim == 1 else None


def _told(path: Path, sha256: str, found: Profile) -> dict[str, Any]:
    return {
        "profile": str(path),
        "sha256": sha256,
        "rows": found.rows,
        "features": len(found.features),
        "predictions": found.predictions is not None,
    }


def _listed(names: Sequence[str] | Table) -> str:
    shown = list(names)[:8]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
