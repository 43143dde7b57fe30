"""The routes: health, metadata, inference, feedback and metrics, each a function from a request to its answer."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httptools

from serin_server import __version__
from serin_server.monitor import metrics as prometheus
from serin_server.monitor.feedback import FeedbackCounter
from serin_server.protocol.errors import ClientGoneError, RequestError
from serin_server.protocol.feedback import parse_feedback
from serin_server.protocol.responses import error_body, to_json
from serin_server.serving.served import PREDICT, PREDICTION_ID, PROBABILITIES
from serin_server.web.connection import Handler
from serin_server.web.inference import HttpInference
from serin_server.web.messages import Answer, Request

log = logging.getLogger(__name__)


@dataclass
class Lifecycle:
    """Whether the server is on its way out: not ready for new traffic, though it still answers."""

    draining: bool = False


class App:
    """Knows what answers every request to the server."""

    def __init__(self, inference: HttpInference, feedback: FeedbackCounter, lifecycle: Lifecycle) -> None:
        self._inference = inference
        self._served = inference.served
        self._feedback = feedback
        self.lifecycle = lifecycle
        self._routes = self._make_routes()

    def route(self, method: bytes, target: bytes) -> Handler:
        """What answers this method (GET also for HEAD) at a request's target, a path or a whole URL."""
        methods = self._routes.get(target)
        if methods is None:
            path = _path(target)
            methods = self._routes.get(path)
            if methods is None:
                message = f"there is no {path.decode('latin-1')} here; the model is {self._served.name}"
                return lambda _request: _error(404, message)
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(name.decode() for name in methods)
            message = f"{target.decode('latin-1')} takes {allowed}"
            return lambda _request: _error(405, message, (b"allow", allowed.encode()))
        return handler

    def _make_routes(self) -> Mapping[bytes, Mapping[bytes, Handler]]:
        model = f"/v2/models/{self._served.name}"
        routes: dict[str, dict[bytes, Handler]] = {
            "/v2": {b"GET": self._server_metadata},
            "/v2/health/live": {b"GET": self._live},
            "/v2/health/ready": {b"GET": self._ready},
            "/metrics": {b"GET": self._metrics},
            f"{model}/feedback": {b"POST": self._take_feedback},
        }
        for base in (model, f"{model}/versions/{self._served.version}"):
            routes[base] = {b"GET": self._model_metadata}
            routes[f"{base}/ready"] = {b"GET": self._model_ready}
            routes[f"{base}/infer"] = {b"POST": self._inference.answer}
        return {path.encode(): methods for path, methods in routes.items()}

    def _server_metadata(self, _request: Request) -> Answer:
        return Answer(200, to_json({"name": "serin", "version": __version__, "extensions": []}))

    def _live(self, _request: Request) -> Answer:
        return Answer(200, to_json({"live": True}))

    def _ready(self, _request: Request) -> Answer:
        ready = not self.lifecycle.draining
        return Answer(200 if ready else 503, to_json({"ready": ready}))

    def _model_ready(self, _request: Request) -> Answer:
        ready = not self.lifecycle.draining
        return Answer(200 if ready else 503, to_json({"name": self._served.name, "ready": ready}))

    def _model_metadata(self, _request: Request) -> Answer:
        model = self._served.model
        features = -1 if model.signature.features is None else model.signature.features
        inputs: list[dict[str, object]] = [{"name": "input", "datatype": "FP64", "shape": [-1, features]}]
        if model.signature.names is not None:
            inputs = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in model.signature.names]
        outputs: list[dict[str, object]] = [
            {"name": PREDICT, "datatype": model.predict_datatype, "shape": [-1]},
            {"name": PREDICTION_ID, "datatype": "BYTES", "shape": [-1]},
        ]
        if model.has_probabilities and model.classes is not None:
            outputs.append({"name": PROBABILITIES, "datatype": "FP64", "shape": [-1, len(model.classes)]})
        return Answer(
            200,
            to_json(
                {
                    "name": self._served.name,
                    "versions": [self._served.version],
                    "platform": "sklearn_joblib",
                    "inputs": inputs,
                    "outputs": outputs,
                }
            ),
        )

    def _metrics(self, _request: Request) -> Answer:
        return Answer(200, self._served.metrics.render(time.time()), prometheus.CONTENT_TYPE.encode())

    def _take_feedback(self, request: Request) -> Answer | None:
        try:
            labels = parse_feedback(request.read(self._inference.max_body_bytes))
        except RequestError as error:
            return _error(error.status, error.message)
        except ClientGoneError:
            return None
        receipt = self._feedback.count(labels, time.time())
        if receipt.refused:
            fields = {
                "refused": len(receipt.refused),
                "first": receipt.refused[0][1],
                "request_id": request.request_id,
            }
            log.warning("labels refused", extra={"fields": fields})
        return Answer(
            200,
            to_json(
                {
                    "accepted": receipt.accepted,
                    "duplicates": receipt.duplicates,
                    "refused": [{"index": index, "reason": reason} for index, reason in receipt.refused],
                }
            ),
        )


def _error(status: int, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, error_body(message), headers=headers)


def _path(target: bytes) -> bytes:
    """The path in a request's target, decoded and without a query."""
    try:
        path: bytes | None = httptools.parse_url(target).path
    except httptools.HttpParserInvalidURLError:
        return target
    return unquote_to_bytes(path) if path else b"/"
