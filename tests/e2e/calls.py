"""Single calls of a ModelDeployment's clients: which rows went in and which ids came out, or who answered.

Through the API server, or from the pod of the traffic where headers matter.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from demo.models import split
from tests.e2e.deployments import ModelDeployment
from tests.e2e.traffic import Traffic

_ROUTER_PORT = 80
_SERVER_PORT = 8080
# Runs in the traffic's pod: asks so many times, and says who answered.
_ASK = """
import collections, json, ssl, sys, urllib.request
url, body, headers, times, trusted = sys.argv[1:6]
context = ssl.create_default_context(cadata=trusted) if trusted else None
found = collections.Counter()
for _ in range(int(times)):
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json", **json.loads(headers)})
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        found[answer.headers["x-serin-revision"]] += 1
print(json.dumps(found))
"""


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


def ask(
    mdep: ModelDeployment, traffic: Traffic, times: int = 10, trusted: str = "", base: str = "", **headers: str
) -> Counter[str]:
    """Who answers so many requests of a client, or of one that trusts a certificate, or calls another base URL."""
    row = split()[1].rows[0].tolist()
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}]})
    base = base or f"{'https' if trusted else 'http'}://{mdep.name}"
    url = f"{base}/v2/models/{mdep.name}/infer"
    sent = json.dumps({name.replace("_", "-"): value for name, value in headers.items()})
    place = ("-n", mdep.namespace, traffic.pod, "--")
    said = mdep.cluster.kubectl("exec", *place, "python", "-c", _ASK, url, body, sent, str(times), trusted)
    return Counter(json.loads(said))


def counted(mdep: ModelDeployment, revision: str, attempt: str) -> float:
    """Requests that a revision's pods have counted under `attempt`."""
    total = 0.0
    for pod in mdep.server_pods(revision):
        path = f"/api/v1/namespaces/{mdep.namespace}/pods/{pod}:8080/proxy/metrics"
        for line in mdep.cluster.kubectl("get", "--raw", path).splitlines():
            if line.startswith("serin_requests_total{") and f'attempt="{attempt}"' in line:
                total += float(line.rpartition(" ")[2])
    return total


def _post(mdep: ModelDeployment, call: str, body: object, pod: str | None) -> Any:
    target = f"services/{mdep.name}:{_ROUTER_PORT}" if pod is None else f"pods/{pod}:{_SERVER_PORT}"
    url = f"/api/v1/namespaces/{mdep.namespace}/{target}/proxy/v2/models/{mdep.name}/{call}"
    return json.loads(mdep.cluster.kubectl("create", "--raw", url, "-f", "-", stdin=json.dumps(body)))
