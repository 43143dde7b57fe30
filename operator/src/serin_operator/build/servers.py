"""A revision's model servers: one Deployment and one headless Service. The stable one's have a disruption budget."""

from collections.abc import Iterable, Mapping
from typing import Any

from serin_operator.api.status import Revision
from serin_operator.build import payload_log
from serin_operator.build.owner import GRPC_PORT, PORT, SERVER, Images, Manifest, Owner
from serin_operator.build.pods import container_security, one_at_a_time, pod_basics

DRAIN_SECONDS = 15
_MODEL = "/model/model"
_PROFILE = "/model/profile.json"
_KEY_DIRECTORY = "/etc/serin/prediction-key"
_SCHEDULING = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "priorityClassName",
    "imagePullSecrets",
)


def service(owner: Owner, revision: Revision) -> Manifest:
    """A headless Service: the router balances over the pods itself.

    The port for gRPC is a number, and not in the pods' list of ports: adding it there would replace the pods of every
    revision that is older than the port.
    """
    labels = owner.labels(SERVER, revision.revision)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.server(revision.revision), labels),
        "spec": {
            "clusterIP": "None",
            "selector": labels,
            "ports": [
                {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"},
                {"name": "grpc", "port": GRPC_PORT, "targetPort": GRPC_PORT, "protocol": "TCP"},
            ],
        },
    }


def backend(owner: Owner, revision: Revision) -> Manifest:
    """An ordinary Service beside it, for routers that are not Serin's own: not all of them take a headless one.

    It is named otherwise, as a Service cannot cease to be headless.
    """
    labels = owner.labels(SERVER, revision.revision)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.backend(revision.revision), labels),
        "spec": {
            "selector": labels,
            "ports": [
                {"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP", "appProtocol": "http"},
                {
                    "name": "grpc",
                    "port": GRPC_PORT,
                    "targetPort": GRPC_PORT,
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }


def deployment(owner: Owner, revision: Revision, grace: int, images: Images, *, room: bool = True) -> Manifest:
    """The Deployment: an init container fetches and verifies the model, the server loads just those bytes.

    room: whether there is room for one pod more while pods are replaced; else one goes before the next one comes.
    """
    labels = owner.labels(SERVER, revision.revision)
    template = revision.config.get("podTemplate", {})
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owner.metadata(owner.server(revision.revision), labels),
        "spec": {
            "replicas": revision.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0 if room else 1, "maxSurge": 1 if room else 0},
            },
            "template": {
                "metadata": {
                    "labels": template.get("labels", {}) | labels,
                    "annotations": template.get("annotations", {}) | annotations,
                },
                "spec": pod_basics()
                | {key: template[key] for key in _SCHEDULING if key in template}
                | _spread(template, labels)
                | {
                    "terminationGracePeriodSeconds": grace,
                    "initContainers": _fetches(revision, images),
                    "containers": [_serve(owner, revision, images)],
                    "volumes": [
                        {"name": "model", "emptyDir": {}},
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "prediction-key", "secret": {"secretName": owner.prediction_key}},
                        *payload_log.volumes(revision.config),
                        *claim_volumes(*_uris(revision)),
                    ],
                },
            },
        },
    }


def disruption_budget(owner: Owner, stable: str) -> Manifest:
    """Nodes are drained of one of the stable revision's pods at a time.

    There is one, which follows the role: at a promotion that is a single write, and no pod is ever in two budgets, for
    Kubernetes evicts no such pod. Pods that are not ready answer nobody, so they keep no node from being drained.
    """
    metadata = owner.metadata(owner.stable, owner.labels(SERVER))
    return one_at_a_time(metadata, owner.labels(SERVER, stable), unhealthyPodEvictionPolicy="AlwaysAllow")


def _spread(template: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """Spreads the revision's own pods where the user names no others: without a selector Kubernetes counts none."""
    if "topologySpreadConstraints" not in template:
        return {}
    own = {"labelSelector": {"matchLabels": dict(labels)}}
    return {"topologySpreadConstraints": [own | constraint for constraint in template["topologySpreadConstraints"]]}


def _uris(revision: Revision) -> list[str]:
    """Where its files are, each fetched by an init container."""
    return [revision.uri, *(part.uri for part in (revision.profile, revision.signature) if part)]


def _fetches(revision: Revision, images: Images) -> list[dict[str, Any]]:
    model = _fetch("fetch", revision, revision.uri, revision.sha256, _MODEL, images)
    if revision.signature:
        model["args"] += ["--signature-uri", revision.signature.uri]
        mounts = [*model["volumeMounts"], *claim_mounts(revision.signature.uri, *_uris(revision))]
        model["volumeMounts"] = [mount for place, mount in enumerate(mounts) if mount not in mounts[:place]]
    containers = [model]
    if revision.profile:
        profile = revision.profile
        containers.append(_fetch("fetch-profile", revision, profile.uri, profile.sha256, _PROFILE, images))
    return containers


def _fetch(name: str, revision: Revision, uri: str, sha256: str, output: str, images: Images) -> dict[str, Any]:
    arguments = ["fetch", "--uri", uri, "--sha256", sha256, "--output", output]
    return {
        "name": name,
        "image": revision.image,
        "imagePullPolicy": images.pull_policy,
        "args": arguments,
        "env": fetch_credentials(revision.secret),
        "resources": revision.config.get("resources", {}),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "model", "mountPath": "/model"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod's own
            *claim_mounts(uri, *_uris(revision)),
        ],
    }


def _serve(owner: Owner, revision: Revision, images: Images) -> dict[str, Any]:
    arguments = [
        "serve",
        *("--model-name", owner.name),
        *("--model-version", revision.version),
        *("--revision", revision.revision),
        *("--model-path", _MODEL),
        *("--sha256", revision.sha256),
        *("--port", str(PORT)),
        *("--key-path", f"{_KEY_DIRECTORY}/key"),
        *("--drain-seconds", str(DRAIN_SECONDS)),
        *_loading(revision),
        *_serving(revision),
        *payload_log.arguments(owner.name, revision.config),
    ]
    return {
        "name": "server",
        "image": revision.image,
        "imagePullPolicy": images.pull_policy,
        "args": arguments,
        "env": list(revision.config.get("env", [])),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": revision.config.get("resources", {}),
        "securityContext": container_security(),
        # Loading a large model takes long; the operator's readyTimeout decides when that is too long.
        "startupProbe": _probe("/v2/health/live", periodSeconds=1, failureThreshold=3600),
        "readinessProbe": _probe("/v2/health/ready", periodSeconds=2, failureThreshold=2),
        "livenessProbe": _probe("/v2/health/live", periodSeconds=10, failureThreshold=6),
        "volumeMounts": [
            {"name": "model", "mountPath": "/model", "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir of the pod's own
            {"name": "prediction-key", "mountPath": _KEY_DIRECTORY, "readOnly": True},
            *payload_log.mounts(revision.config),
        ],
    }


def _loading(revision: Revision) -> list[str]:
    """How the model is loaded, only where it is not as ever.

    A revision keeps its image, and an older one may not know these options.
    """
    arguments = []
    if revision.format != "joblib":
        arguments += ["--format", revision.format]
    for name in revision.trusted_types:
        arguments += ["--trusted-type", name]
    if revision.signature:
        arguments += ["--signature", f"{_MODEL}.sig"]
        if revision.signature.public_key:
            arguments.append(f"--public-key={revision.signature.public_key}")
        if revision.signature.certificate_chain:
            arguments.append(f"--certificate-chain={revision.signature.certificate_chain}")
    if revision.profile:
        arguments += ["--profile", _PROFILE]
    if "accelerate" in revision.config:
        arguments += ["--accelerate", revision.config["accelerate"]]
    return arguments


def _serving(revision: Revision) -> list[str]:
    """How it is served, likewise."""
    arguments = []
    if "processes" in revision.config:
        arguments += ["--processes", str(revision.config["processes"])]
    if "accessLog" in revision.config:
        arguments += ["--access-log-sample", str(revision.config["accessLog"]["sample"])]
    return arguments


def _probe(path: str, **thresholds: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 5, **thresholds}


def fetch_credentials(secret: str | None) -> list[dict[str, Any]]:
    """Environment of a container that fetches: credentials reach no other container."""
    if secret is None:
        return []
    return [
        {
            "name": f"SERIN_FETCH_{key.upper()}",
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}},
        }
        for key in ("token", "username", "password")
    ]


def claim_volumes(*uris: str) -> list[dict[str, Any]]:
    """The volumes that pvc:// URIs read from, each once; none for other URIs."""
    return [
        {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim, name in _claims(uris).items()
    ]


def claim_mounts(uri: str, *uris: str) -> list[dict[str, Any]]:
    """Where the volume of a pvc:// URI is mounted; `uris` are those that its pod has volumes of."""
    claim = _claim(uri)
    if claim is None:
        return []
    return [{"name": _claims(uris or (uri,))[claim], "mountPath": f"/pvc/{claim}", "readOnly": True}]


def _claims(uris: Iterable[str]) -> dict[str, str]:
    """The claims of these URIs, and the name of each one's volume."""
    claims = dict.fromkeys(claim for uri in uris if (claim := _claim(uri)) is not None)
    return {claim: f"claim-{place}" if place else "claim" for place, claim in enumerate(claims)}


def _claim(uri: str) -> str | None:
    scheme, _, rest = uri.partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None
