"""From a model file to a model that predicts."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serin_server.runtime.acceleration import Accelerate, accelerate
from serin_server.runtime.formats import Format, load_format
from serin_server.runtime.loading import read, read_checked
from serin_server.runtime.model import Model
from serin_server.runtime.signature import SignatureCheck

log = logging.getLogger(__name__)

_PLATFORMS = {Format.JOBLIB: "sklearn_joblib", Format.SKOPS: "sklearn_skops", Format.ONNX: "onnxruntime_onnx"}


def open_model(
    path: Path,
    sha256: str | None,
    format_: Format,
    trusted_types: Sequence[str],
    wish: Accelerate,
    signature: SignatureCheck | None = None,
    forks: bool = False,
) -> tuple[Model, str]:
    """Return the model and the SHA-256 of the bytes it came from. Raises FatalError.

    The file is read once: the bytes that are loaded are those whose digest was taken. Without an expected digest the
    file is trusted as it is, which is for a person who serves a file of their own. A signature is checked against that
    same digest, before anything of the file is interpreted. Call it before any thread starts.

    With `forks` the model is what processes can be forked with, each of which then calls its `open`.
    """
    data = read(path) if sha256 is None else read_checked(path, sha256)
    found = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
    if signature is not None:
        ends = signature.verify(found)
        if ends is not None and ends < datetime.now(UTC):
            log.warning("the signer's certificate has ended", extra={"fields": {"ended": ends.isoformat()}})
    loaded: Any = load_format(data, format_, trusted_types)
    del data  # as large as the model
    if format_ is Format.ONNX:
        model = Model(loaded, _PLATFORMS[format_], "not accelerated: it is ONNX already", "ONNX")
    else:
        outcome = accelerate(loaded, wish, forks)
        model = Model(outcome.estimator, _PLATFORMS[format_], outcome.reason, type(loaded).__name__)
    if not forks:
        model.open()
    return model, found
