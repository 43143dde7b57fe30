"""Puts the parts of a serving process together."""

import gc
import logging
import socket
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import sklearn

from serin_server import __version__
from serin_server.failures import FatalError, Reason
from serin_server.monitor.feedback import FeedbackCounter
from serin_server.monitor.keys import Keyring
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.runtime.acceleration import Accelerate
from serin_server.runtime.batcher import Batcher, prepare_thread
from serin_server.runtime.formats import Format
from serin_server.runtime.model import Model
from serin_server.runtime.opening import open_model
from serin_server.runtime.signature import SignatureCheck
from serin_server.serving.served import ServedModel
from serin_server.web.app import App, Lifecycle
from serin_server.web.inference import HttpInference
from serin_server.web.limits import Limits
from serin_server.web.server import Server, listen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The options of `serve`; `host` None listens on all addresses.

    Without `sha256` the file is served as it is, without `key_path` prediction ids hold as long as the process: both
    for a person with a file of their own.
    """

    model_name: str
    model_version: str
    revision: str
    model_path: Path
    sha256: str | None
    key_path: Path | None
    host: str | None
    port: int
    drain_seconds: float
    max_body_bytes: int
    max_in_flight: int
    format: Format = Format.JOBLIB
    trusted_types: tuple[str, ...] = ()
    accelerate: Accelerate = Accelerate.AUTO
    signature: SignatureCheck | None = None


def serve(settings: Settings) -> None:
    """Load the model, answer requests until SIGTERM, then drain. May raise FatalError before it listens."""
    identity = {
        "model": settings.model_name,
        "version": settings.model_version,
        "revision": settings.revision,
    }
    log.info("starting", extra={"fields": {**identity, "serin": __version__, "scikit_learn": sklearn.__version__}})
    keyring = Keyring.at(settings.key_path)
    started = time.perf_counter()
    model, sha256 = open_model(
        settings.model_path,
        settings.sha256,
        settings.format,
        settings.trusted_types,
        settings.accelerate,
        settings.signature,
    )
    load_seconds = time.perf_counter() - started
    log.info(
        "model loaded",
        extra={
            "fields": {
                **identity,
                "sha256": sha256,
                "estimator": model.description,
                "acceleration": model.acceleration,
                "seconds": round(load_seconds, 3),
            }
        },
    )
    # Rows come as arrays in the order of the names, checked when decoded. scikit-learn would warn every time.
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    app = make_app(settings, model, keyring, load_seconds)
    prepare_thread()
    # What is there now stays for good: looking through it again would only make some requests wait.
    gc.collect()
    gc.freeze()
    server = Server(app, Limits(settings.max_body_bytes), settings.drain_seconds)
    server.run(_listen(settings.host, settings.port))
    log.info("stopped", extra={"fields": identity})


def make_app(settings: Settings, model: Model, keyring: Keyring, load_seconds: float) -> App:
    """Put the application together around a loaded model."""
    metrics = Metrics(settings.model_name, settings.revision, model.classes)
    metrics.loaded(load_seconds)
    tokens = Tokens(keyring, settings.model_name, settings.revision)
    served = ServedModel(
        model=model,
        batcher=Batcher(model, settings.max_in_flight),
        tokens=tokens,
        metrics=metrics,
        name=settings.model_name,
        version=settings.model_version,
        revision=settings.revision,
    )
    inference = HttpInference(served, settings.max_body_bytes)
    return App(inference, FeedbackCounter(tokens, metrics), Lifecycle())


def _listen(host: str | None, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise FatalError(Reason.INVALID_CONFIGURATION, f"cannot listen on port {port}: {error.strerror}") from error
