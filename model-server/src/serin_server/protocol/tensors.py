"""One inference as all transports see it: named tensors in, named tensors out.

Named tuples, because frozen dataclasses take twice as long to make, and each request makes several.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serin_server.protocol.datatypes import Array


class Tensor(NamedTuple):
    """`array` has the tensor's shape and, except for BYTES, the dtype of `datatype` (a V2 name).

    BYTES are an object array of str, or of bytes where these are not UTF-8.
    """

    name: str
    datatype: str
    array: Array


class TensorSpec(NamedTuple):
    """A tensor of a model, as its metadata lists it; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape is one."""
        return len(shape) == len(self.shape) and all(
            own in (-1, size) for own, size in zip(self.shape, shape, strict=True)
        )


class RequestedOutput(NamedTuple):
    """An output that the client asks for; the parameter `binary_data` says how it wants to have it."""

    name: str
    parameters: Mapping[str, object]


class InferRequest(NamedTuple):
    """`outputs` is None when the request leaves the choice to the server."""

    id: str | None
    parameters: Mapping[str, object]
    inputs: Sequence[Tensor]
    outputs: Sequence[RequestedOutput] | None


class InferResponse(NamedTuple):
    """The answer to one request; `id` is the request's own."""

    model_name: str
    model_version: str
    id: str | None
    outputs: Sequence[Tensor]
