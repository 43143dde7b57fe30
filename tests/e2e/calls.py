"""Single calls of a ModelDeployment's clients, through the API server: which rows went in and which ids came out."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e.deployments import ModelDeployment

_ROUTER_PORT = 80
_SERVER_PORT = 8080


def predict(mdep: ModelDeployment, rows: Sequence[Sequence[float]], pod: str | None = None) -> dict[str, list[Any]]:
    """Send rows in one request to the router, or past it to a pod. Returns the data of each output."""
    matrix = {"name": "x", "shape": [len(rows), len(rows[0])], "datatype": "FP64", "data": rows}
    answer = _post(mdep, "infer", {"inputs": [matrix]}, pod)
    return {output["name"]: output["data"] for output in answer["outputs"]}


def label(mdep: ModelDeployment, labels: Mapping[str, object], pod: str | None = None) -> dict[str, Any]:
    """Send labels by prediction id to the router, or past it to a pod. Returns the receipt."""
    items = [{"prediction_id": key, "label": value} for key, value in labels.items()]
    receipt: dict[str, Any] = _post(mdep, "feedback", items, pod)
    return receipt


def _post(mdep: ModelDeployment, call: str, body: object, pod: str | None) -> Any:
    target = f"services/{mdep.name}:{_ROUTER_PORT}" if pod is None else f"pods/{pod}:{_SERVER_PORT}"
    url = f"/api/v1/namespaces/{mdep.namespace}/{target}/proxy/v2/models/{mdep.name}/{call}"
    return json.loads(mdep.cluster.kubectl("create", "--raw", url, "-f", "-", stdin=json.dumps(body)))
