"""What one pass sees: plain values, gathered by `observe`, read by `decide`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serin_operator.api.spec import Spec
from serin_operator.api.status import Status
from serin_operator.decide.drift import Feature
from serin_operator.decide.evidence import Counts
from serin_operator.decide.projection import Integers

# samples[metric key][revision][series]: cumulative since the series' process started; a series is "pod/start time"
Samples = Mapping[str, Mapping[str, Mapping[str, Counts]]]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a container does not run. A `permanent` one ends the same way at every try."""

    reason: str
    message: str
    exit_code: int | None = None
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """The pods of one revision: how many are ready to serve, what keeps one of them from it, how many are there at all.

    pods: those included that are on their way out.
    """

    ready: int = 0
    trouble: Trouble | None = None
    pods: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """Which revisions answer clients, and the canary's share in per cent.

    mirror: the per cent of the inferences of which the canary gets a copy; nobody gets its answers to those.
    """

    stable: str
    canary: str | None = None
    weight: int = 0
    mirror: int = 0


@dataclass(frozen=True, slots=True)
class Router:
    """What the ready router pods really do now, one entry of `routes` and `healthy` per pod.

    healthy: per revision, how many of its hosts pass that router's health checks.
    certificates: per pod, when the certificate for clients expires, in seconds since 1970; None: it has none.
    problem: why the routers could not be asked, if they could not. reason: that in one CamelCase word, where somebody
        has to do something about it.
    """

    ready: int = 0
    routes: tuple[Route, ...] = ()
    healthy: tuple[Mapping[str, int], ...] = ()
    certificates: tuple[float | None, ...] = ()
    problem: str | None = None
    reason: str = ""

    def serves(self, route: Route) -> bool:
        """Whether every ready router pod, and at least one, serves exactly this route."""
        return self.ready > 0 and len(self.routes) == self.ready and all(live == route for live in self.routes)

    def reaches(self, revision: str, pods: int = 1) -> bool:
        """Whether every ready router pod, and at least one, sees so many healthy hosts of the revision."""
        return (
            self.ready > 0
            and len(self.healthy) == self.ready
            and all(hosts.get(revision, 0) >= pods for hosts in self.healthy)
        )


def unseen(reason: str, problem: str) -> Router:
    """A router that serves nothing until somebody sees to it."""
    return Router(problem=problem, reason=reason)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at the metrics source.

    processes: the series of all processes that were read, also of those that counted nothing yet.
    pods: names of all pods that exist, so that the series of others can be forgotten; "custom" too while a custom
        metric can not be read.
    unread: what should have been read and was not: ready pods by name, custom metrics with the reason.
    unclocked: series that do not tell when they started, such as a custom metric's ("custom/" and a digest of its
        labels). The first reading of one is its baseline, and so is one that is lower than the last.
    problem: why one of the arms can not be seen at all, if so.
    """

    samples: Samples = field(default_factory=dict)
    processes: frozenset[str] = frozenset()
    pods: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    unclocked: frozenset[str] = frozenset()
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DriftReading:
    """What the stable revision's pods counted in bins since the reading before, at `at`, in seconds since 1970.

    live: per feature, the rows in each of its bins. problem: why nothing could be read, if so.
    """

    at: float
    features: tuple[Feature, ...] = ()
    live: tuple[Integers, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the resolver pod found: a digest, or why there is none yet."""

    sha256: str | None = None
    size: int = 0
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator's own configuration contributes to a revision; whether one may run without a signature."""

    server_image: str
    require_signature: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """One ModelDeployment at one moment. What was not asked for is None.

    retry, promote, abort: the annotations by which somebody asks for that. refused: what the API server did not take of
    what the last pass applied, if so.
    """

    name: str
    generation: int
    retry: str | None
    spec: Spec
    status: Status
    defaults: Defaults
    promote: str | None = None
    abort: str | None = None
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    router: Router | None = None
    next_router: Router | None = None  # the one that is to take over
    snapshot: Snapshot | None = None
    drift: DriftReading | None = None
    served: Route | None = None  # the route that every router was last seen to serve
    resolution: Resolution | None = None
    refused: str = ""
