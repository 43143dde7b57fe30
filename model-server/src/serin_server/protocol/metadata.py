"""The protocol's description of a model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from serin_server.protocol.requests import Signature
from serin_server.protocol.tensors import TensorSpec

# Of the protocol, as the server's metadata names them.
EXTENSIONS = ("binary_tensor_data",)

PREDICT = "predict"
PROBABILITIES = "predict_proba"
DECISION = "decision_function"
TRANSFORM = "transform"
# The methods of a model that are outputs of the same name.
OUTPUTS = (PREDICT, PROBABILITIES, DECISION, TRANSFORM)
PREDICTION_ID = "prediction_id"


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What the protocol tells of a model; `properties` are texts for people."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": list(self.versions),
            "platform": self.platform,
            "inputs": [tensor_json(spec) for spec in self.inputs],
            "outputs": [tensor_json(spec) for spec in self.outputs],
            "properties": dict(self.properties),
        }


def tensor_json(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def input_specs(signature: Signature) -> tuple[TensorSpec, ...]:
    """The tensors that a model takes: its own list, columns by name, or one matrix."""
    if signature.inputs is not None:
        return signature.inputs
    if signature.names is not None:
        return tuple(TensorSpec(name, "FP64", (-1,)) for name in signature.names)
    return (TensorSpec("input", "FP64", (-1, -1 if signature.features is None else signature.features)),)


def output_specs(
    methods: Collection[str], datatype: str, classes: int | None, width: int | None = None
) -> tuple[TensorSpec, ...]:
    """The tensors that a model with these methods answers; `datatype` is that of `predict`.

    `classes` is their number, None for a model that is not a classifier or does not say; `width` the number of values
    that `transform` makes of a row.
    """
    found = []
    if PREDICT in methods:
        found += [TensorSpec(PREDICT, datatype, (-1,)), TensorSpec(PREDICTION_ID, "BYTES", (-1,))]
    if PROBABILITIES in methods and classes is not None:
        found.append(TensorSpec(PROBABILITIES, "FP64", (-1, classes)))
    if DECISION in methods:
        single = classes is None or classes == 2
        found.append(TensorSpec(DECISION, "FP64", (-1,) if single else (-1, -1)))
    if TRANSFORM in methods:
        found.append(TensorSpec(TRANSFORM, "FP64", (-1, -1 if width is None else width)))
    return tuple(found)
