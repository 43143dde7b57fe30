"""Splitting by replicas: no router at all, but a Service over the pods of both revisions."""

from serin_operator.api.spec import Spec
from serin_operator.api.status import Status
from serin_operator.build.owner import ROUTER, SERVER, Images, Manifest, Owner, client_service


def write(owner: Owner, spec: Spec, status: Status, images: Images) -> list[Manifest]:
    """Nothing: the numbers of pods make the split."""
    return []


def entry(owner: Owner, spec: Spec, status: Status) -> Manifest:
    """What clients call: the stable revision's pods, or while a canary has weight all pods that there are.

    A selector cannot name two revisions, so no others have pods then.
    """
    assert status.stable
    selector = owner.labels(SERVER, None if status.weight else status.stable.revision)
    return client_service(owner, owner.labels(ROUTER), selector)
