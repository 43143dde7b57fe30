"""Models and pods of the tests' world, and what their counters show."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from serin_operator.api.spec import Analysis, Metric, MetricType
from serin_operator.decide import keys
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Samples, Trouble


@dataclass(frozen=True)
class Model:
    """How one model version behaves: the share of its requests that fail, are slow or wrong, and whether it starts.

    cat, dog: wrong among the trials of that class, for recall, precision and f1. off: predictions off by too much.
    differs: in how many answers from the stable revision's, where both answer the same request.
    """

    errors: float = 0.01
    latency: float = 0.02
    accuracy: float = 0.05
    cat: float = 0.05
    dog: float = 0.05
    off: float = 0.05
    restarts: float = 0.0
    custom: float = 0.01
    differs: float = 0.02
    trouble: Trouble | None = None
    starts: bool = True

    def share(self, metric: Metric) -> float:
        """The share of failures in the metric's trials; of both classes together for a macro average."""
        match metric.type:
            case MetricType.ERRORS:
                return self.errors
            case MetricType.LATENCY:
                return self.latency
            case MetricType.ACCURACY:
                return self.accuracy
            case MetricType.PRECISION | MetricType.RECALL | MetricType.F1:
                return {"cat": self.cat, "dog": self.dog, None: (self.cat + self.dog) / 2}[metric.label]
            case MetricType.REGRESSION:
                return self.off
            case MetricType.RESTARTS:
                return self.restarts
            case MetricType.CUSTOM:
                return self.custom


GOOD = Model()
HARMFUL = Model(errors=0.2)
BROKEN = Model(starts=False, trouble=Trouble("MissingModule", "no module named 'xgboost'", 21, permanent=True))
SLEEPY = Model(starts=False)


@dataclass
class Pod:
    """One model server pod; `requests` is its cumulative counter since `started`, `past` what it was at which time.

    copies: those of `requests` that stable answered as well.
    """

    name: str
    started: float
    ready_at: float
    requests: int = 0
    copies: int = 0
    read: bool = True
    past: list[tuple[float, int]] = field(default_factory=list)

    @property
    def series(self) -> str:
        """What its counters are called: a restarted process is another one."""
        return f"{self.name}/{self.started:.0f}"

    def requests_at(self, time: float) -> int:
        """How many requests it had had by then."""
        place = bisect_right(self.past, time, key=lambda each: each[0])
        return self.past[place - 1][1] if place else 0


Fleet = Mapping[str, tuple[Model, Sequence[Pod]]]  # per revision, its model and the pods that can be read


def samples(fleet: Fleet, analysis: Analysis, labelled: float, now: float) -> Samples:
    """What the pods' counters show. `labelled`: the part of the predictions that get a label, just in time for the
    label window."""

    def counts(part: float, share: Callable[[Model], float], age: float = 0.0) -> dict[str, dict[str, Counts]]:
        """So large a part of the requests of this age as trials, and this share of them as failures."""
        found: dict[str, dict[str, Counts]] = {}
        for revision, (model, pods) in fleet.items():
            trials = {pod.series: int(part * pod.requests_at(now - age)) for pod in pods}
            found[revision] = {series: Counts(int(share(model) * count), count) for series, count in trials.items()}
        return found

    window = analysis.label_window
    shown = {keys.REQUESTS: counts(1.0, lambda model: 0.0)}
    for metric in analysis.metrics:
        part, age = (labelled, window) if keys.labelled(metric) else (1.0, 0.0)
        for counted, key in _counted(metric, window):
            shown[key] = counts(part / 2 if keys.macro(metric) else part, counted.share, age)
    # Of the labels' coverage, predictions and labels are trials and the labels failures.
    shown[keys.coverage_key(window)] = counts(1 + labelled, lambda model: labelled / (1 + labelled), window)
    return shown


@dataclass(frozen=True)
class _Counted:
    """A metric, or one class of an average."""

    metric: Metric

    def share(self, model: Model) -> float:
        """Of this model's failures."""
        return model.share(self.metric)


def _counted(metric: Metric, window: float) -> list[tuple[_Counted, str]]:
    """What a metric counts, and under which keys: one for each class of an average."""
    if not keys.macro(metric):
        return [(_Counted(metric), keys.metric_key(metric, window))]
    of_class = [replace(metric, label=label) for label in ("cat", "dog")]
    return [(_Counted(each), keys.metric_key(each, window)) for each in of_class]


def pairs(stable: str, right: Model, canary: str, model: Model, pods: Sequence[Pod], labelled: float) -> Samples:
    """What the canary's pods show of copies. One of both is right where answers differ, if labels leave a choice."""
    found: dict[str, dict[str, dict[str, Counts]]] = {key: {canary: {}} for key in keys.pair_keys(stable)}
    for pod in pods:
        copies = pod.copies
        differ, labels = int(model.differs * copies), int(labelled * copies)
        settled = min(int(labelled * differ), labels)
        wrong, wrong_of_stable = (int(each.accuracy * labels) for each in (model, right))
        only_canary = min(settled, max(0, (settled + wrong - wrong_of_stable) // 2))
        counts = (
            Counts(differ, copies),
            Counts(only_canary, settled),
            Counts(wrong, labels),
            Counts(wrong_of_stable, labels),
        )
        for key, count in zip(keys.pair_keys(stable), counts, strict=True):
            found[key][canary][pod.series] = count
    return found
