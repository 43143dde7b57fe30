"""The watch cache: Kopf's indexes, looked at per ModelDeployment. Reading it costs no call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serin_operator.api import KIND, LABEL_REVISION
from serin_operator.build.owner import RESOLVER, Existing
from serin_operator.observe.pods import Pod
from serin_operator.observe.routes import Routes

Place = tuple[str, str]  # namespace and name of a ModelDeployment
Index = Mapping[Any, Any]


@dataclass
class Cache:
    """Filled by Kopf before the first handler runs, and live from then on.

    objects: per kind. ghosts: uids of objects that a watch missed the deletion of. routes: those of other routers.
    """

    resources: Index = field(default_factory=dict)
    pods: Index = field(default_factory=dict)
    objects: Mapping[str, Index] = field(default_factory=dict)
    ghosts: set[str] = field(default_factory=set)
    routes: Routes = field(default_factory=lambda: Routes((), ()))

    def places(self) -> list[Place]:
        """Every ModelDeployment that is there."""
        return [place for place in self.resources if self.resource(place) is not None]

    def resource(self, place: Place) -> Mapping[str, Any] | None:
        """The ModelDeployment as last seen, or None when it is gone."""
        found = self.resources.get(place, ())
        return next((raw for raw in found if raw["metadata"]["uid"] not in self.ghosts), None)

    def pods_of(self, place: Place) -> list[Pod]:
        """Its pods of all components."""
        return sorted((pod for pod in self.pods.get(place, ()) if pod.uid not in self.ghosts), key=lambda pod: pod.name)

    def objects_of(self, place: Place) -> list[Existing]:
        """Everything else that Serin made for it, and resolver pods that are not about to go."""
        found = [existing for index in self.objects.values() for existing in index.get(place, ())]
        resolvers = [
            Existing("Pod", place[0], pod.name, 0, pod.owner, pod.uid)
            for pod in self.pods_of(place)
            if pod.component == RESOLVER and not pod.terminating
        ]
        here = [existing for existing in found if existing.uid not in self.ghosts]
        return [*here, *resolvers, *self.routes.objects_of(place)]

    def selector(self, place: Place) -> Mapping[str, str] | None:
        """Which pods the Service that clients call leads to; None when there is no such Service."""
        services = self.objects.get("Service", {}).get(place, ())
        return next((each.selector for each in services if each.name == place[1] and each.uid not in self.ghosts), None)

    def leads(self, place: Place) -> dict[str, str]:
        """Which revision each Service leads to that leads to one, by the Service's name."""
        services = self.objects.get("Service", {}).get(place, ())
        found = {each.name: each.selector or {} for each in services if each.uid not in self.ghosts}
        return {name: selector[LABEL_REVISION] for name, selector in found.items() if LABEL_REVISION in selector}

    def unmade(self, place: Place) -> dict[str, str]:
        """Why not all pods of a Deployment can be made, by the Deployment's name."""
        deployments = self.objects.get("Deployment", {}).get(place, ())
        return {each.name: each.unmade for each in deployments if each.unmade and each.uid not in self.ghosts}

    def uids(self, kind: str) -> dict[str, Place]:
        """Whose every cached object of a kind is, by uid."""
        if kind == KIND:
            return {raw["metadata"]["uid"]: place for place, found in self.resources.items() for raw in found}
        index = self.pods if kind == "Pod" else self.objects[kind]
        return {item.uid: place for place, found in index.items() for item in found}
