"""What a Service over the pods of both revisions is seen to serve: who is behind its selector."""

from collections.abc import Mapping

from serin_operator.api import LABEL_COMPONENT, LABEL_REVISION
from serin_operator.api.spec import RouterType
from serin_operator.api.status import Status
from serin_operator.build.owner import SERVER
from serin_operator.decide.observed import Route, Router
from serin_operator.decide.roles import route_of, router_of


def of_pods(status: Status, selector: Mapping[str, str] | None, ready: Mapping[str, int]) -> Router:
    """From the selector of the Service that clients call and the ready pods per revision.

    Pods of other revisions than the two arms would answer as well, so no canary is reached while there are some. Before
    the Service leads to pods at all, they count as soon as they are ready.
    """
    route = route_of(status)
    if route is None:
        return Router()
    arms = {revision.revision for revision in (status.stable, status.canary) if revision}
    strangers = any(revision not in arms for revision in ready)
    reached = {revision: pods for revision, pods in ready.items() if revision == route.stable or not strangers}
    if router_of(status) is not RouterType.REPLICA_RATIO:
        return Router(1, (Route(route.stable),), (reached,))
    selected = selector or {}
    if selected.get(LABEL_COMPONENT) != SERVER:
        return Router(1, problem="The Service does not lead to the model servers yet.")
    if LABEL_REVISION in selected:
        return Router(1, (Route(selected[LABEL_REVISION]),), (reached,))
    if route.canary is None or strangers:
        return Router(1, healthy=(reached,), problem="The Service leads to pods of other revisions too.")
    return Router(1, (route,), (reached,))
