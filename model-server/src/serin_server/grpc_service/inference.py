"""One call of ModelInfer: a message becomes tensors, and tensors become the answer's message."""

import asyncio
import time

from serin_server.grpc_service.calls import Call, Context
from serin_server.grpc_service.messages.open_inference_grpc_pb2 import ModelInferRequest
from serin_server.grpc_service.tensors import from_message, to_message
from serin_server.protocol.errors import RequestError
from serin_server.protocol.tensors import InferRequest, InferResponse
from serin_server.serving.inquiry import CLIENT_GONE, Inquiry
from serin_server.serving.served import ServedModel

# A client's clock ran before the server's: it may give up a little before the deadline as the server knows it.
_CLOSE_SECONDS = 0.05


async def infer(served: ServedModel, message: ModelInferRequest, context: Context, call: Call) -> bytes:
    """The encoded ModelInferResponse. Raises RequestError."""
    left = context.time_remaining()
    caller = _GrpcCaller(message, call.refused_upload)
    inquiry = call.inquiry = Inquiry(
        served,
        caller,
        started=call.begun,
        deadline=None if left is None else call.begun + left,
        attempt=call.attempt,
        request_id=call.request_id,
        trace_id=None if call.trace is None else call.trace.trace_id,
    )
    inquiry.shared_by = call.shared_by
    inquiry.begin()
    try:
        await caller.ended
    except asyncio.CancelledError:
        # gRPC cancels when the client has gone or the deadline has passed: nothing more is computed for it.
        if caller.answer is None and caller.refusal is None:
            call.status = _give_up(served, inquiry)
        raise
    if caller.refusal is not None:
        raise RequestError(*caller.refusal)
    assert caller.answer is not None
    return caller.answer


def _give_up(served: ServedModel, inquiry: Inquiry) -> int:
    """Count an inquiry that nobody waits for, under the status that is returned."""
    if inquiry.deadline is not None and inquiry.deadline - time.perf_counter() < _CLOSE_SECONDS:
        served.batcher.drop(inquiry)
        inquiry.expired()
        return 504
    inquiry.gone()
    return CLIENT_GONE


class _GrpcCaller:
    """One call, as its inquiry sees it; `ended` is done when there is an answer or a refusal."""

    __slots__ = ("_message", "_raw", "_refused_upload", "answer", "ended", "refusal")

    def __init__(self, message: ModelInferRequest, refused_upload: bool) -> None:
        self._refused_upload = refused_upload
        self._message: ModelInferRequest | None = message
        self._raw = bool(message.raw_input_contents)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer: bytes | None = None
        self.refusal: tuple[int, str] | None = None

    def read(self) -> InferRequest:
        assert self._message is not None
        if self._refused_upload:
            raise RequestError(503, "the server holds as many bytes of requests as it takes at once; try again")
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
