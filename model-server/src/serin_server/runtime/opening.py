"""From a model file to a model that predicts."""

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serin_server.runtime.acceleration import Accelerate, accelerate, accelerate_at_a_distance, stays
from serin_server.runtime.acceleration.child import GaveUpError
from serin_server.runtime.acceleration.scout import is_promising
from serin_server.runtime.formats import Format, load_format
from serin_server.runtime.lean import import_scikit_learn_for_a_trial
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
    given_up = None
    if format_ is Format.JOBLIB and wish is Accelerate.AUTO and not forks and is_promising(data):
        try:
            model = _without_scikit_learn(path, data, found)
        except GaveUpError as error:
            given_up = str(error)
        else:
            if model is not None:
                model.open()
                return model, found
    loaded: Any = load_format(data, format_, trusted_types)
    del data  # as large as the model
    if format_ is Format.ONNX:
        model = Model(loaded, _PLATFORMS[format_], "not accelerated: it is ONNX already", "ONNX")
    else:
        outcome = accelerate(loaded, wish, forks) if given_up is None else stays(loaded, given_up)
        model = Model(outcome.estimator, _PLATFORMS[format_], outcome.reason, type(loaded).__name__)
    if not forks:
        model.open()
    return model, found


def _without_scikit_learn(path: Path, data: bytes, sha256: str) -> Model | None:
    """The model, accelerated, or None when it must be loaded to know. Raises GaveUpError when it is not accelerated."""

    def load() -> Any:
        import_scikit_learn_for_a_trial()
        return load_format(data, Format.JOBLIB, ())

    def load_again() -> Any:
        return load_format(read_checked(path, sha256), Format.JOBLIB, ())

    found = accelerate_at_a_distance(load, load_again)
    if found is None:
        return None
    outcome, kind = found
    return Model(outcome.estimator, _PLATFORMS[Format.JOBLIB], outcome.reason, kind)
