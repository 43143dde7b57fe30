"""The routes: health, metadata, inference, feedback and metrics, each a function from a request to its answer."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httptools

from serin_server import __version__
from serin_server.monitor import metrics as prometheus
from serin_server.monitor.activity import Activity
from serin_server.processes.shared import Shared, UnavailableError
from serin_server.protocol import openapi
from serin_server.protocol.errors import ClientGoneError, RequestError
from serin_server.protocol.metadata import EXTENSIONS
from serin_server.protocol.responses import error_body, to_json
from serin_server.web.connection import Handler
from serin_server.web.inference import HttpInference
from serin_server.web.messages import RETRY_LATER, Answer, Request

log = logging.getLogger(__name__)


@dataclass
class Lifecycle:
    """Whether the server is on its way out: not ready for new traffic, though it still answers."""

    draining: bool = False


class App:
    """Knows what answers every request to the server."""

    def __init__(self, inference: HttpInference, shared: Shared, lifecycle: Lifecycle) -> None:
        self._inference = inference
        self.served = inference.served
        self.shared = shared
        self._tasks: set[asyncio.Task[Answer]] = set()
        self.lifecycle = lifecycle
        self._routes = self._make_routes()

    @property
    def activity(self) -> Activity:
        """What counts how busy the process is."""
        return self.served.metrics.activity

    def route(self, method: bytes, target: bytes) -> Handler:
        """What answers this method (GET also for HEAD) at a request's target, a path or a whole URL."""
        methods = self._routes.get(target) or self._exact.get(target)
        if methods is None:
            path = _path(target)
            methods = self._routes.get(path)
            if methods is None:
                message = f"there is no {path.decode('latin-1')} here; the model is {self.served.name}"
                return lambda _request: _error(404, message)
        handler = methods.get(method)
        if handler is None:
            allowed = ", ".join(name.decode() for name in methods)
            message = f"{target.decode('latin-1')} takes {allowed}"
            return lambda _request: _error(405, message, (b"allow", allowed.encode()))
        return handler

    def _make_routes(self) -> Mapping[bytes, Mapping[bytes, Handler]]:
        model = f"/v2/models/{self.served.name}"
        routes: dict[str, dict[bytes, Handler]] = {
            "/v2": {b"GET": self._server_metadata},
            "/v2/health/live": {b"GET": self._live},
            "/v2/health/ready": {b"GET": self._ready},
            "/metrics": {b"GET": self._metrics},
            "/openapi.json": {b"GET": self._openapi},
            f"{model}/feedback": {b"POST": self._take_feedback},
        }
        # Of no use to clients, to whom the router closes them. It does so by their very names: others lead nowhere.
        self._exact = {
            f"{model}/answers/new".encode(): {b"POST": self._tell_answers},
            f"{model}/answers".encode(): {b"POST": self._take_answers},
        }
        for base in (model, f"{model}/versions/{self.served.version}"):
            routes[base] = {b"GET": self._model_metadata}
            routes[f"{base}/ready"] = {b"GET": self._model_ready}
            routes[f"{base}/infer"] = {b"POST": self._inference.answer}
        return {path.encode(): methods for path, methods in routes.items()}

    def _server_metadata(self, _request: Request) -> Answer:
        return Answer(200, to_json({"name": "serin", "version": __version__, "extensions": list(EXTENSIONS)}))

    def _live(self, _request: Request) -> Answer:
        return Answer(200, to_json({"live": True}))

    def _ready(self, _request: Request) -> Answer:
        ready = not self.lifecycle.draining
        return Answer(200 if ready else 503, to_json({"ready": ready}))

    def _model_ready(self, _request: Request) -> Answer:
        ready = not self.lifecycle.draining
        return Answer(200 if ready else 503, to_json({"name": self.served.name, "ready": ready}))

    def _model_metadata(self, _request: Request) -> Answer:
        return Answer(200, to_json(self.served.metadata.to_json()))

    def _openapi(self, _request: Request) -> Answer:
        return Answer(200, to_json(openapi.document(self.served.metadata, __version__)))

    def _metrics(self, request: Request) -> None:
        self._answer_later(request, self._exposition())

    async def _exposition(self) -> Answer:
        return Answer(200, await self.shared.exposition(), prometheus.CONTENT_TYPE.encode())

    def _take_feedback(self, request: Request) -> Answer | None:
        return self._with_body(request, lambda body: self._receipt(body, request.request_id))

    async def _receipt(self, body: bytes, request_id: str | None) -> Answer:
        return Answer(200, await self.shared.take_labels(body, request_id))

    def _tell_answers(self, request: Request) -> Answer | None:
        return self._with_body(request, self._told)

    async def _told(self, body: bytes) -> Answer:
        return Answer(200, await self.shared.batch(body.decode("latin-1")), b"application/octet-stream")

    def _take_answers(self, request: Request) -> Answer | None:
        return self._with_body(request, self._taken)

    async def _taken(self, body: bytes) -> Answer:
        await self.shared.take_batch(body)
        return Answer(200, to_json({"taken": True}))

    def _with_body(self, request: Request, answer: Callable[[bytes], Coroutine[None, None, Answer]]) -> Answer | None:
        try:
            body = request.read(self._inference.max_body_bytes)
        except RequestError as error:
            return _error(error.status, error.message)
        except ClientGoneError:
            return None
        self._answer_later(request, answer(body))
        return None

    def _answer_later(self, request: Request, answer: Coroutine[None, None, Answer]) -> None:
        """Answer when other processes of the server have told what they know."""
        task = asyncio.get_running_loop().create_task(_settled(answer, request.request_id))
        self._tasks.add(task)  # the loop itself keeps no task
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: request.reply(done.result()))


async def _settled(answer: Coroutine[None, None, Answer], request_id: str | None) -> Answer:
    try:
        return await answer
    except RequestError as error:
        return _error(error.status, error.message)
    except UnavailableError as error:
        log.warning("no answer for the server as a whole", extra={"fields": {"why": str(error)}})
        return _error(503, str(error), *RETRY_LATER)
    except Exception:
        log.exception("internal error", extra={"fields": {"request_id": request_id}})
        return _error(500, "internal error")


def _error(status: int, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(status, error_body(message), headers=headers)


def _path(target: bytes) -> bytes:
    """The path in a request's target, decoded and without a query."""
    try:
        path: bytes | None = httptools.parse_url(target).path
    except httptools.HttpParserInvalidURLError:
        return target
    return unquote_to_bytes(path) if path else b"/"
