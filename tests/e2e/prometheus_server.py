"""A Prometheus server that finds pods by the usual annotations, as a cluster's own would."""

from pathlib import Path
from typing import Any

import yaml
from demo.environment import Cluster, image
from tests.e2e.cluster import Manifest

NAME = "prometheus"
_PORT = 9090
_USER = 65532
_CONFIG = "/etc/prometheus"
_TARGETS = "/targets/pods.json"
_DISCOVER = Path(__file__).parent / "prometheus" / "discover.py"


def address(namespace: str) -> str:
    """For spec.analysis.prometheus.address."""
    return f"http://{NAME}.{namespace}:{_PORT}"


def install(cluster: Cluster, namespace: str) -> str:
    """Its address, once it is ready."""
    cluster.apply(manifests(namespace))
    scale(cluster, namespace, 1)
    return address(namespace)


def scale(cluster: Cluster, namespace: str, replicas: int) -> None:
    """End it, with all that it has counted, or start it again; returns when that is done."""
    deployment = f"deployment/{NAME}"
    cluster.kubectl("scale", "-n", namespace, deployment, f"--replicas={replicas}")
    cluster.kubectl("rollout", "status", "-n", namespace, deployment, "--timeout=60s")


def manifests(namespace: str) -> list[Manifest]:
    """The server with what it needs, watching the pods of its own namespace."""
    metadata = {"name": NAME, "namespace": namespace}
    labels = {"app.kubernetes.io/name": NAME}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"prometheus.yml": yaml.safe_dump(_configuration()), "discover.py": _DISCOVER.read_text()},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**metadata, "labels": labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _pod(namespace)},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": _PORT, "targetPort": "http"}]},
        },
    ]


def _configuration() -> dict[str, Any]:
    job = {"job_name": "pods", "file_sd_configs": [{"files": [_TARGETS]}]}
    return {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": [job]}


def _pod(namespace: str) -> dict[str, Any]:
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = [
        {"name": "config", "mountPath": _CONFIG},
        {"name": "data", "mountPath": "/data"},
        {"name": "targets", "mountPath": str(Path(_TARGETS).parent)},
    ]
    server = {
        "name": NAME,
        "image": image(NAME),
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--config.file={_CONFIG}/prometheus.yml", "--storage.tsdb.path=/data"],
        "ports": [{"name": "http", "containerPort": _PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": "http"}, "periodSeconds": 1},
        "securityContext": security,
        "volumeMounts": mounts,
    }
    discovery = {
        "name": "discovery",
        "image": image("demo"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", f"{_CONFIG}/discover.py", namespace, _TARGETS],
        "securityContext": security,
        "volumeMounts": mounts,
    }
    return {
        "serviceAccountName": NAME,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [server, discovery],
        "volumes": [
            {"name": "config", "configMap": {"name": NAME}},
            {"name": "data", "emptyDir": {}},
            {"name": "targets", "emptyDir": {}},
        ],
    }
