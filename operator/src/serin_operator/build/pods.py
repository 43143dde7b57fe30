"""What every pod of Serin's has in common: the restricted Pod Security profile and no token."""

from typing import Any

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
