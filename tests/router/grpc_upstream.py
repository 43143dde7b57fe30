"""A model server's gRPC port and a client of the router, without messages: bytes go in and bytes come out."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc

INFER = "/inference.GRPCInferenceService/ModelInfer"
FEEDBACK = "/serin.FeedbackService/Feedback"


@dataclass
class GrpcUpstream:
    """Answers every call after `delay` seconds and names itself; `attempts` has one element per call.

    largest: bytes of a message that it takes; -1 for any.
    """

    name: str
    port: int
    status: grpc.StatusCode = grpc.StatusCode.OK
    delay: float = 0.0
    largest: int = -1
    attempts: list[str | None] = field(default_factory=list)
    marks: list[str | None] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    metadata: list[Mapping[str, str | bytes]] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    _server: grpc.aio.Server = field(init=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["GrpcUpstream"]:
        """Serves on loopback until the block ends."""
        server = self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", self.largest)])
        server.add_generic_rpc_handlers((_Handler(self),))
        server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Stop listening and cut every connection, whatever is in flight."""
        await self._server.stop(None)

    async def answer(self, method: str, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        self.attempts.append(metadata.get("x-envoy-attempt-count"))
        self.marks.append(metadata.get("x-serin-tester"))
        self.methods.append(method)
        self.metadata.append(metadata)
        self.messages.append(message)
        await asyncio.sleep(self.delay)
        if self.status is not grpc.StatusCode.OK:
            await context.abort(self.status, f"{self.name} says so")
        return self.name.encode()


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, upstream: GrpcUpstream) -> None:
        self._upstream = upstream

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method

        async def answer(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await self._upstream.answer(method, message, context)

        return grpc.unary_unary_rpc_method_handler(answer)


async def call(
    channel: grpc.aio.Channel, method: str = INFER, body: bytes = b"{}", **metadata: str
) -> tuple[grpc.StatusCode, str]:
    """One call: its status, and who answered."""
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    try:
        answer: bytes = await channel.unary_unary(method)(body, metadata=pairs, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code(), (error.details() or "").partition(" ")[0]
    return grpc.StatusCode.OK, answer.decode()
