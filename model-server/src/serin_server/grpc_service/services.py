"""The services: inference, labels and health, each call a function from a message to its answer."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from google.protobuf.message import DecodeError

from serin_server import __version__
from serin_server.grpc_service.calls import Context, metadata_of, refuse, request_id_of
from serin_server.grpc_service.inference import infer
from serin_server.grpc_service.messages import health_pb2 as health
from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2
from serin_server.grpc_service.messages import serin_feedback_pb2 as labels
from serin_server.processes.shared import Shared, UnavailableError
from serin_server.protocol.errors import RequestError
from serin_server.protocol.tensors import TensorSpec
from serin_server.serving.served import ServedModel
from serin_server.web.app import Lifecycle

log = logging.getLogger(__name__)

INFERENCE = "inference.GRPCInferenceService"
FEEDBACK = "serin.FeedbackService"
HEALTH = "grpc.health.v1.Health"

Call = Callable[[Any, Context], Awaitable[Any]]


@dataclass(frozen=True)
class Services:
    """Answers every call to the server."""

    served: ServedModel
    shared: Shared
    lifecycle: Lifecycle

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server needs to know of them."""
        services: dict[str, dict[str, tuple[type[Any], Call]]] = {
            INFERENCE: {
                "ServerLive": (v2.ServerLiveRequest, self._live),
                "ServerReady": (v2.ServerReadyRequest, self._ready),
                "ModelReady": (v2.ModelReadyRequest, self._model_ready),
                "ServerMetadata": (v2.ServerMetadataRequest, self._server_metadata),
                "ModelMetadata": (v2.ModelMetadataRequest, self._model_metadata),
                "ModelInfer": (v2.ModelInferRequest, self._infer),
            },
            FEEDBACK: {"Feedback": (labels.FeedbackRequest, self._take_feedback)},
            HEALTH: {"Check": (health.HealthCheckRequest, self._check)},
        }
        return [
            grpc.method_handlers_generic_handler(
                service, {name: self._handler(message, call) for name, (message, call) in calls.items()}
            )
            for service, calls in services.items()
        ]

    def _handler(self, message: type[Any], call: Call) -> grpc.RpcMethodHandler:
        revision = (("x-serin-revision", self.served.revision),)

        async def answer(body: bytes, context: Context) -> bytes:
            context.set_trailing_metadata(revision)  # goes with the answer; sooner would be a message of its own
            try:
                answered = await call(message.FromString(body), context)
                return answered if isinstance(answered, bytes) else answered.SerializeToString()
            except DecodeError:
                refusal = RequestError(400, f"the bytes are no {message.DESCRIPTOR.full_name}")
            except RequestError as error:
                refusal = error
            except Exception:
                log.exception("internal error", extra={"fields": {"request_id": request_id_of(metadata_of(context))}})
                refusal = RequestError(500, "internal error")
            return await refuse(context, refusal.status, refusal.message)

        return grpc.unary_unary_rpc_method_handler(answer)

    # --- inference -----------------------------------------------------------------------------------------

    async def _infer(self, request: v2.ModelInferRequest, context: Context) -> bytes:
        self._find(request.model_name, request.model_version)
        return await infer(self.served, request, context)

    async def _live(self, _request: v2.ServerLiveRequest, _context: Context) -> v2.ServerLiveResponse:
        return v2.ServerLiveResponse(live=True)

    async def _ready(self, _request: v2.ServerReadyRequest, _context: Context) -> v2.ServerReadyResponse:
        return v2.ServerReadyResponse(ready=not self.lifecycle.draining)

    async def _model_ready(self, request: v2.ModelReadyRequest, _context: Context) -> v2.ModelReadyResponse:
        self._find(request.name, request.version)
        return v2.ModelReadyResponse(ready=not self.lifecycle.draining)

    async def _server_metadata(
        self, _request: v2.ServerMetadataRequest, _context: Context
    ) -> v2.ServerMetadataResponse:
        return v2.ServerMetadataResponse(name="serin", version=__version__, extensions=["serin.feedback"])

    async def _model_metadata(self, request: v2.ModelMetadataRequest, _context: Context) -> v2.ModelMetadataResponse:
        self._find(request.name, request.version)
        found = self.served.metadata
        return v2.ModelMetadataResponse(
            name=found.name,
            versions=found.versions,
            platform=found.platform,
            inputs=map(_tensor, found.inputs),
            outputs=map(_tensor, found.outputs),
        )

    def _find(self, name: str, version: str) -> None:
        """Raises RequestError (404) for another model than the one that is served, or another version of it."""
        served = self.served
        if name != served.name:
            raise RequestError(404, f"there is no model {name!r} here; the model is {served.name}")
        if version not in ("", served.version):
            raise RequestError(404, f"there is no version {version!r} of {name} here; it is {served.version}")

    # --- labels --------------------------------------------------------------------------------------------

    async def _take_feedback(self, request: labels.FeedbackRequest, context: Context) -> labels.FeedbackResponse:
        self._find(request.model_name, "")
        items = [
            {"prediction_id": label.prediction_id, "label": _value_of(position, label)}
            for position, label in enumerate(request.labels)
        ]
        try:
            receipt = await self.shared.take_labels(orjson.dumps(items), request_id_of(metadata_of(context)))
        except UnavailableError as error:
            log.warning("no answer for the server as a whole", extra={"fields": {"why": str(error)}})
            raise RequestError(503, str(error)) from None
        return labels.FeedbackResponse(**orjson.loads(receipt))

    # --- health --------------------------------------------------------------------------------------------

    async def _check(self, request: health.HealthCheckRequest, _context: Context) -> health.HealthCheckResponse:
        if request.service not in ("", INFERENCE, FEEDBACK):
            raise RequestError(404, f"there is no service {request.service!r} here")
        status = health.HealthCheckResponse.ServingStatus
        return health.HealthCheckResponse(status=status.NOT_SERVING if self.lifecycle.draining else status.SERVING)


def _tensor(spec: TensorSpec) -> v2.ModelMetadataResponse.TensorMetadata:
    return v2.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _value_of(position: int, label: labels.Label) -> object:
    choice = label.WhichOneof("value")
    if choice is None:
        raise RequestError(400, f"labels[{position}] needs a value")
    return getattr(label, choice)
