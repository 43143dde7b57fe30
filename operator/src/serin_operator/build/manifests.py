"""Everything that one ModelDeployment needs in the cluster, from its spec and the status just decided."""

from serin_operator.api.spec import RouterType, Spec, Strategy
from serin_operator.api.status import Status
from serin_operator.build import own_route, preview, resolver, router, routing, servers
from serin_operator.build.autoscaler import autoscaler
from serin_operator.build.owner import Images, Manifest, Owner
from serin_operator.decide.revisions import resolver_name
from serin_operator.decide.roles import router_of, running
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
    routers = carriers(status)
    for revision in running(status):
        wanted.append(servers.service(owner, revision))
        if routing.needs_backends(routers, spec):
            wanted.append(servers.backend(owner, revision))
        room = spec.rollout.strategy is not Strategy.RECREATE
        wanted.append(servers.deployment(owner, revision, router.grace(spec.traffic), images, room=room))
    for kind in routers:
        wanted += routing.writer(kind).write(owner, spec, status, images)
    if spec.traffic.own_route and RouterType.GATEWAY_API in routers:
        wanted += own_route.services(owner, status)
    wanted.append(routing.writer(router_of(status)).entry(owner, spec, status))
    reached = preview.service(owner, spec, status)
    if reached:
        wanted.append(reached)
    if spec.server.autoscaling:
        wanted.append(autoscaler(owner, spec.server.autoscaling, status.least_replicas))
    return wanted
