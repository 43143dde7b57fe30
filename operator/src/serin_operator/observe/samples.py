"""From the model servers' raw counters to failures and trials per metric, revision and series. Pure.

Requests that the router sent a second time carry attempt="retry" and are left out: a failing canary's requests,
answered by stable, would otherwise count for or against stable.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serin_operator.api.spec import Metric
from serin_operator.decide.analysis import metric_key
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Samples

REQUESTS = "serin_requests_total"
DURATIONS = "serin_request_duration_seconds_bucket"
FEEDBACK = "serin_feedback_total"
STARTED = "process_start_time_seconds"
FAMILIES = (REQUESTS, DURATIONS, FEEDBACK, STARTED)


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
        if not 0 <= self.value < math.inf:
            raise ValueError(f"the counter {self.name} of {self.series} is {self.value}")


def samples(metrics: Iterable[Metric], points: Iterable[Point]) -> Samples:
    """Reduces raw counters to counts, for every metric and for every revision that appears."""
    points = [point for point in points if point.labels.get("attempt", "first") == "first"]
    return {metric_key(metric): _reduce(metric, points) for metric in metrics}


def _reduce(metric: Metric, points: list[Point]) -> Mapping[str, Mapping[str, Counts]]:
    trials: dict[tuple[str, str], int] = defaultdict(int)
    good: dict[tuple[str, str], int] = defaultdict(int)
    for point in points:
        place = (point.labels.get("revision", ""), point.series)
        value = int(point.value)
        if metric.name == "errors" and point.name == REQUESTS:
            trials[place] += value
            good[place] += value if point.labels.get("code", "") < "400" else 0
        elif metric.name == "latency" and point.name == DURATIONS:
            bound = float(point.labels.get("le", "nan"))
            if bound == float("inf"):
                trials[place] += value
            elif bound == metric.slower_than:
                good[place] += value
        elif metric.name == "accuracy" and point.name == FEEDBACK:
            trials[place] += value
            good[place] += value if point.labels.get("actual") == point.labels.get("predicted") else 0
    counts: dict[str, dict[str, Counts]] = defaultdict(dict)
    for (revision, series), total in trials.items():
        # A scrape is not one instant for all counters: never more good outcomes than trials.
        counts[revision][series] = Counts(total - min(good[revision, series], total), total)
    return counts
