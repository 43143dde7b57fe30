"""Kopf's side: what is watched, what is kept of it, and whom an event wakes. No handler writes anything.

Neither finalizers nor annotations of Kopf's are used: owner references delete what Serin made, also while the
operator is down, and status alone carries its memory.
"""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import kopf

from serin_operator.api import GROUP, LABEL_OWNER, PLURAL, VERSION
from serin_operator.build.owner import AUTOSCALER, Existing
from serin_operator.loop import Loop
from serin_operator.observe.cache import Cache
from serin_operator.observe.pods import read_pod

_CHILDREN = (
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("", "v1", "configmaps"),
    ("apps", "v1", "deployments"),
    ("policy", "v1", "poddisruptionbudgets"),
)


class Endless:
    """Seconds to wait before an API server is asked again that does not answer.

    Kopf ends the operator where they end, and an operator that starts again and again is kept waiting ever longer.
    """

    def __iter__(self) -> Iterator[float]:
        return chain((0.5, 1.0, 2.0), repeat(4.0))


def register(registry: kopf.OperatorRegistry, loop: Loop, cache: Cache) -> None:
    """Registers indexes and events. The cache is filled when Kopf starts, before any event."""

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **indexes: Any) -> None:
        settings.posting.enabled = False  # Serin posts its own Events, about decisions only
        settings.scanning.disabled = True  # the kinds are known; no need to watch the API's own changes
        settings.peering.standalone = True
        settings.persistence.finalizer = f"{GROUP}/finalizer"
        settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
        settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
        settings.watching.server_timeout = 600
        settings.watching.client_timeout = 660
        settings.watching.connect_timeout = 10
        settings.networking.request_timeout = 30
        settings.networking.error_backoffs = Endless()
        for _, _, plural in _CHILDREN:
            settings.watching.label_selectors[plural] = LABEL_OWNER
        settings.watching.label_selectors["horizontalpodautoscalers"] = LABEL_OWNER
        cache.resources = indexes["resources"]
        cache.pods = indexes["pods"]
        cache.objects = {
            "Service": indexes["services"],
            "ConfigMap": indexes["configmaps"],
            "Deployment": indexes["deployments"],
            AUTOSCALER: indexes["autoscalers"],
            "PodDisruptionBudget": indexes["budgets"],
        }

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.index(GROUP, VERSION, PLURAL, id="resources", registry=registry)
    def resources(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_place(body): dict(body)}

    @kopf.index("", "v1", "pods", id="pods", labels={LABEL_OWNER: kopf.PRESENT}, registry=registry)
    def pods(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_owner(body): read_pod(body)}

    @kopf.index("", "v1", "services", id="services", labels={LABEL_OWNER: kopf.PRESENT}, registry=registry)
    def services(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_owner(body): Existing.of(body, "Service")}

    @kopf.index("", "v1", "configmaps", id="configmaps", labels={LABEL_OWNER: kopf.PRESENT}, registry=registry)
    def configmaps(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_owner(body): Existing.of(body, "ConfigMap")}

    @kopf.index("apps", "v1", "deployments", id="deployments", labels={LABEL_OWNER: kopf.PRESENT}, registry=registry)
    def deployments(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_owner(body): Existing.of(body, "Deployment")}

    # Its status changes every few seconds and wakes nobody; what it asks for is a change of the ModelDeployment.
    @kopf.index(
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        id="autoscalers",
        labels={LABEL_OWNER: kopf.PRESENT},
        registry=registry,
    )
    def autoscalers(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_owner(body): Existing.of(body, AUTOSCALER)}

    @kopf.index(
        "policy", "v1", "poddisruptionbudgets", id="budgets", labels={LABEL_OWNER: kopf.PRESENT}, registry=registry
    )
    def budgets(body: kopf.Body, **_: Any) -> dict[Any, Any]:
        return {_owner(body): Existing.of(body, "PodDisruptionBudget")}

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def resource_changed(body: kopf.Body, **_: Any) -> None:
        loop.wake(_place(body))

    async def child_changed(body: kopf.Body, **_: Any) -> None:
        place = _owner(body)
        if cache.resource(place) is not None:
            loop.wake(place)

    for child in _CHILDREN:
        kopf.on.event(*child, labels={LABEL_OWNER: kopf.PRESENT}, registry=registry)(child_changed)


def _place(body: kopf.Body) -> tuple[str, str]:
    return (body["metadata"]["namespace"], body["metadata"]["name"])


def _owner(body: kopf.Body) -> tuple[str, str]:
    return (body["metadata"]["namespace"], body["metadata"]["labels"][LABEL_OWNER])
