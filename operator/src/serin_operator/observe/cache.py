"""The watch cache: Kopf's indexes, looked at per ModelDeployment. Reading it costs no call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serin_operator.build.owner import Existing
from serin_operator.observe.pods import Pod

Place = tuple[str, str]  # namespace and name of a ModelDeployment
Index = Mapping[Any, Any]


@dataclass
class Cache:
    """Filled by Kopf before the first handler runs, and live from then on."""

    resources: Index = field(default_factory=dict)
    pods: Index = field(default_factory=dict)
    objects: tuple[Index, ...] = ()

    def resource(self, place: Place) -> Mapping[str, Any] | None:
        """The ModelDeployment as last seen, or None when it is gone."""
        return next(iter(self.resources.get(place, ())), None)

    def pods_of(self, place: Place) -> list[Pod]:
        """Its pods of all components."""
        return sorted(self.pods.get(place, ()), key=lambda pod: pod.name)

    def objects_of(self, place: Place) -> list[Existing]:
        """Everything else that Serin made for it, and resolver pods."""
        found = [existing for index in self.objects for existing in index.get(place, ())]
        resolvers = [
            Existing("Pod", place[0], pod.name, 0, pod.owner)
            for pod in self.pods_of(place)
            if pod.component == "resolver"
        ]
        return found + resolvers
