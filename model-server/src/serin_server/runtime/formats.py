"""The formats of model files, and the one way in for each."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from serin_server.runtime import loading
from serin_server.runtime.lean import import_scikit_learn


class Format(StrEnum):
    """How a model file is read; the names are those of the resource's `model.format`."""

    JOBLIB = "joblib"
    SKOPS = "skops"
    ONNX = "onnx"

    @classmethod
    def of(cls, path: Path) -> "Format":
        """The format that the file's name says: `.skops` and `.onnx`, and joblib for all others."""
        return {".skops": cls.SKOPS, ".onnx": cls.ONNX}.get(path.suffix.lower(), cls.JOBLIB)


def load_format(data: bytes, format_: Format, trusted_types: Sequence[str]) -> Any:
    """Return the object with a predict method that the bytes hold. Raises FatalError.

    `trusted_types` are for skops alone. Only what a format needs is imported, so that it costs no other model's start.
    """
    if format_ is not Format.ONNX:
        import_scikit_learn()
    if format_ is Format.SKOPS:
        from serin_server.runtime.skops_file import load_skops

        return load_skops(data, trusted_types)
    if format_ is Format.ONNX:
        from serin_server.runtime.onnx_file import load_onnx

        return load_onnx(data)
    return loading.load(data)
