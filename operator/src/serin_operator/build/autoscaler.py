"""The HorizontalPodAutoscaler. It scales the ModelDeployment and no Deployment: roles move, the resource stays.

By CPU it sees the stable revision's pods, which the ModelDeployment's selector names, so a canary that starts, idles or
burns its CPU moves nothing. By requests in flight it sees those of all revisions, as one number that does not depend on
how many pods they are spread over.

While traffic moves, its minimum is the stable revision's present size. It is not only that it may not shrink: an
autoscaler that is content with the pods that it sees keeps the number that it wrote last, so that has to be theirs.
"""

from typing import Any

from serin_operator.api import API_VERSION, KIND
from serin_operator.api.spec import Autoscaling
from serin_operator.build.owner import AUTOSCALER, Manifest, Owner

IN_FLIGHT = "serin_requests_in_flight"  # what the model server counts, and what the adapter's rule calls the sum
_COMPONENT = "autoscaler"


def autoscaler(owner: Owner, scaling: Autoscaling, least: int | None) -> Manifest:
    """The autoscaler with the ModelDeployment's own name. Where it goes by two metrics, the larger number counts.

    least: its minimum for the time being.
    """
    target = {"apiVersion": API_VERSION, "kind": KIND, "name": owner.name}
    metrics: list[dict[str, Any]] = []
    if scaling.cpu_utilization is not None:
        wanted = {"type": "Utilization", "averageUtilization": scaling.cpu_utilization}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": wanted}})
    if scaling.requests_in_flight is not None:
        wanted = {"type": "AverageValue", "averageValue": str(scaling.requests_in_flight)}
        in_flight = {"describedObject": target, "metric": {"name": IN_FLIGHT}, "target": wanted}
        metrics.append({"type": "Object", "object": in_flight})
    return {
        "apiVersion": "autoscaling/v2",
        "kind": AUTOSCALER,
        "metadata": owner.metadata(owner.name, owner.labels(_COMPONENT)),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": scaling.min_replicas if least is None else least,
            "maxReplicas": scaling.max_replicas,
            "metrics": metrics,
        },
    }
