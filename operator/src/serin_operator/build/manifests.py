"""Everything that one ModelDeployment needs in the cluster, from its spec and the status just decided."""

from serin_operator.api.spec import Spec, Strategy
from serin_operator.api.status import Status
from serin_operator.build import own_route, preview, resolver, router, routing, servers
from serin_operator.build.autoscaler import autoscaler
from serin_operator.build.owner import Images, Manifest, Owner
from serin_operator.decide.revisions import resolver_name
from serin_operator.decide.roles import router_of, running, spec_of
from serin_operator.decide.routing import carriers


def manifests(owner: Owner, spec: Spec, status: Status, resolve: bool, images: Images) -> list[Manifest]:
    """The complete desired set, in the order to apply it: servers exist before a route names them.

    What Serin made earlier and is not in this set has no purpose any more.
    """
    wanted: list[Manifest] = []
    if resolve:
        image = spec.server.config.get("image") or images.server
        wanted.append(resolver.pod(owner, resolver_name(owner.name, spec.model), spec.model, image, images))
    if status.stable is None:
        return wanted
    routers = {kind: spec_of(kind, spec, status) for kind in carriers(status)}
    backends = any(routing.needs_backends(kind, asked) for kind, asked in routers.items())
    grace = max(router.grace(asked.traffic) for asked in routers.values())
    room = spec.rollout.strategy is not Strategy.RECREATE
    for revision in running(status):
        wanted.append(servers.service(owner, revision))
        if backends:
            wanted.append(servers.backend(owner, revision))
        wanted.append(servers.deployment(owner, revision, grace, images, room=room))
    for kind, asked in routers.items():
        wanted += routing.writer(kind).write(owner, asked, status, images)
        if routing.has_own_route(kind, asked):
            wanted += own_route.services(owner, status)
    serving = router_of(status)
    wanted.append(routing.writer(serving).entry(owner, routers[serving], status))
    reached = preview.service(owner, spec, status)
    if reached:
        wanted.append(reached)
    if spec.server.autoscaling:
        wanted.append(autoscaler(owner, spec.server.autoscaling, status.least_replicas))
    if status.stable.replicas > 1:  # of a single pod there is none to spare
        wanted.append(servers.disruption_budget(owner, status.stable.revision))
    return wanted
