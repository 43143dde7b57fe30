"""ONNX models in scikit-learn's conventions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from serin_server.failures import FatalError, Reason
from serin_server.protocol.datatypes import Array, datatype_name
from serin_server.protocol.requests import Signature
from serin_server.protocol.rows import Columns, Rows
from serin_server.protocol.tensors import TensorSpec
from serin_server.runtime.onnx_graph import Labels, class_labels, parse
from serin_server.runtime.sessions import Session

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64,
    "tensor(uint32)": np.uint32,
    "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_LABELS = ("tensor(int64)", "tensor(int32)", "tensor(string)", "tensor(bool)")
_MAPS = "seq(map("


@dataclass(frozen=True)
class Port:
    """An input or output: ONNX's type, and its sizes, None where a size is free."""

    name: str
    type: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Layout:
    """Which tensors of a graph are what: `label` and `scores` for a classifier, `value` for all others."""

    inputs: tuple[Port, ...]
    label: Port | None
    scores: Port | None
    value: Port | None
    classes: Labels | None


def load_onnx(data: bytes) -> "OnnxModel":
    """Return the model. Raises FatalError; so may its `open_session`, which has ONNX Runtime read the graph."""
    model = parse(data)
    return OnnxModel(Session(data), graph_layout(model))


def graph_layout(model: Any) -> Layout:
    """The layout of a parsed ONNX model. Raises FatalError."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return layout(
        tuple(_port(value) for value in model.graph.input if value.name not in stored),
        tuple(_port(value) for value in model.graph.output),
        class_labels(model),
    )


def _port(value: Any) -> Port:
    kind = value.type
    if not kind.HasField("tensor_type"):
        return Port(value.name, _MAPS if kind.HasField("sequence_type") else "other", ())
    name = TensorProto.DataType.Name(kind.tensor_type.elem_type).lower()
    sizes = kind.tensor_type.shape.dim
    return Port(
        value.name,
        f"tensor({name})",
        tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes),
    )


def layout(inputs: tuple[Port, ...], outputs: tuple[Port, ...], labels: Labels | None) -> Layout:
    """Tell a classifier from other models, by the types of its outputs. Raises FatalError.

    A classifier has an output of labels, and may have one of scores beside it. Otherwise the first output is the value.
    """
    for port in inputs:
        if port.type not in _DTYPES or not port.shape:
            raise FatalError(
                Reason.NOT_A_MODEL,
                f"the model's input {port.name} is a {port.type} of {len(port.shape)} dimensions: "
                "tensors of one or more dimensions are served, rows first",
            )
    if not inputs or not outputs:
        raise FatalError(Reason.NOT_A_MODEL, "the model has no inputs or no outputs")
    label = next((port for port in outputs if port.type in _LABELS and len(port.shape) == 1), None)
    if label is None:
        if outputs[0].type not in _DTYPES:
            raise FatalError(Reason.NOT_A_MODEL, f"the model's output {outputs[0].name} is a {outputs[0].type}")
        return Layout(inputs, None, None, outputs[0], None)
    scores = next((port for port in outputs if port is not label and _is_scores(port)), None)
    if labels is None and scores is not None and label.type == "tensor(int64)":
        width = scores.shape[1] if len(scores.shape) == 2 else None
        labels = None if width is None else list(range(width))
    return Layout(inputs, label, scores, None, labels)


def _is_scores(port: Port) -> bool:
    return port.type.startswith(_MAPS) or (port.type in ("tensor(float)", "tensor(double)") and len(port.shape) == 2)


def signature(inputs: tuple[Port, ...]) -> Signature:
    """What a graph takes: its one input, or several by name, each with its own datatype and shape."""
    specs = tuple(
        TensorSpec(
            port.name,
            datatype_name(np.empty(0, _DTYPES[port.type])),
            (-1, *(-1 if size is None else size for size in port.shape[1:])),
        )
        for port in inputs
    )
    if len(specs) > 1:
        single = all(len(spec.shape) == 1 or spec.shape[1:] == (1,) for spec in specs)
        return Signature(len(specs) if single else None, tuple(spec.name for spec in specs), specs, by_name=True)
    shape = inputs[0].shape
    if len(shape) == 1:
        return Signature(1, None, specs)
    return Signature(shape[1] if len(shape) == 2 else None, None, specs)


class OnnxModel:
    """An ONNX graph with `predict`, and `predict_proba` when it is a classifier that gives probabilities."""

    takes_columns = True

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self.open_session = session.open
        self._layout = layout
        self.signature = signature(layout.inputs)
        # A graph for a fixed number of rows takes no others.
        self.serin_batches = all(port.shape[0] is None for port in layout.inputs)
        if layout.classes is not None:
            self.classes_ = np.array(layout.classes)
        if layout.scores is not None:
            self.predict_proba = self._predict_proba

    def predict(self, rows: Rows) -> Array:
        """Labels [rows], or values [rows] or [rows, k]."""
        port = self._layout.label or self._layout.value
        assert port is not None
        return np.asarray(self._session.run([port.name], self._feeds(rows))[0])

    def predict_with_probabilities(self, rows: Rows) -> tuple[Array, Array]:
        """Labels [rows] and probabilities [rows, classes], from one run of the graph."""
        label, scores = self._layout.label, self._layout.scores
        assert label is not None and scores is not None
        labels, found = self._session.run([label.name, scores.name], self._feeds(rows))
        return np.asarray(labels), self._probabilities(found)

    def _predict_proba(self, rows: Rows) -> Array:
        return self.predict_with_probabilities(rows)[1]

    def _probabilities(self, found: Any) -> Array:
        if isinstance(found, list):  # one map a row, from a ZipMap
            classes = self._layout.classes
            return np.array([[row[label] for label in classes or sorted(row)] for row in found])
        return np.asarray(found)

    def _feeds(self, rows: Rows) -> dict[str, Array]:
        inputs = self._layout.inputs
        if isinstance(rows, Columns):
            found = rows.arrays
        elif len(inputs) == 1:
            found = {inputs[0].name: rows}
        else:
            found = {port.name: rows[:, index] for index, port in enumerate(inputs)}
        return {port.name: _fed(found[port.name], port) for port in inputs}


def _fed(array: Array, port: Port) -> Array:
    """The array as the graph's input takes it: a column may be [rows] or [rows, 1]."""
    if len(port.shape) == 1:
        array = array.reshape(-1)
    elif array.ndim == 1:
        array = array.reshape(-1, 1)
    return np.ascontiguousarray(array, dtype=_DTYPES[port.type])
