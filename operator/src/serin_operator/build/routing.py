"""The port of routers, its writing half: what a route looks like to each kind of router.

`observe.routing` has the other half, which reads back what serves. A router is a module here with `write` and `entry`,
and a function there.
"""

from collections.abc import Mapping
from typing import Protocol

from serin_operator.api.spec import RouterType, Spec
from serin_operator.api.status import Status
from serin_operator.build import gateway, istio, ratio, router
from serin_operator.build.owner import Images, Manifest, Owner


class Writer(Protocol):
    """Builds what one kind of router needs for the route that a status calls for."""

    def write(self, owner: Owner, spec: Spec, status: Status, images: Images) -> list[Manifest]:
        """Everything but the Service that clients call, in the order to apply it."""

    def entry(self, owner: Owner, spec: Spec, status: Status) -> Manifest:
        """The Service that clients call: it has the ModelDeployment's own name, port 80."""


_WRITERS: Mapping[RouterType, Writer] = {
    RouterType.EMBEDDED: router,
    RouterType.GATEWAY_API: gateway,
    RouterType.ISTIO: istio,
    RouterType.REPLICA_RATIO: ratio,
}
_WITH_BACKENDS = {RouterType.GATEWAY_API, RouterType.ISTIO}


def writer(kind: RouterType) -> Writer:
    """The one for this kind of router."""
    return _WRITERS[kind]


def needs_backends(kind: RouterType, spec: Spec) -> bool:
    """Whether this router sends to a Service per revision that is not headless."""
    return kind in _WITH_BACKENDS and not has_own_route(kind, spec)


def has_own_route(kind: RouterType, spec: Spec) -> bool:
    """Whether this router is a route that a user wrote."""
    return kind is RouterType.GATEWAY_API and spec.traffic.own_route is not None
