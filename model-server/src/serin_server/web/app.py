"""The ASGI application: routes, health, metadata, feedback and metrics."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from serin_server import __version__
from serin_server.monitor import metrics as prometheus
from serin_server.monitor.feedback import FeedbackCounter
from serin_server.protocol.errors import RequestError
from serin_server.protocol.feedback import parse_feedback
from serin_server.protocol.responses import error_body, to_json
from serin_server.web.exchange import (
    Answer,
    ClientGoneError,
    Message,
    Receive,
    RequestHeaders,
    Send,
    read_body,
    read_headers,
    send_answer,
)
from serin_server.web.inference import PREDICT, PREDICTION_ID, PROBABILITIES, Inference

log = logging.getLogger(__name__)

# What answers one method of one path: None when the client has gone.
Handler = Callable[[RequestHeaders, Receive], Awaitable[Answer | None]]


@dataclass
class Lifecycle:
    """Whether the server is on its way out: not ready for new traffic, though it still answers."""

    draining: bool = False


class App:
    """Answers every request to the server."""

    def __init__(self, inference: Inference, feedback: FeedbackCounter, lifecycle: Lifecycle) -> None:
        self._inference = inference
        self._feedback = feedback
        self._lifecycle = lifecycle
        self._routes = self._make_routes()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope, receive)
        if answer is not None:
            await send_answer(send, answer, close=self._lifecycle.draining)

    async def _answer(self, scope: Message, receive: Receive) -> Answer | None:
        methods = self._routes.get(scope["path"])
        if methods is None:
            return _error(404, f"there is no {scope['path']} here; the model is {self._inference.name}")
        handler = methods.get(scope["method"])
        if handler is None:
            allowed = ", ".join(methods)
            return _error(405, f"{scope['path']} takes {allowed}", (b"allow", allowed.encode()))
        return await handler(read_headers(scope["headers"]), receive)

    def _make_routes(self) -> Mapping[str, Mapping[str, Handler]]:
        model = f"/v2/models/{self._inference.name}"
        routes: dict[str, dict[str, Handler]] = {
            "/v2": {"GET": self._server_metadata},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            f"{model}/feedback": {"POST": self._take_feedback},
        }
        for base in (model, f"{model}/versions/{self._inference.version}"):
            routes[base] = {"GET": self._model_metadata}
            routes[f"{base}/ready"] = {"GET": self._model_ready}
            routes[f"{base}/infer"] = {"POST": self._inference.answer}
        return routes

    async def _server_metadata(self, _headers: RequestHeaders, _receive: Receive) -> Answer:
        return Answer(200, to_json({"name": "serin", "version": __version__, "extensions": []}))

    async def _live(self, _headers: RequestHeaders, _receive: Receive) -> Answer:
        return Answer(200, to_json({"live": True}))

    async def _ready(self, _headers: RequestHeaders, _receive: Receive) -> Answer:
        ready = not self._lifecycle.draining
        return Answer(200 if ready else 503, to_json({"ready": ready}))

    async def _model_ready(self, _headers: RequestHeaders, _receive: Receive) -> Answer:
        ready = not self._lifecycle.draining
        return Answer(200 if ready else 503, to_json({"name": self._inference.name, "ready": ready}))

    async def _model_metadata(self, _headers: RequestHeaders, _receive: Receive) -> Answer:
        model = self._inference.model
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
                    "name": self._inference.name,
                    "versions": [self._inference.version],
                    "platform": "sklearn_joblib",
                    "inputs": inputs,
                    "outputs": outputs,
                }
            ),
        )

    async def _metrics(self, _headers: RequestHeaders, _receive: Receive) -> Answer:
        return Answer(200, self._inference.metrics.render(time.time()), prometheus.CONTENT_TYPE.encode())

    async def _take_feedback(self, headers: RequestHeaders, receive: Receive) -> Answer | None:
        try:
            labels = parse_feedback(await read_body(headers, receive, self._inference.max_body_bytes))
        except RequestError as error:
            return _error(error.status, error.message)
        except ClientGoneError:
            return None
        receipt = self._feedback.count(labels, time.time())
        if receipt.refused:
            fields = {
                "refused": len(receipt.refused),
                "first": receipt.refused[0][1],
                "request_id": headers.request_id,
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
