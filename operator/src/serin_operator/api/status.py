"""`status` of a ModelDeployment as frozen values, and its exact way to and from JSON.

Status is Serin's write-ahead log: a decision is written here first, and everything in the cluster is
derived from it, so that a pass can be stopped at any instruction. Times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from serin_operator.api.spec import Profile, RouterType, Signature, Strategy, Traffic

HISTORY_LIMIT = 20
_TIME = {"time": True}
T = TypeVar("T")


class Phase(StrEnum):
    """One word for people; the conditions carry the machine-readable state."""

    PENDING = "Pending"
    SERVING = "Serving"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    ROLLED_BACK = "RolledBack"


class ByHand(StrEnum):
    """What somebody asks of the rollout under way: to wait no longer, to promote without evidence, to roll back."""

    STEP = "Step"
    FULL = "Full"
    ABORT = "Abort"


@dataclass(frozen=True, slots=True)
class Marks:
    """The annotations that ask for something, as they were last heeded."""

    promote: str | None = None
    abort: str | None = None


@dataclass(frozen=True, slots=True)
class Revision:
    """One model at exact bytes with one server configuration: all that is needed to build its Deployment again.

    replicas: how many pods it shall have. stopped: that is none for now, by the strategy Recreate.
    """

    revision: str
    version: str
    uri: str
    format: str
    sha256: str
    image: str
    secret: str | None = None
    trusted_types: tuple[str, ...] = ()
    profile: Profile | None = None
    signature: Signature | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 0
    ready_replicas: int = 0
    kept_until: float | None = field(default=None, metadata=_TIME)
    stopped: bool | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The digest that a URI had when Serin read it for this model version."""

    uri: str
    sha256: str
    size: int
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The revision that a rollout turned down; it is not tried again until the spec or the retry mark changes."""

    revision: str
    reason: str
    message: str
    time: float = field(metadata=_TIME)
    retry: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The last time that a container of Serin's ended badly."""

    revision: str
    reason: str
    message: str
    time: float = field(metadata=_TIME)
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """`failures` in `trials`, since the rollout began."""

    failures: int
    trials: int


@dataclass(frozen=True, slots=True)
class BoundReport:
    """The evidence on a metric's absolute bound: odds that the canary is over it and under it, the stable over it."""

    bound: float
    odds_over: float
    odds_under: float
    odds_stable_over: float


@dataclass(frozen=True, slots=True)
class MetricReport:
    """What is known about one metric. `low`, `difference` and `high` are canary minus stable, as fractions.

    message: all of it in a sentence. needed: what is still missing for a verdict; empty when nothing is.
    """

    name: str
    verdict: str
    canary: Tally
    stable: Tally
    odds_worse: float
    odds_non_inferior: float
    message: str
    needed: str = ""
    role: str = ""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    odds_superior: float | None = None
    bound: BoundReport | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """When a rollout can decide at the traffic of that time, if the canary is good, and what it can see.

    minutes: until promotion, None when it can not be told or never comes. limited_by: the metric that takes longest.
    detectable: the smallest worsening that is found within maxDuration on that metric, as a fraction.
    """

    time: float = field(metadata=_TIME)
    message: str = ""
    minutes: float | None = None
    limited_by: str = ""
    detectable: float | None = None
    per_minute: float | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about the evidence that a reader should know: one CamelCase word and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout under way. `step` is None until the canary is ready; it starts when its weight is seen serving.

    In mode Adaptive `steps` is 0 and `step` counts the raises; a preview is step 0 of 0. `exposed` are the requests
    that the canary has had. `mirror` is the per cent of the inferences that the canary gets a copy of, in place of
    traffic of its own; 0 when it is no shadow. `capacity` is the weight that it shall have pods for. `strategy` stays
    what it was when the rollout began; `by_hand` is what somebody asked of it. `started_at` and `step_started_at` move
    on by the length of every pause, also for somebody, when it ends.
    """

    started_at: float = field(metadata=_TIME)
    steps: int = 0
    step: int | None = None
    mirror: int = 0
    step_started_at: float | None = field(default=None, metadata=_TIME)
    step_trials: Mapping[str, int] = field(default_factory=dict)
    verified_weight: int = 0
    capacity: int = 0
    unready_since: float | None = field(default=None, metadata=_TIME)
    paused_at: float | None = field(default=None, metadata=_TIME)
    strategy: Strategy = Strategy.CANARY
    by_hand: ByHand | None = None
    exposed: int = 0
    forecast: Forecast | None = None
    remarks: tuple[Remark, ...] = ()
    evidence_at: float | None = field(default=None, metadata=_TIME)
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """A Service with a fixed name, for a user's own route: it is to lead to `revision`.

    since: when it was first seen to lead there, to a ready pod; None while it does not. settled: Gateways know by now,
    so it may get a weight. idle: since when it is seen to have none, while nobody needs its revision.
    """

    revision: str
    since: float | None = field(default=None, metadata=_TIME)
    settled: bool = False
    idle: float | None = field(default=None, metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Routing:
    """What splits the traffic: clients reach `router`. `next` is to take over, `leaving` ends at `leaving_until`.

    weight: for ReplicaRatio, the canary's part of the pods that answer, in per cent. blue, green: the two Services that
    a user's own route names, None before they lead anywhere.
    """

    router: RouterType
    next: RouterType | None = None
    leaving: RouterType | None = None
    leaving_until: float | None = field(default=None, metadata=_TIME)
    weight: float | None = None
    blue: Slot | None = None
    green: Slot | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Those that lead somewhere."""
        return tuple(slot for slot in (self.blue, self.green) if slot)


@dataclass(frozen=True, slots=True)
class Watch:
    """The time after a promotion in which late evidence can still take it back; `against` is the old stable.

    worse_since: since when it would be taken back, if the old stable had its pods.
    """

    revision: str
    against: str
    until: float = field(metadata=_TIME)
    strategy: Strategy = Strategy.CANARY
    worse_since: float | None = field(default=None, metadata=_TIME)
    evidence_at: float | None = field(default=None, metadata=_TIME)
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """The watch for drift of the stable revision: `rows` of the period since `since`, of which the last was read `at`.

    periods: how many were judged. odds: that the traffic is further from the reference than tolerated.
    """

    revision: str
    since: float = field(metadata=_TIME)
    at: float = field(metadata=_TIME)
    rows: int = 0
    periods: int = 0
    odds: float = 0.0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One decision with the evidence it stood on."""

    time: float = field(metadata=_TIME)
    decision: str = ""
    reason: str = ""
    message: str = ""
    from_revision: str | None = None
    to_revision: str | None = None
    step: int | None = None
    weight: int = 0
    metrics: tuple[MetricReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A standard condition; `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: float = field(metadata=_TIME)
    observed_generation: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that Serin remembers about one ModelDeployment.

    operator: the one that wrote it last. least_replicas: what the autoscaler may not go below now; None for what the
    spec says. autoscaled_since: when its field was first seen, for as long as it is there. routing: None while it is
    the embedded router alone. traffic: what each of its routers was last asked for.
    """

    observed_generation: int = 0
    operator: str = ""
    phase: Phase = Phase.PENDING
    weight: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    least_replicas: int | None = None
    autoscaled_since: float | None = field(default=None, metadata=_TIME)
    selector: str = ""
    stable: Revision | None = None
    canary: Revision | None = None
    previous: Revision | None = None
    retiring: tuple[Revision, ...] = ()
    routing: Routing | None = None
    traffic: tuple[Traffic, ...] = ()
    resolved: Resolved | None = None
    rejected: Rejected | None = None
    marks: Marks | None = None
    last_failure: Failure | None = None
    rollout: Rollout | None = None
    watch: Watch | None = None
    drift: Drift | None = None
    metrics: tuple[MetricReport, ...] = ()
    history: tuple[Record, ...] = ()
    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if there is one."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    def recorded(self, record: Record) -> "Status":
        """The same status with one more decision, newest first, bounded."""
        return replace(self, history=(record, *self.history)[:HISTORY_LIMIT])


def rfc3339(time: float) -> str:
    """A time as the API server writes it, with microseconds: rollouts are judged to the second."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def dump_status(status: Status) -> dict[str, Any]:
    """The status as JSON; what is None or empty is left out, unless its field is required."""
    raw: dict[str, Any] = _dump(status)
    return raw


def parse_status(raw: Mapping[str, Any]) -> Status:
    """The typed status of a resource's `status`; an empty one for a resource that was never seen."""
    traffic = [entry for entry in raw.get("traffic", []) if _is_readable(entry)]
    return _parse_dataclass(Status, {**raw, "traffic": traffic})


def _is_readable(traffic: Mapping[str, Any]) -> bool:
    """Whether this version knows such settings of a router. Where another wrote them, the router goes by the spec."""
    try:
        _parse_dataclass(Traffic, traffic)
    except (TypeError, ValueError):
        return False
    return True


def _dump(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        out = {}
        for item in fields(value):
            inner = getattr(value, item.name)
            required = item.default is MISSING and item.default_factory is MISSING
            if inner is None or (inner in ("", (), {}) and not required):
                continue
            out[_camel(item.name)] = _dump_time(value, inner) if item.metadata else _dump(inner)
        return out
    if isinstance(value, tuple):
        return [_dump(item) for item in value]
    return value


def _dump_time(owner: Any, time: float) -> str:
    if isinstance(owner, Condition):  # metav1.Condition allows whole seconds only
        return datetime.fromtimestamp(int(time), UTC).isoformat().replace("+00:00", "Z")
    return rfc3339(time)


def _parse_dataclass(kind: type[T], raw: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    arguments = {}
    for item in fields(kind):  # type: ignore[arg-type]  # only dataclasses arrive here
        if (key := _camel(item.name)) in raw:
            value = raw[key]
            arguments[item.name] = parse_time(value) if item.metadata else _parse(hints[item.name], value)
    return kind(**arguments)


def _parse(hint: Any, value: Any) -> Any:
    if isinstance(hint, UnionType):
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is tuple:
        return tuple(_parse(get_args(hint)[0], item) for item in value)
    if is_dataclass(hint) and isinstance(hint, type):
        return _parse_dataclass(hint, value)
    if isinstance(hint, type) and issubclass(hint, (StrEnum, float)):
        return hint(value)
    return value


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)
