"""One inference as all transports see it: named tensors in, named tensors out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serin_server.protocol.datatypes import Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """`array` has the tensor's shape and, except for BYTES, the dtype of `datatype` (a V2 name).

    BYTES are an object array of str, or of bytes where these are not UTF-8.
    """

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of a model, as its metadata lists it; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is one."""
        return len(shape) == len(self.shape) and all(
            own in (-1, size) for own, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the client asks for; the parameter `binary_data` says how it wants to have it."""

    name: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class InferRequest:
    """`outputs` is None when the request leaves the choice to the server."""

    id: str | None
    parameters: Mapping[str, object]
    inputs: Sequence[Tensor]
    outputs: Sequence[RequestedOutput] | None


@dataclass(frozen=True, slots=True)
class InferResponse:
    """The answer to one request; `id` is the request's own."""

    model_name: str
    model_version: str
    id: str | None
    outputs: Sequence[Tensor]
