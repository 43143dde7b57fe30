"""Puts the parts of a serving process together."""

import gc
import logging
import socket
import time
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from serin_server import __version__
from serin_server.drift.counter import MOST_FEATURES, DriftCounter, render_reference
from serin_server.drift.profile import Profile, check_fits
from serin_server.drift.profile import read as read_profile
from serin_server.failures import FatalError, Reason
from serin_server.grpc_service.port import Port, reserve
from serin_server.monitor.feedback import FeedbackCounter
from serin_server.monitor.keys import Keyring
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Tokens
from serin_server.payload_log.log import PayloadLog
from serin_server.payload_log.settings import PayloadLogSettings
from serin_server.processes.forking import Ends, fork_workers
from serin_server.processes.shared import Alone, Shared, Worker
from serin_server.processes.supervisor import Supervisor
from serin_server.processes.worker import work
from serin_server.runtime.acceleration import Accelerate
from serin_server.runtime.acceleration.memory import free_bytes
from serin_server.runtime.batcher import Batcher, prepare_thread
from serin_server.runtime.formats import Format
from serin_server.runtime.model import Model
from serin_server.runtime.opening import open_model
from serin_server.runtime.signature import SignatureCheck
from serin_server.serving.served import ServedModel, Watcher
from serin_server.shadow.book import Book, ShadowWatcher
from serin_server.web.access_log import AccessLog
from serin_server.web.app import App, Lifecycle
from serin_server.web.inference import HttpInference
from serin_server.web.limits import Limits
from serin_server.web.server import Companion, Server, listen

log = logging.getLogger(__name__)

_MOST_UPLOAD_BYTES = 256 * 1024 * 1024
# How long the end may wait for a volume that hangs.
_FLUSH_SECONDS = 5.0


@dataclass(frozen=True)
class Settings:
    """The options of `serve`; `host` None listens on all addresses, `grpc_port` None is without gRPC.

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
    processes: int = 1
    max_connections: int = 1000
    max_upload_bytes: int | None = None  # None: by the memory that is free
    access_log_sample: float = 0
    profile: Path | None = None
    payload_log: PayloadLogSettings | None = None
    grpc_port: int | None = None


def serve(settings: Settings) -> int:
    """Load the model, answer requests until SIGTERM, then drain; returns the exit code.

    May raise FatalError before it listens.
    """
    identity = {
        "model": settings.model_name,
        "version": settings.model_version,
        "revision": settings.revision,
    }
    log.info("starting", extra={"fields": {**identity, "serin": __version__, "scikit_learn": version("scikit-learn")}})
    keyring = Keyring.at(settings.key_path)
    several = settings.processes > 1
    started = time.perf_counter()
    model, sha256 = open_model(
        settings.model_path,
        settings.sha256,
        settings.format,
        settings.trusted_types,
        settings.accelerate,
        settings.signature,
        forks=several,
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
    profile = None if settings.profile is None else profile_for(model, settings.profile)
    payload_log = None if settings.payload_log is None else payload_log_for(model, settings, settings.payload_log)
    listener = _listen(settings.host, settings.port)
    grpc_port = None if settings.grpc_port is None else reserve(settings.host, settings.grpc_port)
    loaded = Loaded(settings, model, keyring, load_seconds, profile, payload_log, grpc_port)
    code = _serve_together(loaded, listener) if several else _serve_alone(loaded, listener)
    log.info("stopped", extra={"fields": identity})
    return code


@dataclass(frozen=True)
class Loaded:
    """What a process serves with; workers get it by being forked."""

    settings: Settings
    model: Model
    keyring: Keyring
    load_seconds: float
    profile: Profile | None = None
    payload_log: PayloadLog | None = None
    grpc_port: Port | None = None

    def metrics(self) -> Metrics:
        """New counters, all zero."""
        metrics = Metrics(self.settings.model_name, self.settings.revision, self.model.classes)
        if self.payload_log is not None:
            metrics.also(self.payload_log.render)
        return metrics

    def tokens(self) -> Tokens:
        """What makes and reads prediction ids."""
        return Tokens(self.keyring, self.settings.model_name, self.settings.revision)

    def close(self) -> None:
        """Write what this process still has to write."""
        if self.payload_log is not None:
            self.payload_log.close(_FLUSH_SECONDS)

    def counters(self) -> Alone:
        """The counters of a process that has those of the whole server: also labels, and how long loading took."""
        metrics = self.metrics()
        metrics.loaded(self.load_seconds)
        if self.profile is not None:
            reference = render_reference(self.profile, self.settings.model_name, self.settings.revision)
            metrics.also(lambda: reference)
        book = Book(self.keyring, self.settings.model_name, self.settings.revision)
        feedback = FeedbackCounter(self.tokens(), metrics, self.payload_log, teller=book.answers)
        book.count_with(feedback)
        metrics.also(book.pairs.render)
        return Alone(metrics, feedback, book)


def _serve_alone(loaded: Loaded, listener: socket.socket) -> int:
    make_server(loaded, make_app(loaded)).run(listener)
    loaded.close()
    return 0


def _serve_together(loaded: Loaded, listener: socket.socket) -> int:
    _freeze()  # what is there now is shared with the workers, as long as nobody writes to it
    children = fork_workers(loaded.settings.processes, partial(_work, loaded), listener)
    host, port = listener.getsockname()[:2]
    log.info("listening", extra={"fields": {"host": host, "port": port, "processes": len(children)}})
    code = Supervisor(listener, children, loaded.counters(), loaded.settings.drain_seconds).run()
    loaded.close()
    return code


def _work(loaded: Loaded, ends: Ends) -> int:
    loaded.model.open()
    metrics, shared = loaded.metrics(), Worker()
    server = make_server(loaded, _assemble(loaded, metrics, shared, ShadowWatcher(shared.answered)))
    code = work(ends, server, shared, metrics.render)
    loaded.close()
    return code


def make_server(loaded: Loaded, app: App) -> Server:
    """The web server of one process, with its share of what the whole server may hold."""
    settings, processes = loaded.settings, loaded.settings.processes
    prepare_thread()
    uploads = settings.max_upload_bytes or min(_MOST_UPLOAD_BYTES, free_bytes() // 4)
    limits = Limits(
        settings.max_body_bytes,
        connections=-(-settings.max_connections // processes),
        upload_bytes=max(settings.max_body_bytes, uploads // processes),
    )
    access_log = AccessLog(settings.access_log_sample, settings.revision)
    server = Server(app, limits, settings.drain_seconds, app.activity, access_log)
    app.activity.gauge("serin_connections", "Connections that are open.", lambda: server.connections)
    app.activity.gauge("serin_upload_bytes", "Bytes of bodies that are read or wait for answers.", lambda: server.held)
    if loaded.grpc_port is not None:
        server.accompany(_grpc_listener(loaded.grpc_port, settings, app, server))
    _freeze()
    return server


def _grpc_listener(port: Port, settings: Settings, app: App, server: Server) -> Companion:
    # Imported no earlier: gRPC starts threads, and forks while the model is loaded, and for workers, would lose them.
    from serin_server.grpc_service.listener import GrpcListener
    from serin_server.grpc_service.services import Services

    services = Services(app.served, app.shared, app.lifecycle, server, server.access_log)
    return GrpcListener(services, port, server.limits, settings.max_in_flight, settings.drain_seconds)


def _freeze() -> None:
    """What is there now stays for good: looking through it again would only make some requests wait."""
    gc.collect()
    gc.freeze()


def profile_for(model: Model, path: Path) -> Profile:
    """The model's reference profile. Raises FatalError."""
    profile = check_fits(read_profile(path), model.signature.names, model.signature.features, model.classes)
    if len(profile.features) > MOST_FEATURES:
        fields = {"counted": MOST_FEATURES, "features": len(profile.features)}
        log.warning("drift is counted for the first features only", extra={"fields": fields})
    return profile


def payload_log_for(model: Model, settings: Settings, own: PayloadLogSettings) -> PayloadLog:
    """A log of the model's predictions. Raises FatalError when it names a feature that the model does not have."""
    return PayloadLog(
        own,
        model.signature,
        model=settings.model_name,
        version=settings.model_version,
        revision=settings.revision,
    )


def make_app(loaded: Loaded) -> App:
    """The application of a process that serves alone."""
    own = loaded.counters()
    return _assemble(loaded, own.metrics, own, ShadowWatcher(own.book.answered))


def _assemble(loaded: Loaded, metrics: Metrics, shared: Shared, shadow: ShadowWatcher) -> App:
    """Put the application together around a loaded model; `metrics` are the process's own."""
    settings = loaded.settings
    watchers: list[Watcher] = []
    if loaded.profile is not None:
        drift = DriftCounter(loaded.profile, settings.model_name, settings.revision)
        metrics.also(drift.render)
        watchers.append(drift)
    if loaded.payload_log is not None:
        watchers.append(loaded.payload_log)
    batcher = Batcher(loaded.model, settings.max_in_flight, metrics.activity)
    metrics.activity.gauge("serin_requests_in_flight", "Predictions that wait or run.", lambda: batcher.in_flight)
    metrics.activity.gauge("serin_queue_length", "Predictions that wait for the model.", lambda: batcher.waiting)
    served = ServedModel(
        model=loaded.model,
        batcher=batcher,
        tokens=loaded.tokens(),
        metrics=metrics,
        name=settings.model_name,
        version=settings.model_version,
        revision=settings.revision,
        watchers=tuple(watchers),
        shadow=shadow,
    )
    return App(HttpInference(served, settings.max_body_bytes), shared, Lifecycle())


def _listen(host: str | None, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise FatalError(Reason.INVALID_CONFIGURATION, f"cannot listen on port {port}: {error.strerror}") from error
