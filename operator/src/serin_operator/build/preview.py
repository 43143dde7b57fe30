"""The Service that reaches the new revision alone, for the strategy BlueGreen."""

from serin_operator.api.spec import Spec, Strategy
from serin_operator.api.status import Status
from serin_operator.build.owner import GRPC_PORT, PREVIEW, SERVER, Manifest, Owner

_NOBODY = "none"  # no revision is called so


def service(owner: Owner, spec: Spec, status: Status) -> Manifest | None:
    """Ports 80 and 8081 (gRPC) of the new revision's pods, without the router; None where no preview is asked for.

    Between rollouts it keeps its address and reaches nobody.
    """
    rollout = status.rollout
    under_way = rollout is not None and rollout.strategy is Strategy.BLUE_GREEN
    if not under_way and spec.rollout.strategy is not Strategy.BLUE_GREEN:
        return None
    revision = status.canary.revision if under_way and status.canary else _NOBODY
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.preview, owner.labels(PREVIEW)),
        "spec": {
            "selector": owner.labels(SERVER, revision),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "grpc", "port": GRPC_PORT, "targetPort": GRPC_PORT, "protocol": "TCP"},
            ],
        },
    }
