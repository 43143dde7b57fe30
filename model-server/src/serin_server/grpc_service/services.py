"""The services: inference, labels and health, each call a function from a message to its answer."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import orjson
from google.protobuf.message import DecodeError

from serin_server import __version__
from serin_server.grpc_service.calls import Call, Context, refuse
from serin_server.grpc_service.health import Health
from serin_server.grpc_service.inference import infer
from serin_server.grpc_service.messages import health_pb2 as health
from serin_server.grpc_service.messages import open_inference_grpc_pb2 as v2
from serin_server.grpc_service.messages import serin_feedback_pb2 as labels
from serin_server.grpc_service.wire import check_fields
from serin_server.monitor.activity import Refused
from serin_server.processes.shared import Shared, UnavailableError
from serin_server.protocol.errors import RequestError
from serin_server.protocol.feedback import MAX_LABELS
from serin_server.protocol.tensors import TensorSpec
from serin_server.serving.served import ServedModel
from serin_server.web.access_log import AccessLog
from serin_server.web.app import Lifecycle
from serin_server.web.limits import Limits

log = logging.getLogger(__name__)

INFERENCE = "inference.GRPCInferenceService"
FEEDBACK = "serin.FeedbackService"
HEALTH = "grpc.health.v1.Health"

# As HTTP's answers: below it, the headers of gzip eat what it saves.
_COMPRESSED_FROM_BYTES = 1000

Function = Callable[[Any, Context, Call], Awaitable[Any]]


class Uploads(Protocol):
    """What all transports of a process hold of their clients' bodies, and may hold, in bytes."""

    held: int
    limits: Limits


@dataclass(frozen=True)
class Services:
    """Answers every call to the server."""

    served: ServedModel
    shared: Shared
    lifecycle: Lifecycle
    uploads: Uploads
    access_log: AccessLog
    state: Health = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", Health(self.lifecycle, (INFERENCE, FEEDBACK)))

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server needs to know of them."""
        services: dict[str, dict[str, tuple[type[Any], Function]]] = {
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
        handlers = {
            service: {name: self._handler(f"/{service}/{name}", *call) for name, call in calls.items()}
            for service, calls in services.items()
        }
        handlers[HEALTH]["Watch"] = grpc.unary_stream_rpc_method_handler(self._watch)
        return [grpc.method_handlers_generic_handler(service, calls) for service, calls in handlers.items()]

    def _handler(self, path: str, message: type[Any], function: Function) -> grpc.RpcMethodHandler:
        revision = (("x-serin-revision", self.served.revision),)
        target = path.encode()

        async def answer(body: bytes, context: Context) -> bytes:
            call = Call(target, body, context)
            context.set_trailing_metadata(revision)  # goes with the answer; sooner would be a message of its own
            answered, refusal = b"", None
            held = self._hold(call)
            try:
                check_fields(body)
                found = await function(message.FromString(body), context, call)
                answered = found if isinstance(found, bytes) else found.SerializeToString()
                call.status = 200
                if len(answered) > _COMPRESSED_FROM_BYTES and call.wants_gzip:
                    context.set_compression(grpc.Compression.Gzip)
                    await context.send_initial_metadata(())  # which tells; with the answer it would come too late
                return answered
            except DecodeError:
                refusal = RequestError(400, f"the bytes are no {message.DESCRIPTOR.full_name}")
            except RequestError as error:
                refusal = error
            except Exception:
                log.exception("internal error", extra={"fields": {"request_id": call.request_id}})
                refusal = RequestError(500, "internal error")
            finally:
                self.uploads.held -= held
                if refusal is not None:
                    call.status = refusal.status
                self.access_log.answered(call, call.status, len(answered))
            return await refuse(context, refusal.status, refusal.message)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _hold(self, call: Call) -> int:
        """The bytes that a call adds to what is held; of none that is more than may be: it is refused."""
        uploads = self.uploads
        if uploads.held + call.size > uploads.limits.upload_bytes:
            self.served.metrics.activity.refused(Refused.UPLOADS)
            call.refused_upload = True
            return 0
        uploads.held += call.size
        return call.size

    # --- inference -----------------------------------------------------------------------------------------

    async def _infer(self, request: v2.ModelInferRequest, context: Context, call: Call) -> bytes:
        self._find(request.model_name, request.model_version)
        return await infer(self.served, request, context, call)

    async def _live(self, _request: v2.ServerLiveRequest, _context: Context, _call: Call) -> v2.ServerLiveResponse:
        return v2.ServerLiveResponse(live=True)

    async def _ready(self, _request: v2.ServerReadyRequest, _context: Context, _call: Call) -> v2.ServerReadyResponse:
        return v2.ServerReadyResponse(ready=not self.lifecycle.draining)

    async def _model_ready(
        self, request: v2.ModelReadyRequest, _context: Context, _call: Call
    ) -> v2.ModelReadyResponse:
        self._find(request.name, request.version)
        return v2.ModelReadyResponse(ready=not self.lifecycle.draining)

    async def _server_metadata(
        self, _request: v2.ServerMetadataRequest, _context: Context, _call: Call
    ) -> v2.ServerMetadataResponse:
        return v2.ServerMetadataResponse(name="serin", version=__version__, extensions=["serin.feedback"])

    async def _model_metadata(
        self, request: v2.ModelMetadataRequest, _context: Context, _call: Call
    ) -> v2.ModelMetadataResponse:
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

    async def _take_feedback(
        self, request: labels.FeedbackRequest, _context: Context, call: Call
    ) -> labels.FeedbackResponse:
        self._find(request.model_name, "")
        if len(request.labels) > MAX_LABELS:
            raise RequestError(
                400, f"one request takes at most {MAX_LABELS} labels, this one has {len(request.labels)}"
            )
        items = [
            {"prediction_id": label.prediction_id, "label": _value_of(position, label)}
            for position, label in enumerate(request.labels)
        ]
        try:
            receipt = await self.shared.take_labels(orjson.dumps(items), call.request_id)
        except UnavailableError as error:
            log.warning("no answer for the server as a whole", extra={"fields": {"why": str(error)}})
            raise RequestError(503, str(error)) from None
        return labels.FeedbackResponse(**orjson.loads(receipt))

    # --- health --------------------------------------------------------------------------------------------

    async def _check(
        self, request: health.HealthCheckRequest, _context: Context, _call: Call
    ) -> health.HealthCheckResponse:
        return self.state.check(request.service)

    async def _watch(self, body: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            async for state in self.state.watch(health.HealthCheckRequest.FromString(body).service):
                yield state.SerializeToString()
        except DecodeError:
            await refuse(context, 400, "the bytes are no grpc.health.v1.HealthCheckRequest")
        except RequestError as error:
            await refuse(context, error.status, error.message)


def _tensor(spec: TensorSpec) -> v2.ModelMetadataResponse.TensorMetadata:
    return v2.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _value_of(position: int, label: labels.Label) -> object:
    choice = label.WhichOneof("value")
    if choice is None:
        raise RequestError(400, f"labels[{position}] needs a value")
    return getattr(label, choice)
