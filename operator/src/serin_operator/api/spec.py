"""`spec` of a ModelDeployment as frozen values.

The API server has applied the CRD's defaults and rules before anything arrives here, so parsing
neither repeats defaults nor checks ranges; a missing required field is a bug and raises KeyError.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from serin_operator.api.callers import Sticky, Testers, parse_sticky, parse_testers

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Seconds in a duration as Go writes it: `1h30m`, `90s`, `2.5ms`. Raises ValueError on anything else."""
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r} (write it like 90s or 1h30m)")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


class OnInconclusive(StrEnum):
    """What to do when `maxDuration` ends without a verdict. Promotion is never among it."""

    HOLD = "Hold"
    ROLLBACK = "Rollback"


class Mode(StrEnum):
    """What raises the canary's weight: the user's list of steps, or the evidence within a budget of harm."""

    STEPS = "Steps"
    ADAPTIVE = "Adaptive"


class RouterType(StrEnum):
    """What splits the requests between the stable revision and the canary."""

    EMBEDDED = "Embedded"
    GATEWAY_API = "GatewayAPI"
    ISTIO = "Istio"
    REPLICA_RATIO = "ReplicaRatio"


class CanaryReplicas(StrEnum):
    """How many pods a canary has: those that its weight needs, or as many as the stable revision."""

    FOLLOW_WEIGHT = "FollowWeight"
    FULL = "Full"


class Strategy(StrEnum):
    """How a new revision takes over: by a rising share, by one switch after a preview, when copies of requests have
    shown that it may, or when the old one has gone."""

    CANARY = "Canary"
    BLUE_GREEN = "BlueGreen"
    SHADOW = "Shadow"
    RECREATE = "Recreate"


class Promotion(StrEnum):
    """Who promotes when the evidence suffices: Serin, or somebody by hand."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class MetricType(StrEnum):
    """What counts as a trial and as a failure; docs/metrics.md has the table."""

    ERRORS = "errors"
    LATENCY = "latency"
    ACCURACY = "accuracy"
    PRECISION = "precision"
    RECALL = "recall"
    F1 = "f1"
    REGRESSION = "regression"
    RESTARTS = "restarts"
    CUSTOM = "custom"


class Role(StrEnum):
    """What a metric may do: a guard rolls back, a gate must pass before promotion, an observer is only shown."""

    GUARD_AND_GATE = "GuardAndGate"
    GUARD = "Guard"
    GATE = "Gate"
    OBSERVE = "Observe"


class Goal(StrEnum):
    """What a gate asks of the canary: worse by less than the margin, or better than the stable revision."""

    NON_INFERIOR = "NonInferior"
    SUPERIOR = "Superior"


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the model's reference profile is, and the SHA-256 of its bytes."""

    uri: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Signature:
    """Where the model's detached signature is, and who must have made it, in PEM: one of the two is given."""

    uri: str
    public_key: str | None = None
    certificate_chain: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Which bytes to serve. `sha256` is None until somebody pins it: the user, or Serin's resolver."""

    uri: str
    format: str
    sha256: str | None
    version: str | None
    secret: str | None
    trusted_types: tuple[str, ...] = ()
    profile: Profile | None = None
    signature: Signature | None = None


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """The bounds of the HorizontalPodAutoscaler that Serin makes, and what it goes by: at least one of the two.

    cpu_utilization: percent of the requested CPU. requests_in_flight: for each pod.
    """

    min_replicas: int
    max_replicas: int
    cpu_utilization: int | None = None
    requests_in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """How each model server pod runs. `config` holds the fields that make a new revision when they change."""

    replicas: int
    ready_timeout: float
    config: Mapping[str, Any]
    autoscaling: Autoscaling | None = None


@dataclass(frozen=True, slots=True)
class GatewayRoute:
    """The Gateways that a route is for, as `parentRefs` of the Gateway API, and the host names; none: all of them.

    grpc: the same for gRPC, None where there is no route for it.
    """

    parents: tuple[Mapping[str, Any], ...]
    hostnames: tuple[str, ...] = ()
    grpc: "GatewayRoute | None" = None


@dataclass(frozen=True, slots=True)
class Mesh:
    """Istio: further host names than the Service's, and the Gateways (`namespace/name`) besides the mesh itself."""

    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """What splits the requests; `timeout` is in seconds per request. router_*: of the embedded router's pods.

    gateway: for which Gateways a route is written. own_route: the name of the user's own, in its place.
    tls_secret: the Secret with the certificate for clients. access_log: the share of requests that are logged, beside
    all that fail; None: no log.
    """

    router: RouterType
    router_replicas: int
    router_resources: Mapping[str, Any]
    timeout: float
    gateway: GatewayRoute | None = None
    own_route: str | None = None
    mesh: Mesh = field(default_factory=Mesh)
    testers: Testers | None = None
    sticky: Sticky | None = None
    tls_secret: str | None = None
    access_log: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A canary weight in per cent and the least time, in seconds, that it serves. pause: it then waits for somebody."""

    weight: int
    duration: float
    pause: bool = False


@dataclass(frozen=True, slots=True)
class Shadow:
    """The per cent of the inferences of which the canary gets a copy, and the least time, in seconds, that it does."""

    percent: int
    duration: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """How traffic moves to a new revision; times in seconds, weights in per cent.

    steps: for mode Steps. exposure_budget, max_weight: for mode Adaptive; the budget is in harmed requests.
    watch: how long late evidence can still roll a promoted revision back. shadow: comes before anything else, if given.
    """

    mode: Mode
    steps: tuple[Step, ...]
    exposure_budget: int
    max_weight: int
    max_duration: float
    on_inconclusive: OnInconclusive
    paused: bool
    keep_previous: float
    watch: float
    canary_replicas: CanaryReplicas = CanaryReplicas.FOLLOW_WEIGHT
    strategy: Strategy = Strategy.CANARY
    shadow: Shadow | None = None
    promotion: Promotion = Promotion.AUTOMATIC


@dataclass(frozen=True, slots=True)
class Queries:
    """PromQL for a custom metric: cumulative counters, with $name, $namespace and $revision to be put in."""

    failures: str
    trials: str


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `margin`, `tolerance` and `bound` are shares of failures, as fractions.

    bound: the share that the canary may not exceed, whatever the stable revision does.
    slower_than: seconds, for latency. label: the class, for precision, recall and f1; None is the macro average.
    within: the largest error that is no failure, for regression. queries: for custom.
    """

    name: str
    type: MetricType
    margin: float
    tolerance: float = 0.0
    weight: float = 1.0
    role: Role = Role.GUARD_AND_GATE
    goal: Goal = Goal.NON_INFERIOR
    bound: float | None = None
    slower_than: float | None = None
    label: str | None = None
    within: float | None = None
    queries: Queries | None = None

    @property
    def guards(self) -> bool:
        """Whether it can roll back."""
        return self.role in (Role.GUARD_AND_GATE, Role.GUARD)

    @property
    def gates(self) -> bool:
        """Whether it must pass for promotion."""
        return self.role in (Role.GUARD_AND_GATE, Role.GATE)

    @property
    def per_request(self) -> bool:
        """Whether every request, or every prediction with a label, is a trial, so that failures are requests harmed."""
        return self.type in (MetricType.ERRORS, MetricType.LATENCY, MetricType.ACCURACY, MetricType.REGRESSION)


@dataclass(frozen=True, slots=True)
class Drift:
    """How live traffic is compared with the model's reference; it decides nothing about rollouts.

    false_alarm_rate: per period, on average. tolerance: the share of rows that may be elsewhere than in the reference.
    period: seconds whose rows are judged together.
    """

    false_alarm_rate: float
    tolerance: float
    period: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """What decides a rollout; times in seconds.

    prometheus: the address to read counters from; None: scrape the pods.
    label_window: labels are counted when their prediction is so old, and later ones not at all; 0: as they arrive.
    warm_up: scrapes after a change of the weight that no arm counts.
    calibration: the least time for which the stable pods are compared with each other before the first step.
    drift: None where only rollouts are asked about.
    """

    interval: float
    false_rollback_rate: float
    false_promotion_rate: float
    prometheus: str | None
    label_window: float
    warm_up: int
    calibration: float
    metrics: tuple[Metric, ...]
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """All that a user asks for."""

    model: Model
    server: Server
    traffic: Traffic
    rollout: Rollout
    analysis: Analysis


_SERVER_CONFIG = ("image", "env", "resources", "podTemplate", "accelerate", "processes", "accessLog", "payloadLog")


def parse_spec(raw: Mapping[str, Any]) -> Spec:
    """The typed spec of a resource's `spec`, read after the API server's defaulting."""
    model, server, traffic = raw["model"], raw["server"], raw["traffic"]
    rollout, analysis = raw["rollout"], raw["analysis"]
    return Spec(
        model=Model(
            uri=model["uri"],
            format=model["format"],
            sha256=model.get("sha256"),
            version=model.get("version"),
            secret=model.get("secretRef", {}).get("name"),
            trusted_types=tuple(model.get("trustedTypes", ())),
            profile=Profile(**model["profile"]) if "profile" in model else None,
            signature=_parse_signature(model) if "signature" in model else None,
        ),
        server=Server(
            replicas=server["replicas"],
            ready_timeout=seconds(server["readyTimeout"]),
            config={key: server[key] for key in _SERVER_CONFIG if key in server},
            autoscaling=_parse_autoscaling(server["autoscaling"]) if "autoscaling" in server else None,
        ),
        traffic=_parse_traffic(traffic),
        rollout=parse_rollout(rollout),
        analysis=parse_analysis(analysis),
    )


def _parse_autoscaling(raw: Mapping[str, Any]) -> Autoscaling:
    return Autoscaling(
        raw["minReplicas"],
        raw["maxReplicas"],
        raw.get("cpu", {}).get("averageUtilization"),
        raw.get("requestsInFlight", {}).get("averageValue"),
    )


def _parse_traffic(raw: Mapping[str, Any]) -> Traffic:
    router = raw["router"]
    return Traffic(
        router=RouterType(router["type"]),
        router_replicas=router["replicas"],
        router_resources=router["resources"],
        timeout=seconds(raw["timeout"]),
        gateway=_parse_gateway(router["gatewayAPI"]) if "parentRefs" in router.get("gatewayAPI", {}) else None,
        own_route=router.get("gatewayAPI", {}).get("routeRef", {}).get("name"),
        mesh=Mesh(**{key: tuple(names) for key, names in router.get("istio", {}).items()}),
        testers=parse_testers(raw),
        sticky=parse_sticky(raw),
        tls_secret=raw.get("tls", {}).get("secretName"),
        access_log=float(raw["accessLog"]["sample"]) if "accessLog" in raw else None,
    )


def _parse_gateway(raw: Mapping[str, Any]) -> GatewayRoute:
    parents, grpc = tuple(raw["parentRefs"]), raw.get("grpc")
    of_grpc = None
    if grpc is not None:
        of_grpc = GatewayRoute(tuple(grpc.get("parentRefs", parents)), tuple(grpc.get("hostnames", ())))
    return GatewayRoute(parents, tuple(raw.get("hostnames", ())), of_grpc)


def _parse_signature(model: Mapping[str, Any]) -> Signature:
    raw = model["signature"]
    return Signature(raw.get("uri", f"{model['uri']}.sig"), raw.get("publicKey"), raw.get("certificateChain"))


def parse_rollout(raw: Mapping[str, Any]) -> Rollout:
    """The typed `spec.rollout`, read after defaulting."""
    return Rollout(
        mode=Mode(raw["mode"]),
        steps=tuple(Step(step["weight"], seconds(step["duration"]), step.get("pause", False)) for step in raw["steps"]),
        exposure_budget=raw["exposureBudget"],
        max_weight=raw["maxWeight"],
        max_duration=seconds(raw["maxDuration"]),
        on_inconclusive=OnInconclusive(raw["onInconclusive"]),
        paused=raw["paused"],
        keep_previous=seconds(raw["keepPrevious"]),
        watch=seconds(raw["watch"]),
        canary_replicas=CanaryReplicas(raw["canaryReplicas"]),
        strategy=Strategy(raw["strategy"]),
        shadow=Shadow(raw["shadow"]["percent"], seconds(raw["shadow"]["duration"])) if "shadow" in raw else None,
        promotion=Promotion(raw["promotion"]),
    )


def parse_analysis(raw: Mapping[str, Any]) -> Analysis:
    """The typed `spec.analysis`, read after defaulting."""
    return Analysis(
        interval=seconds(raw["interval"]),
        false_rollback_rate=float(raw["falseRollbackRate"]),
        false_promotion_rate=float(raw["falsePromotionRate"]),
        prometheus=raw.get("prometheus", {}).get("address"),
        label_window=seconds(raw["labelWindow"]),
        warm_up=raw["warmUp"],
        calibration=seconds(raw["calibration"]),
        metrics=tuple(_parse_metric(metric) for metric in raw["metrics"]),
        drift=_parse_drift(raw["drift"]),
    )


def _parse_drift(raw: Mapping[str, Any]) -> Drift:
    return Drift(float(raw["falseAlarmRate"]), float(raw["tolerance"]), seconds(raw["period"]))


def _parse_metric(raw: Mapping[str, Any]) -> Metric:
    slower_than, bound, within, queries = (raw.get(key) for key in ("slowerThan", "bound", "within", "queries"))
    return Metric(
        name=raw["name"],
        type=MetricType(raw.get("type", raw["name"])),
        margin=float(raw["margin"]),
        tolerance=float(raw["tolerance"]),
        weight=float(raw["weight"]),
        role=Role(raw["role"]),
        goal=Goal(raw["goal"]),
        bound=None if bound is None else float(bound),
        slower_than=None if slower_than is None else seconds(slower_than),
        label=raw.get("class"),
        within=None if within is None else float(within),
        queries=None if queries is None else Queries(queries["failures"], queries["trials"]),
    )
