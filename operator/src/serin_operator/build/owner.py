"""Who a manifest belongs to, and the labels and names that follow from it."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serin_operator.api import API_VERSION, KIND, LABEL_COMPONENT, LABEL_OWNER, LABEL_REVISION, MANAGED_BY
from serin_operator.decide.roles import preview_of

Manifest = dict[str, Any]

Key = tuple[str, str, str]  # kind, namespace, name

PORT = 8080
# Where the model server answers gRPC unless it is told otherwise.
GRPC_PORT = 8081
# What it takes of one request, in bytes; of gRPC one message.
LARGEST_BODY = 8 * 1024 * 1024
AUTOSCALER = "HorizontalPodAutoscaler"
SERVER = "server"
ROUTER = "router"
RESOLVER = "resolver"
PREVIEW = "preview"
_UNCOUNTED = ("Pod", "Service", "ConfigMap", "Secret")


@dataclass(frozen=True, slots=True)
class Owner:
    """The ModelDeployment that owns every manifest built for it, so that deleting it deletes them all."""

    namespace: str
    name: str
    uid: str

    def labels(self, component: str, revision: str | None = None) -> dict[str, str]:
        """The labels of one component's objects; also their selector, so they never change for an object."""
        labels = {
            "app.kubernetes.io/managed-by": MANAGED_BY,
            LABEL_OWNER: self.name,
            LABEL_COMPONENT: component,
        }
        return labels | ({LABEL_REVISION: revision} if revision else {})

    def metadata(self, name: str, labels: Mapping[str, str], **more: Any) -> dict[str, Any]:
        """Metadata of an owned object in the owner's namespace."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": dict(labels),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": self.name,
                    "uid": self.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
            **more,
        }

    def server(self, revision: str) -> str:
        """Name of a revision's Deployment and Service."""
        return f"{self.name}-{revision}"

    def backend(self, revision: str) -> str:
        """Name of a revision's Service for routers that are not Serin's own."""
        return f"{self.name}-{revision}-backend"

    def backend_revision(self, service: str) -> str | None:
        """The revision whose Service has this name, if it is one of those."""
        head, tail = f"{self.name}-", "-backend"
        named = service.startswith(head) and service.endswith(tail) and len(service) > len(head) + len(tail)
        return service[len(head) : -len(tail)] if named else None

    @property
    def router(self) -> str:
        """Name of the router's Deployment and ConfigMap; its Service has the owner's own name."""
        return f"{self.name}-router"

    @property
    def preview(self) -> str:
        """Name of the Service that reaches the new revision alone."""
        return preview_of(self.name)

    @property
    def stable(self) -> str:
        """Name of the PodDisruptionBudget of whichever revision is stable."""
        return f"{self.name}-stable"

    @property
    def prediction_key(self) -> str:
        """Name of the Secret whose key signs prediction ids.

        A namesake that was deleted a moment ago may still have its own, which the garbage collector is about to take.
        """
        return f"{self.name}-prediction-key-{self.uid[:8]}"


def client_service(owner: Owner, labels: Mapping[str, str], selector: Mapping[str, str]) -> Manifest:
    """What clients call: the ModelDeployment's own name, port 80, whatever answers behind it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.name, labels),
        "spec": {
            "selector": dict(selector),
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        },
    }


@dataclass(frozen=True, slots=True)
class Images:
    """What Serin's own containers run, from the operator's configuration."""

    server: str
    router: str
    pull_policy: str


@dataclass(frozen=True, slots=True)
class Existing:
    """An object of Serin's that the watch cache holds. `version` rises when somebody changes what Serin applies.

    An autoscaler's `version` tells its content instead: its status changes all the time, and nothing counts changes of
    its spec. resource_version: rises when anybody changes anything; 0 when it is not known.
    """

    kind: str
    namespace: str
    name: str
    version: int
    owner: str | None = None  # the uid of its controller
    uid: str = ""
    resource_version: int = 0
    selector: Mapping[str, str] | None = None  # of a Service
    unmade: str = ""  # why not all pods of a Deployment can be made, if so: a quota, a policy

    @property
    def key(self) -> Key:
        """Its place among the applied objects."""
        return (self.kind, self.namespace, self.name)

    def stands_as(self, applied: "Existing") -> bool:
        """Whether nobody has changed it since it was applied; the cache may still hold what was there before.

        Who deletes it and makes it anew changes it too, and its versions begin again.
        """
        if self.uid != applied.uid:
            return self.resource_version <= applied.resource_version
        return self.version == applied.version if self.kind == AUTOSCALER else self.version <= applied.version

    @classmethod
    def of(cls, raw: Any, kind: str) -> "Existing":
        """Where the API server counts changes of the spec, in `generation`, they count; else any change does."""
        metadata = raw["metadata"]
        version = metadata["resourceVersion"] if kind in _UNCOUNTED else metadata.get("generation", 0)
        if kind == AUTOSCALER:
            version = zlib.crc32(json.dumps(raw["spec"], sort_keys=True).encode())
        controllers = [ref["uid"] for ref in metadata.get("ownerReferences", []) if ref.get("controller")]
        return cls(
            kind,
            metadata["namespace"],
            metadata["name"],
            int(version),
            next(iter(controllers), None),
            metadata["uid"],
            int(metadata["resourceVersion"]),
            raw.get("spec", {}).get("selector") if kind == "Service" else None,
            _unmade(raw) if kind == "Deployment" else "",
        )


def _unmade(raw: Any) -> str:
    conditions = raw.get("status", {}).get("conditions", [])
    failures = (one for one in conditions if one["type"] == "ReplicaFailure" and one["status"] == "True")
    return next((str(one.get("message", "")) for one in failures if one.get("reason") == "FailedCreate"), "")
