"""One call of ModelInfer: a message becomes tensors, and tensors become the answer's message."""

import asyncio
import time

from serin_server.grpc_service.calls import Context, metadata_of, request_id_of, trace_of
from serin_server.grpc_service.messages.open_inference_grpc_pb2 import ModelInferRequest
from serin_server.grpc_service.tensors import from_message, to_message
from serin_server.protocol.errors import RequestError
from serin_server.protocol.tensors import InferRequest, InferResponse
from serin_server.serving.inquiry import Inquiry
from serin_server.serving.served import ServedModel

# A client's clock ran before the server's: it may give up a little before the deadline as the server knows it.
_CLOSE_SECONDS = 0.05


async def infer(served: ServedModel, message: ModelInferRequest, context: Context) -> bytes:
    """The encoded ModelInferResponse. Raises RequestError."""
    started = time.perf_counter()
    left = context.time_remaining()
    metadata = metadata_of(context)
    trace = trace_of(metadata)
    caller = _GrpcCaller(message)
    inquiry = Inquiry(
        served,
        caller,
        started=started,
        deadline=None if left is None else started + left,
        retry=metadata.get("x-envoy-attempt-count", "1") not in ("0", "1"),
        request_id=request_id_of(metadata),
        trace_id=None if trace is None else trace.trace_id,
    )
    inquiry.begin()
    try:
        await caller.ended
    except asyncio.CancelledError:
        # gRPC cancels when the client has gone or the deadline has passed: nothing more is computed for it.
        if caller.answer is None and caller.refusal is None:
            _give_up(served, inquiry)
        raise
    if caller.refusal is not None:
        raise RequestError(*caller.refusal)
    assert caller.answer is not None
    return caller.answer


def _give_up(served: ServedModel, inquiry: Inquiry) -> None:
    if inquiry.deadline is not None and inquiry.deadline - time.perf_counter() < _CLOSE_SECONDS:
        served.batcher.drop(inquiry)
        inquiry.expired()
    else:
        inquiry.gone()


class _GrpcCaller:
    """One call, as its inquiry sees it; `ended` is done when there is an answer or a refusal."""

    __slots__ = ("_message", "_raw", "answer", "ended", "refusal")

    def __init__(self, message: ModelInferRequest) -> None:
        self._message: ModelInferRequest | None = message
        self._raw = bool(message.raw_input_contents)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: bytes | None = None
        self.refusal: tuple[int, str] | None = None

    def read(self) -> InferRequest:
        assert self._message is not None
        request = from_message(self._message)
        self._message = None  # not kept while the model computes
        return request

    def answered(self, response: InferResponse) -> None:
        self.answer = to_message(response, self._raw).SerializeToString()
        self._end()

    def refused(self, status: int, message: str) -> None:
        self.refusal = (status, message)
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
