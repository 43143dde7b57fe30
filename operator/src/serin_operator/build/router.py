"""The embedded router: an Envoy Deployment, its ConfigMap, and the Service that clients use."""

import hashlib
import json
import math
from typing import Any

from serin_operator.api.spec import Spec, Traffic
from serin_operator.api.status import Status
from serin_operator.build import envoy, listeners
from serin_operator.build.owner import PORT, ROUTER, Images, Manifest, Owner, client_service
from serin_operator.build.pods import container_security, one_at_a_time, pod_basics
from serin_operator.decide.roles import candidate_of, route_of, running

# Routers run apart from each other where they can, so that the loss of a node or a zone loses one of them.
_APART = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")


def write(owner: Owner, spec: Spec, status: Status, images: Images) -> list[Manifest]:
    """The files with the route first, then the routers that serve it."""
    files = config_map(owner, status, spec.traffic)
    budget = [disruption_budget(owner)] if spec.traffic.router_replicas > 1 else []
    return [*([files] if files else []), deployment(owner, spec.traffic, images), *budget]


def entry(owner: Owner, spec: Spec, status: Status) -> Manifest:
    """What clients call: the ModelDeployment's own name, port 80, and 443 with a certificate."""
    labels = owner.labels(ROUTER)
    service = client_service(owner, labels, labels)
    if spec.traffic.tls_secret:
        service["spec"]["ports"].append({"name": "https", "port": 443, "targetPort": "https", "protocol": "TCP"})
    return service


def config_map(owner: Owner, status: Status, traffic: Traffic) -> Manifest | None:
    """Envoy's files for the route that the status calls for; None before there is one."""
    route = route_of(status)
    if route is None or status.stable is None:
        return None
    fallbacks = {revision.revision: status.stable.revision for revision in status.retiring}
    if status.canary:
        fallbacks[status.canary.revision] = status.stable.revision
    # The cluster that served stable while it was the canary stays until its route is surely gone, also when the old
    # stable has become a canary again.
    other = status.previous or status.canary
    if other:
        fallbacks[status.stable.revision] = other.revision
    revisions = sorted({revision.revision for revision in running(status)})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(owner.router, owner.labels(ROUTER)),
        "data": {
            "bootstrap.json": _text(listeners.bootstrap(traffic)),
            "cds.json": _versioned(
                lambda version: envoy.clusters(
                    owner, revisions, fallbacks, version, mirrored=route.canary if route.mirror else None
                )
            ),
            "rds.json": _versioned(
                lambda version: envoy.routes(route, traffic, version, candidate=candidate_of(status))
            ),
            **({"sds.json": _text(listeners.certificate())} if traffic.tls_secret else {}),
        },
    }


def files_version(config: Manifest) -> str:
    """A short hash of a ConfigMap's files; router pods are annotated with it so that the kubelet syncs at once."""
    return hashlib.sha256(json.dumps(config["data"], sort_keys=True).encode()).hexdigest()[:12]


def deployment(owner: Owner, traffic: Traffic, images: Images) -> Manifest:
    """The routers. Only a change of the static bootstrap replaces them; routes arrive through the ConfigMap."""
    labels = owner.labels(ROUTER)
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(listeners.STATUS_PORT),
        "prometheus.io/path": "/stats/prometheus",
    }
    started_with = hashlib.sha256(_text(listeners.bootstrap(traffic)).encode()).hexdigest()[:12]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(owner.router, labels),
        "spec": {
            "replicas": traffic.router_replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": annotations | {"serin.dev/bootstrap": started_with},
                },
                "spec": pod_basics()
                | {
                    "terminationGracePeriodSeconds": grace(traffic),
                    "topologySpreadConstraints": [_apart(labels, topology) for topology in _APART],
                    "containers": [_envoy(traffic, images)],
                    "volumes": [
                        {"name": "files", "configMap": {"name": owner.router}},
                        {"name": "tmp", "emptyDir": {}},
                        *_certificate(traffic),
                    ],
                },
            },
        },
    }


def disruption_budget(owner: Owner) -> Manifest:
    """Nodes are drained of one router at a time."""
    labels = owner.labels(ROUTER)
    return one_at_a_time(owner.metadata(owner.router, labels), labels)


def _apart(labels: dict[str, str], topology: str) -> dict[str, Any]:
    return {
        "maxSkew": 1,
        "topologyKey": topology,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }


def _certificate(traffic: Traffic) -> list[dict[str, Any]]:
    """The Secret's volume. It is optional: a router without a certificate still serves port 80."""
    if traffic.tls_secret is None:
        return []
    return [{"name": "tls", "secret": {"secretName": traffic.tls_secret, "optional": True}}]


def grace(traffic: Traffic) -> int:
    """Seconds that a pod may take to end: to be forgotten by who calls it, then the longest request, and some air."""
    return math.ceil(traffic.timeout) + 60


def _envoy(traffic: Traffic, images: Images) -> dict[str, Any]:
    arguments = ["-c", f"{listeners.FILES}/bootstrap.json", "--log-level", "warning", "--concurrency", "2"]
    return {
        "name": "envoy",
        "image": images.router,
        "imagePullPolicy": images.pull_policy,
        "args": arguments,
        "ports": [
            _port("http", PORT),
            *([_port("https", listeners.TLS_PORT)] if traffic.tls_secret else []),
            _port("status", listeners.STATUS_PORT),
        ],
        "resources": dict(traffic.router_resources),
        "securityContext": container_security(),
        "readinessProbe": _probe(periodSeconds=2, failureThreshold=2),
        "livenessProbe": _probe(periodSeconds=10, failureThreshold=6),
        "lifecycle": {"preStop": {"exec": {"command": ["/usr/local/bin/drain"]}}},
        "volumeMounts": [
            {"name": "files", "mountPath": listeners.FILES, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod's own
            *([{"name": "tls", "mountPath": listeners.TLS_FILES, "readOnly": True}] if traffic.tls_secret else []),
        ],
    }


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _probe(**thresholds: int) -> dict[str, Any]:
    return {"httpGet": {"path": "/ready", "port": "status"}, "timeoutSeconds": 5, **thresholds}


def _versioned(build: Any) -> str:
    """The file with the hash of its own content as version, so that equal content has an equal version."""
    version = hashlib.sha256(_text(build("")).encode()).hexdigest()[:12]
    return _text(build(version))


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value)  # compact: with an indent it is encoded in pure Python, and every pass builds it
