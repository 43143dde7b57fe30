"""The payload log of a revision's servers: a claim, where it is mounted, and what is written to it."""

from collections.abc import Mapping
from typing import Any

_DIRECTORY = "/payloads"
_VOLUME = "payloads"


def volumes(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The volume that the log goes to; none where nothing is logged. `config` is the revision's part of spec.server."""
    if "payloadLog" not in config:
        return []
    return [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": config["payloadLog"]["claim"]}}]


def mounts(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where the server finds that volume."""
    return [{"name": _VOLUME, "mountPath": _DIRECTORY}] if "payloadLog" in config else []


def arguments(name: str, config: Mapping[str, Any]) -> list[str]:
    """The server's options; `name` is the ModelDeployment's, since several may share a claim."""
    log = config.get("payloadLog")
    if log is None:
        return []
    # Joined by "=", since a feature's name may begin with a dash.
    return [
        f"--payload-log={_DIRECTORY}/{name}",
        f"--payload-log-sample={log['sample']}",
        f"--payload-log-max-mib={log['maxSizeMiB']}",
        *(["--payload-log-no-inputs"] if log.get("include") == [] else []),
        *(f"--payload-log-include={feature}" for feature in log.get("include", [])),
        *(f"--payload-log-exclude={feature}" for feature in log.get("exclude", [])),
    ]
