"""The operator's own configuration, from the environment that the Helm chart sets."""

import os
from dataclasses import dataclass

from serin_operator.api.spec import RouterType
from serin_operator.build.owner import Images


@dataclass(frozen=True, slots=True)
class Candidacy:
    """The Lease that the operators of one release compete for, and the pod that competes."""

    namespace: str
    lease: str
    pod: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Images to run, namespaces to watch (none: all), and the Prometheus to use where a resource names none.

    routers: kinds that may be used besides those that need nothing in the cluster. require_signature: models that say
    nothing of a signature are not rolled out.
    """

    images: Images
    namespaces: tuple[str, ...]
    prometheus: str | None
    log_level: str
    candidacy: Candidacy
    routers: tuple[RouterType, ...] = ()
    require_signature: bool = False

    @classmethod
    def from_environment(cls) -> "Settings":
        """Raises SystemExit naming the variable that is missing."""
        namespaces = os.environ.get("SERIN_WATCH_NAMESPACES", "")
        return cls(
            images=Images(
                server=_required("SERIN_SERVER_IMAGE"),
                router=_required("SERIN_ROUTER_IMAGE"),
                pull_policy=os.environ.get("SERIN_IMAGE_PULL_POLICY", "IfNotPresent"),
            ),
            namespaces=tuple(part.strip() for part in namespaces.split(",") if part.strip()),
            prometheus=os.environ.get("SERIN_PROMETHEUS_ADDRESS") or None,
            log_level=os.environ.get("SERIN_LOG_LEVEL", "INFO").upper(),
            candidacy=Candidacy(_required("POD_NAMESPACE"), _required("SERIN_LEASE"), _required("POD_NAME")),
            routers=tuple(RouterType(name) for name in os.environ.get("SERIN_ROUTERS", "").split(",") if name),
            require_signature=os.environ.get("SERIN_REQUIRE_SIGNATURE", "") == "true",
        )


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"{name} is not set; the Helm chart sets it")
    return value
