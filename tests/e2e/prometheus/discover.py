"""Writes the pods of a namespace as targets for Prometheus, by the annotations prometheus.io/{scrape,port,path}.

Debian builds Prometheus without its Kubernetes discovery. This does the same with the standard library alone, in a
container beside it: `python discover.py NAMESPACE FILE`.
"""

import json
import os
import ssl
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_EVERY_SECONDS = 1
_ANNOTATION = "prometheus.io/"


def targets(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prometheus' target groups for pods that have an address and ask to be scraped."""
    groups = []
    for pod in pods:
        annotations = pod["metadata"].get("annotations", {})
        address = pod.get("status", {}).get("podIP")
        if annotations.get(f"{_ANNOTATION}scrape") != "true" or not address:
            continue
        labels = {
            "__metrics_path__": annotations.get(f"{_ANNOTATION}path", "/metrics"),
            "namespace": pod["metadata"]["namespace"],
            "pod": pod["metadata"]["name"],
        }
        groups.append({"targets": [f"{address}:{annotations[f'{_ANNOTATION}port']}"], "labels": labels})
    return groups


def _pods(namespace: str, context: ssl.SSLContext) -> list[dict[str, Any]]:
    host = f"{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
    token = (_ACCOUNT / "token").read_text()
    request = urllib.request.Request(
        f"https://{host}/api/v1/namespaces/{namespace}/pods", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=10, context=context) as response:
        items: list[dict[str, Any]] = json.load(response)["items"]
    return items


def main() -> None:
    """Run for ever. An error ends it, and the kubelet starts it again."""
    namespace, file = sys.argv[1], Path(sys.argv[2])
    context = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    written = ""
    while True:
        text = json.dumps(targets(_pods(namespace, context)))
        if text != written:
            unfinished = file.with_suffix(".partial")
            unfinished.write_text(text)
            unfinished.rename(file)
            written = text
        time.sleep(_EVERY_SECONDS)


if __name__ == "__main__":
    main()
