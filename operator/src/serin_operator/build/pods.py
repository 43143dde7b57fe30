"""What pods of Serin's have in common: the restricted Pod Security profile, no token, and how they are evicted."""

from typing import Any

from serin_operator.build.owner import Manifest

USER = 65532


def pod_security() -> dict[str, Any]:
    """A pod's securityContext under the restricted profile."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """A container's securityContext under the restricted profile."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def pod_basics() -> dict[str, Any]:
    """Fields of every pod's spec: it gets no API token and no environment from other Services."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
    }


def one_at_a_time(metadata: dict[str, Any], labels: dict[str, str], **more: str) -> Manifest:
    """A PodDisruptionBudget for the pods with these labels. more: further fields of its spec."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}, **more},
    }
