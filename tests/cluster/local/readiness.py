"""What must hold, beyond each component being well, before a cluster is of use."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from . import dns
from .api import Api
from .layout import Layout


@dataclass(frozen=True)
class Condition:
    """A check that raises while the condition doesn't hold, and the daemon whose log tells why."""

    name: str
    daemon: str
    check: Callable[[], None]


def conditions(layout: Layout, network: Executor) -> list[Condition]:
    api = Api(layout)
    return [
        Condition("api server from outside", "forward", lambda: _object(api, "/version")),
        Condition("node", "kubelet", lambda: _node_is_ready(api, layout.node)),
        Condition("service accounts", "kube-controller-manager", lambda: _pods_can_start(api)),
        Condition("cluster dns", "coredns", lambda: network.submit(_dns_answers).result()),
    ]


def _object(api: Api, path: str) -> None:
    if api.get(path) is None:
        raise OSError(f"there is no {path} yet")


def _node_is_ready(api: Api, name: str) -> None:
    node = api.get(f"/api/v1/nodes/{name}")
    if node is None:
        raise OSError("the node has not registered")
    ready = next((c for c in node["status"].get("conditions", []) if c["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        raise OSError(f"the node is not ready: {ready['message'] if ready else 'it has not said anything'}")


def _pods_can_start(api: Api) -> None:
    """Every pod needs its namespace's service account and the authority's certificate, which controllers make."""
    _object(api, "/api/v1/namespaces/default/serviceaccounts/default")
    _object(api, "/api/v1/namespaces/default/configmaps/kube-root-ca.crt")


def _dns_answers() -> None:
    if not dns.answers():
        raise OSError("cluster DNS does not know the API server")
