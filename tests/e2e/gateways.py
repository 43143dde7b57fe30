"""A Gateway for the tests: Contour and the Envoy of the router's image, in one pod, with the definitions they need.

The cluster needs no image for it: the program is copied into the running pod.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from demo.environment import Cluster, image, install_serin
from tests.cluster import routers
from tests.e2e.cluster import Manifest, environment, try_kubectl
from tests.e2e.installed import Operator

NAME = "gateway"
PORT = 8080  # what Envoy listens on for the Gateway's port 80: Contour adds 8000 to privileged ones
_CONTROLLER = "projectcontour.io/gateway-controller"
_LABELS = {"app.kubernetes.io/name": NAME}
_MARK = {"serin.dev/e2e": NAME}
_HTTP_ROUTES = "httproutes.gateway.networking.k8s.io"
_WAIT = "until [ -e {0} ]; do sleep 0.2; done; "


def definitions() -> list[Manifest]:
    """Those of the Gateway API and of Contour's own kinds, marked as the tests'."""
    found = [
        document
        for name in ("gateway.yaml", "contour.yaml")
        for document in yaml.safe_load_all((routers.contour() / name).read_text())
        if document and document["kind"] == "CustomResourceDefinition"
    ]
    for document in found:
        document["metadata"].setdefault("labels", {}).update(_MARK)
    return found


def are_of_others(cluster: Cluster) -> bool:
    """Whether the cluster has the Gateway API from somebody else, which no test may take away."""
    there = cluster.kubectl("get", "crd", "-o", "name", f"--field-selector=metadata.name={_HTTP_ROUTES}")
    ours = cluster.kubectl("get", "crd", "-o", "name", "-l", "serin.dev/e2e=gateway")
    return _HTTP_ROUTES in there and _HTTP_ROUTES not in ours


def remove_definitions(cluster: Cluster) -> None:
    """Every definition that `definitions` gave, and with it all objects of its kind."""
    cluster.kubectl("delete", "crd", "-l", "serin.dev/e2e=gateway", "--timeout=60s", timeout=90)


def install_definitions(cluster: Cluster) -> None:
    """They are large: each by itself."""
    for document in definitions():
        cluster.apply([document])


@contextmanager
def enabled(cluster: Cluster, operator: Operator) -> Iterator[Operator]:
    """Serin with the right to use the Gateway API, in a cluster that does not have it."""
    assert not are_of_others(cluster), "this cluster has the Gateway API already, and the test would remove it"
    remove_definitions(cluster)
    install_serin(cluster, switches=["routers.gatewayAPI.enabled"])
    operator.wait_ready()
    yield operator
    remove_definitions(cluster)
    install_serin(cluster)
    operator.wait_ready()


@contextmanager
def running(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A Gateway that takes routes of all namespaces. Gives the URL of it; needs the definitions."""
    cluster.apply(_manifests(namespace))
    try:
        cluster.kubectl(
            "wait", "-n", namespace, f"pod/{NAME}", "--for=jsonpath={.status.phase}=Running", "--timeout=90s"
        )
        _copy(cluster, namespace, routers.contour() / "contour")
        cluster.kubectl("wait", "-n", namespace, f"pod/{NAME}", "--for=condition=Ready", "--timeout=90s")
        yield f"http://{NAME}.{namespace}"
    except BaseException:
        print(try_kubectl(cluster, "logs", "-n", namespace, NAME, "--all-containers", "--tail=30"))
        raise
    finally:
        cluster.kubectl("delete", "clusterrolebinding", f"{NAME}-{namespace}", "--ignore-not-found")
        cluster.kubectl("delete", "pod", NAME, "-n", namespace, "--wait=false", "--ignore-not-found")


def _copy(cluster: Cluster, namespace: str, program: Path) -> None:
    command = f"cat > /work/part && chmod 0755 /work/part && mv /work/part /work/{program.name}"
    deadline = time.monotonic() + 120
    with program.open("rb") as data:
        done = subprocess.run(
            ["kubectl", "exec", "-i", "-n", namespace, NAME, "-c", "contour", "--", "sh", "-c", command],
            stdin=data,
            env=environment(cluster),
            capture_output=True,
            timeout=deadline - time.monotonic(),
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()


def _manifests(namespace: str) -> list[Manifest]:
    metadata: dict[str, Any] = {"name": NAME, "namespace": namespace}
    config = yaml.safe_dump({"gateway": {"gatewayRef": {"namespace": namespace, "name": NAME}}})
    serve = [
        *("/work/contour", "serve", "--incluster", "--insecure", "--disable-leader-election"),
        *("--xds-address=127.0.0.1", "--xds-port=8001", "--config-path=/config/contour.yaml"),
    ]
    bootstrap = [
        *("/work/contour", "bootstrap", "/work/envoy.json", "--admin-address=/work/admin.sock"),
        *("--xds-address=127.0.0.1", "--xds-port=8001"),
    ]
    envoy = "/usr/local/bin/envoy -c /work/envoy.json --service-cluster gateway --service-node gateway --concurrency 2"
    work = {"name": "work", "mountPath": "/work"}
    containers: list[dict[str, Any]] = [
        {
            "name": "contour",
            "command": ["sh", "-c", _WAIT.format("/work/contour") + f"{' '.join(bootstrap)} && exec {' '.join(serve)}"],
            "volumeMounts": [work, {"name": "config", "mountPath": "/config"}],
        },
        {
            "name": "envoy",
            "command": ["sh", "-c", _WAIT.format("/work/envoy.json") + f"exec {envoy}"],
            "volumeMounts": [work],
            "ports": [{"name": "http", "containerPort": PORT}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8002}, "periodSeconds": 1},
        },
    ]
    pod = {
        "serviceAccountName": NAME,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
        "containers": [{"image": image("router"), "imagePullPolicy": "IfNotPresent", **one} for one in containers],
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "config", "configMap": {"name": NAME}}],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"{NAME}-{namespace}"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {"contour.yaml": config},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "labels": _LABELS}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": _LABELS, "ports": [{"port": 80, "targetPort": PORT}]},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": NAME},
            "spec": {"controllerName": _CONTROLLER},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": metadata,
            "spec": {
                "gatewayClassName": NAME,
                "listeners": [
                    {
                        "name": "http",
                        "port": 80,
                        "protocol": "HTTP",
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            },
        },
    ]
