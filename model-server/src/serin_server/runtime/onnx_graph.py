"""Reads ONNX models without running them."""

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from serin_server.failures import FatalError, Reason
from serin_server.runtime.loading import summary

Labels = list[int] | list[str]


def parse(data: bytes) -> ModelProto:
    """The model in the bytes. Raises FatalError for other bytes, and for a model that is not whole in them."""
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as error:
        raise _foreign(summary(error)) from error
    if not model.graph.node:
        raise _foreign("it has no graph")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in _tensors(model)):
        # They would be read from paths that the file names, which no digest covers.
        raise FatalError(
            Reason.NOT_A_MODEL, "the model keeps weights in other files: save it with all of its data in one file"
        )
    return model


def _foreign(why: str) -> FatalError:
    return FatalError(Reason.NOT_A_MODEL, f"the file is not an ONNX model ({why})")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in _subgraphs(attribute):
                yield from _graph_tensors(graph)


def _subgraphs(attribute: AttributeProto) -> Iterator[GraphProto]:
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def class_labels(model: ModelProto) -> Labels | None:
    """The classes that the graph's nodes name, in the model's order; None when none does.

    ai.onnx.ml's classifiers and ZipMap have them as attributes; skl2onnx also writes an initializer that the
    index of the likeliest class is looked up in.
    """
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
                return [int(value) for value in attribute.ints]
            if attribute.name in ("classlabels_strings", "classlabels_int64s") and attribute.strings:
                return [value.decode() for value in attribute.strings]
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "ArrayFeatureExtractor"}
    for tensor in model.graph.initializer:
        if tensor.name in looked_up:
            values = onnx.numpy_helper.to_array(tensor).ravel().tolist()
            return [value.decode() if isinstance(value, bytes) else value for value in values]
    return None
