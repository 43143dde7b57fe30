"""The demo's Kubernetes objects as plain values: a model store, the traffic pod, the ModelDeployment."""

import base64
import json
from collections.abc import Mapping, Sequence

from demo.environment import Manifest, image
from demo.models import Digits

# In full: on a shared cluster, another definition may have the same short name.
KIND = "modeldeployments.serin.dev"
STORE = "model-store"
TRAFFIC = "traffic"
TRAFFIC_PORT = 8081
_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def namespace(name: str) -> Manifest:
    """A namespace under the strictest pod security standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def model_uri(name: str) -> str:
    """Where the store serves a model to pods of its namespace."""
    return f"http://{STORE}/{name}.joblib"


def model_store(files: Mapping[str, bytes], namespace: str) -> list[Manifest]:
    """A small HTTP server with these files, by name: one ConfigMap each, a Deployment, a Service."""
    maps = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"model-{name}", "namespace": namespace},
            "binaryData": {name: base64.b64encode(data).decode()},
        }
        for name, data in files.items()
    ]
    labels = {"app.kubernetes.io/name": STORE}
    server = {
        "name": "http",
        "image": image("demo"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "http.server", "8080", "--directory", "/models"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "securityContext": CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
    }
    sources = [{"configMap": {"name": f"model-{name}"}} for name in files]
    pod = {
        "securityContext": _POD_SECURITY,
        "automountServiceAccountToken": False,
        # http.server is process 1 and has no handler for SIGTERM, so waiting for it would be in vain.
        "terminationGracePeriodSeconds": 0,
        "containers": [server],
        "volumes": [{"name": "models", "projected": {"sources": sources}}],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": STORE, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": STORE, "namespace": namespace, "labels": labels},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    return [*maps, deployment, service]


def traffic(
    mdep: str,
    rows: Digits,
    namespace: str,
    *,
    rps: float,
    name: str = TRAFFIC,
    options: Sequence[str] = (),
) -> list[Manifest]:
    """A pod that sends these rows to a ModelDeployment; `options` are further arguments of demo.traffic."""
    examples = [
        {"row": row, "label": label} for row, label in zip(rows.rows.tolist(), rows.labels.tolist(), strict=True)
    ]
    data = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"rows.json": json.dumps(examples, separators=(",", ":"))},
    }
    arguments = [f"--url=http://{mdep}", f"--model={mdep}", "--rows=/rows/rows.json", f"--rps={rps:g}"]
    driver = {
        "name": "traffic",
        "image": image("demo"),
        "imagePullPolicy": "IfNotPresent",
        "args": [*arguments, f"--port={TRAFFIC_PORT}", *options],
        "ports": [{"name": "control", "containerPort": TRAFFIC_PORT}],
        "readinessProbe": {"httpGet": {"path": "/stats", "port": "control"}, "periodSeconds": 1},
        "securityContext": CONTAINER_SECURITY,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "rows", "mountPath": "/rows", "readOnly": True}],
    }
    return [data, client_pod(name, namespace, driver, {"name": "rows", "configMap": {"name": name}})]


def client_pod(name: str, namespace: str, container: Manifest, volume: Manifest) -> Manifest:
    """A pod that calls a ModelDeployment until it is deleted."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": name}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": _POD_SECURITY,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [volume],
        },
    }


def model_deployment(name: str, model: str, namespace: str) -> Manifest:
    """The demo's ModelDeployment, serving one of the store's models. Quick steps: the demo has much traffic."""
    return {
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"uri": model_uri(model), "version": model},
            "traffic": {"timeout": "10s"},
            "rollout": {
                "steps": [
                    {"weight": 10, "duration": "5s"},
                    {"weight": 25, "duration": "5s"},
                    {"weight": 50, "duration": "5s"},
                ],
                "keepPrevious": "1m",
                "watch": "1m",
            },
            "analysis": {
                "interval": "2s",
                "metrics": [
                    {"name": "errors", "margin": 0.01},
                    {"name": "latency", "margin": 0.05, "slowerThan": "250ms"},
                    {"name": "accuracy", "margin": 0.02},
                ],
            },
        },
    }
