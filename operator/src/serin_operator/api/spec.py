"""`spec` of a ModelDeployment as frozen values.

The API server has applied the CRD's defaults and rules before anything arrives here, so parsing
neither repeats defaults nor checks ranges; a missing required field is a bug and raises KeyError.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Model:
    """Which bytes to serve. `sha256` is None until somebody pins it: the user, or Serin's resolver."""

    uri: str
    format: str
    sha256: str | None
    version: str | None
    secret: str | None


@dataclass(frozen=True, slots=True)
class Server:
    """How each model server pod runs. `config` holds the fields that make a new revision when they change."""

    replicas: int
    ready_timeout: float
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The embedded router; `timeout` is in seconds per request."""

    router_replicas: int
    router_resources: Mapping[str, Any]
    timeout: float


@dataclass(frozen=True, slots=True)
class Step:
    """A canary weight in per cent and the least time, in seconds, that it serves."""

    weight: int
    duration: float


@dataclass(frozen=True, slots=True)
class Rollout:
    """How traffic moves to a new revision; times in seconds."""

    steps: tuple[Step, ...]
    max_duration: float
    on_inconclusive: OnInconclusive
    paused: bool
    keep_previous: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One judged metric. `margin` and `tolerance` are fractions; `slower_than` is seconds, for latency only."""

    name: str
    margin: float
    tolerance: float
    slower_than: float | None


@dataclass(frozen=True, slots=True)
class Analysis:
    """What decides a rollout. `prometheus` is the address to read counters from; None: scrape the pods."""

    interval: float
    false_rollback_rate: float
    false_promotion_rate: float
    prometheus: str | None
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """All that a user asks for."""

    model: Model
    server: Server
    traffic: Traffic
    rollout: Rollout
    analysis: Analysis


_SERVER_CONFIG = ("image", "env", "resources", "podTemplate")


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
        ),
        server=Server(
            replicas=server["replicas"],
            ready_timeout=seconds(server["readyTimeout"]),
            config={key: server[key] for key in _SERVER_CONFIG if key in server},
        ),
        traffic=Traffic(
            router_replicas=traffic["router"]["replicas"],
            router_resources=traffic["router"]["resources"],
            timeout=seconds(traffic["timeout"]),
        ),
        rollout=Rollout(
            steps=tuple(Step(step["weight"], seconds(step["duration"])) for step in rollout["steps"]),
            max_duration=seconds(rollout["maxDuration"]),
            on_inconclusive=OnInconclusive(rollout["onInconclusive"]),
            paused=rollout["paused"],
            keep_previous=seconds(rollout["keepPrevious"]),
        ),
        analysis=Analysis(
            interval=seconds(analysis["interval"]),
            false_rollback_rate=float(analysis["falseRollbackRate"]),
            false_promotion_rate=float(analysis["falsePromotionRate"]),
            prometheus=analysis.get("prometheus", {}).get("address"),
            metrics=tuple(_parse_metric(metric) for metric in analysis["metrics"]),
        ),
    )


def _parse_metric(raw: Mapping[str, Any]) -> Metric:
    slower_than = raw.get("slowerThan")
    return Metric(
        name=raw["name"],
        margin=float(raw["margin"]),
        tolerance=float(raw.get("tolerance", 0.0)),
        slower_than=None if slower_than is None else seconds(slower_than),
    )
