"""The protocol's description of a model."""

from typing import Any

from serin_server.protocol.requests import Signature


def tensors(signature: Signature, datatype: str, classes: int | None, probabilities: bool) -> dict[str, Any]:
    """`inputs` and `outputs` of a model: what it takes, and what it answers in `datatype`; -1 is a free size.

    `classes` is their number, None for a model that is not a classifier or does not say.
    """
    features = -1 if signature.features is None else signature.features
    inputs = [{"name": "input", "datatype": "FP64", "shape": [-1, features]}]
    if signature.names is not None:
        inputs = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in signature.names]
    outputs: list[dict[str, Any]] = [
        {"name": "predict", "datatype": datatype, "shape": [-1]},
        {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
    ]
    if probabilities and classes is not None:
        outputs.append({"name": "predict_proba", "datatype": "FP64", "shape": [-1, classes]})
    return {"inputs": inputs, "outputs": outputs}
