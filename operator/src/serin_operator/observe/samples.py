"""From the model servers' raw counters to failures and trials per metric, revision and series. Pure.

Requests that the router sent a second time carry attempt="retry" and are left out: a failing canary's requests,
answered by stable, would otherwise count for or against stable.

Labels are counted from the series of one `window`: at the age that `analysis.labelWindow` says, or at arrival for 0.
A pod counts the labels that reach it for the revision that predicted, so every pod can have counts of both arms.

Model servers name at most 50 classes. Those beyond are one class here, "other": a label for it is right when it is the
very class that was predicted. Model servers write actual="another", predicted="other" when it is not.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from serin_operator.api.spec import Metric, MetricType
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import (
    REQUESTS,
    class_key,
    coverage_key,
    labelled,
    macro,
    metric_key,
    moves_key,
    pair_keys,
)
from serin_operator.decide.observed import Samples
from serin_operator.observe.coins import heads

STARTED = "process_start_time_seconds"
_REQUESTS = "serin_requests_total"
_DURATIONS = "serin_request_duration_seconds_bucket"
_FEEDBACK = "serin_feedback_total"
_SETTLED_FEEDBACK = "serin_feedback_settled_total"
_SETTLED_PREDICTIONS = "serin_predictions_settled_total"
_ERRORS = "serin_feedback_error_bucket"
_PAIRS = "serin_pairs_total"
_PAIRED_LABELS = "serin_paired_labels_total"
_SETTLED_PAIRS = "serin_pairs_settled_total"
_SETTLED_PAIRED_LABELS = "serin_paired_labels_settled_total"
_MOVES = "serin_pairs_moved_total"
_DISTANCES = "serin_pairs_distance_bucket"
_WITH_WINDOW = (_SETTLED_FEEDBACK, _SETTLED_PREDICTIONS, _ERRORS, _SETTLED_PAIRS, _SETTLED_PAIRED_LABELS)
_OTHER, _ANOTHER = "other", "another"
_MOST = 2.0**53  # beyond it a counter of floating point does not rise by ones

_Place = tuple[str, str]  # revision and series
_PerArm = Mapping[str, Mapping[str, Counts]]


def series_of(pod: str, started: float) -> str:
    """Names a process. Raises ValueError for a time at which none starts: as a new process it would count from 0."""
    if not 0 < started < math.inf:
        raise ValueError(f"the {STARTED} of {pod} is {started}")
    return f"{pod}/{started:.0f}"


@dataclass(frozen=True, slots=True)
class Point:
    """One sample of a counter: `series` names the process, as "pod/start time".

    Raises ValueError for a value that no counter has.
    """

    series: str
    name: str
    labels: Mapping[str, str]
    value: float

    def __post_init__(self) -> None:
        if not 0 <= self.value <= _MOST:
            raise ValueError(f"the counter {self.name} of {self.series} is {self.value}")

    @property
    def place(self) -> _Place:
        """Whose counter it is."""
        return self.labels.get("revision", ""), self.series


@dataclass(frozen=True, slots=True)
class Reading:
    """What a metrics source tells about model servers.

    processes: the series of the processes that were read. unread: serving pods that were not, and why.
    problem: why nothing could be read, if so.
    """

    points: Sequence[Point] = ()
    processes: frozenset[str] = frozenset()
    unread: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Cell:
    """Labels of one true and one predicted class; `right` says whether they are the same."""

    actual: str
    predicted: str
    right: bool
    labels: int


_Confusion = Mapping[_Place, Sequence[_Cell]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which series to read: those of `families` that have no window, or this one."""

    families: tuple[str, ...]
    window: str


def wanted(metrics: Sequence[Metric], window: float, *, shadow: bool = False) -> Wanted:
    """What has to be read for these metrics. window: `analysis.label_window`, in seconds.

    shadow: whether the canary gets, or will get, copies of requests.
    """
    types = {metric.type for metric in metrics}
    families = [STARTED, _REQUESTS]
    if shadow:
        families += [_PAIRS, _MOVES, _DISTANCES]
        families += [_SETTLED_PAIRS, _SETTLED_PAIRED_LABELS] if window else [_PAIRED_LABELS]
    if MetricType.LATENCY in types:
        families.append(_DURATIONS)
    if any(labelled(metric) for metric in metrics):
        families += [_SETTLED_FEEDBACK, _SETTLED_PREDICTIONS, _ERRORS] if window else [_FEEDBACK, _ERRORS]
    return Wanted(tuple(families), f"{window:g}")


def samples(metrics: Sequence[Metric], points: Iterable[Point], window: float) -> Samples:
    """Reduces raw counters to counts for every revision that appears: see `decide.keys` for what each key counts.

    `restarts` and custom metrics are not among them: model servers do not count those.
    """
    by_family: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        in_window = point.name not in _WITH_WINDOW or point.labels.get("window") == f"{window:g}"
        if in_window and point.labels.get("attempt", "first") == "first":
            by_family[point.name].append(point)
    confusion = _confusion(by_family[_SETTLED_FEEDBACK if window else _FEEDBACK])
    found: dict[str, _PerArm] = {
        REQUESTS: _arranged({place: Counts(0, n) for place, n in _totals(by_family[_REQUESTS]).items()})
    }
    for metric in metrics:
        key = metric_key(metric, window)
        match metric.type:
            case MetricType.ERRORS:
                found[key] = _errors(by_family[_REQUESTS])
            case MetricType.LATENCY:
                found[key] = _over(by_family[_DURATIONS], metric.slower_than)
            case MetricType.REGRESSION:
                found[key] = _over(by_family[_ERRORS], metric.within)
            case MetricType.ACCURACY:
                found[key] = _of_labels(confusion, lambda _: True)
            case MetricType.F1 if macro(metric):
                for name in _classes(confusion):
                    found[class_key(metric, name, window)] = _of_labels_once(confusion, name)
            case MetricType.PRECISION | MetricType.RECALL | MetricType.F1:
                for name in _classes(confusion) if macro(metric) else [metric.label or ""]:
                    found[class_key(metric, name, window)] = _of_labels(confusion, _concerns(metric.type, name))
    if window and any(labelled(metric) for metric in metrics):
        labels = [*by_family[_SETTLED_FEEDBACK], *(p for p in by_family[_ERRORS] if _bound(p) == math.inf)]
        found[coverage_key(window)] = _coverage(_totals(labels), _totals(by_family[_SETTLED_PREDICTIONS]))
    found |= _pairs(by_family[_PAIRS], by_family[_PAIRED_LABELS]) | _moves(by_family[_MOVES])
    found |= _pairs(by_family[_SETTLED_PAIRS], by_family[_SETTLED_PAIRED_LABELS], window)
    within = next((metric.within for metric in metrics if metric.type is MetricType.REGRESSION), None)
    if within is not None:
        found |= _apart(by_family[_DISTANCES], within)
    return found


def _apart(distances: Sequence[Point], within: float) -> dict[str, _PerArm]:
    """Of each stable revision, pairs of numbers: they differ when they are further apart than counts as an error."""
    stables = sorted({point.labels.get("stable", "") for point in distances})
    return {pair_keys(stable)[0]: _over(_where(distances, "stable", stable), within) for stable in stables}


def _pairs(pairs: Sequence[Point], labelled: Sequence[Point], window: float = 0.0) -> dict[str, _PerArm]:
    """Of each stable revision whose answers the canary's servers have put beside their own.

    window: the age at which these were counted; 0 for as they came.
    """
    found: dict[str, _PerArm] = {}
    for stable in sorted({point.labels.get("stable", "") for point in (*pairs, *labelled)}):
        all_pairs, labels = (
            [point for point in points if point.labels.get("stable") == stable] for points in (pairs, labelled)
        )
        settled = _where(labels, "answers", "different")
        keys = pair_keys(stable, window)
        found[keys[0]] = _part(_where(all_pairs, "answers", "different"), all_pairs)
        found[keys[1]] = _part(_where(settled, "wrong", "canary"), settled)
        found[keys[2]] = _part(_where(labels, "wrong", "canary", "both"), labels)
        found[keys[3]] = _part(_where(labels, "wrong", "stable", "both"), labels)
    return found


def _moves(moves: Sequence[Point]) -> dict[str, _PerArm]:
    by_class: dict[str, list[Point]] = defaultdict(list)
    for point in moves:
        by_class[moves_key(point.labels.get("stable", ""), point.labels.get("predicted", ""))].append(point)
    return {key: _part(_where(points, "by", "canary"), points) for key, points in by_class.items()}


def _where(points: Iterable[Point], label: str, *values: str) -> list[Point]:
    return [point for point in points if point.labels.get(label) in values]


def _part(failures: Iterable[Point], trials: Iterable[Point]) -> _PerArm:
    failed = _totals(failures)
    return _arranged({place: Counts(min(failed.get(place, 0), n), n) for place, n in _totals(trials).items()})


def _errors(requests: Iterable[Point]) -> _PerArm:
    requests = list(requests)
    good = _totals(point for point in requests if point.labels.get("code", "") < "400")
    return _arranged({place: _failed(good.get(place, 0), n) for place, n in _totals(requests).items()})


def _over(buckets: Iterable[Point], bound: float | None) -> _PerArm:
    """What a histogram counts above a bound. A process without a bucket of this bound can not tell."""
    buckets = list(buckets)
    all_of_them = _totals(point for point in buckets if _bound(point) == math.inf)
    good = _totals(point for point in buckets if _bound(point) == bound)
    return _arranged({place: _failed(good[place], n) for place, n in all_of_them.items() if place in good})


def _bound(point: Point) -> float:
    try:
        return float(point.labels.get("le", "nan"))
    except ValueError:
        return math.nan


def _confusion(labels: Iterable[Point]) -> _Confusion:
    found: dict[_Place, list[_Cell]] = defaultdict(list)
    for point in labels:
        actual, predicted = point.labels.get("actual", ""), point.labels.get("predicted", "")
        right = actual == predicted
        if (actual, predicted) == (_ANOTHER, _OTHER):
            actual = _OTHER
        found[point.place].append(_Cell(actual, predicted, right, int(point.value)))
    return found


def _classes(confusion: _Confusion) -> list[str]:
    """All classes that were predicted or true."""
    return sorted({name for cells in confusion.values() for cell in cells for name in (cell.actual, cell.predicted)})


def _concerns(of: MetricType, name: str) -> Callable[[_Cell], bool]:
    """Which labels are trials for precision, recall or f1 of a class."""
    if of is MetricType.PRECISION:
        return lambda cell: cell.predicted == name
    if of is MetricType.RECALL:
        return lambda cell: cell.actual == name
    return lambda cell: name in (cell.actual, cell.predicted)


def _of_labels(confusion: _Confusion, concerns: Callable[[_Cell], bool]) -> _PerArm:
    counts = {}
    for place, cells in confusion.items():
        trials = [cell for cell in cells if concerns(cell)]
        wrong = sum(cell.labels for cell in trials if not cell.right)
        counts[place] = Counts(wrong, sum(cell.labels for cell in trials))
    return _arranged(counts)


def _of_labels_once(confusion: _Confusion, name: str) -> _PerArm:
    """One class's counts for the average of F1: of the wrong predictions only those that fall to this class.

    A wrong prediction has two classes, the true one and the one that it names. Were it counted in both, the classes
    would fail together, and the test of their average would not keep its error rate. So a fair coin gives it to one of
    them. Then the share of failures is just 1 - F1, on average: half of FP + FN are failures, and TP are right.
    """
    counts = {}
    for place, cells in confusion.items():
        right = sum(cell.labels for cell in cells if cell.right and cell.actual == name)
        wrong = 0
        for cell in cells:
            if not cell.right and name in (cell.actual, cell.predicted):
                to_actual = heads(f"{place}{cell.actual}/{cell.predicted}", cell.labels)
                wrong += to_actual if cell.actual == name else 0
                wrong += cell.labels - to_actual if cell.predicted == name else 0
        counts[place] = Counts(wrong, right + wrong)
    return _arranged(counts)


def _coverage(labels: Mapping[_Place, int], predictions: Mapping[_Place, int]) -> _PerArm:
    return _arranged(
        {
            place: Counts(labels.get(place, 0), labels.get(place, 0) + predictions.get(place, 0))
            for place in labels.keys() | predictions.keys()
        }
    )


def _totals(points: Iterable[Point]) -> dict[_Place, int]:
    totals: dict[_Place, int] = defaultdict(int)
    for point in points:
        totals[point.place] += int(point.value)
    return dict(totals)


def _failed(good: int, total: int) -> Counts:
    # A scrape is not one instant for all counters: never more good outcomes than trials.
    return Counts(total - min(good, total), total)


def _arranged(counts: Mapping[_Place, Counts]) -> _PerArm:
    arranged: dict[str, dict[str, Counts]] = defaultdict(dict)
    for (revision, series), found in counts.items():
        arranged[revision][series] = found
    return dict(arranged)
