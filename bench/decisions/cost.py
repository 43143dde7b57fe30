"""What one look costs the operator: time, and room in status."""

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.decisions.contest import ALPHA, BETA
from bench.decisions.report import Column, Record, Section
from bench.decisions.report import Goal as Promise
from bench.decisions.worlds import MARGIN, STABLE
from serin_operator.api.spec import Analysis, Goal, Metric, MetricType, Queries
from serin_operator.decide import analysis, evidence, verdict
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import REQUESTS, metric_key
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.verdict import Standing

_WARM = 60  # looks before the clock runs, so that the state is one of a rollout under way
_INTERVAL = 5.0
_REVISIONS = ("c0ffee12", "5ab1e034")  # canary, stable
_SERIES = tuple(f"recommender-{revision}-7d4b9c6f5-x2x7p/1750000000" for revision in _REVISIONS)
_REQUESTS = (5, 45)  # per look, as at 10 requests a second and a tenth to the canary
_MILLISECONDS, _BYTES = 1.0, 4096  # goals, for 20 and for 10 metrics


def section(runs: int) -> Section:
    """1 to 20 metrics of all types, one pod per arm."""
    return Section(
        key="cost",
        title="Cost of a look",
        note=(
            f"Median CPU time of {runs} looks. Tests: new counts into all tests, and the verdict.\n"
            "Judgement: the same from counters and the text in status to the new text and people's sentences.\n"
            "State: that text after 60 looks, with one pod per arm."
        ),
        columns=[
            Column("Metrics", "metrics"),
            Column("Tests, ms", "tests", lambda value: f"{value:.2f}"),
            Column("Judgement, ms", "judgement", lambda value: f"{value:.1f}"),
            Column("State, bytes", "state", lambda value: f"{value:,}"),
        ],
        tasks=[partial(row, count) for count in (1, 3, 10, 20)],
        runs=runs,
        timed=True,
    )


def row(count: int, seed: int, runs: int) -> list[Record]:
    """So many metrics."""
    rng = np.random.default_rng(seed)
    counters = _Counters(_metrics(count), rng)
    state, judgements = analysis.begin(counters.policy, counters.snapshot(), *_REVISIONS, 0.0), []
    for _ in range(_WARM + runs):
        snapshot = counters.count()
        began = time.process_time()
        state = counters.judge(state, snapshot)
        judgements.append(time.process_time() - began)
    record = {"metrics": count, "tests": 1e3 * _median_of_tests(count, rng, runs), "state": len(state.encode())}
    return [record | {"judgement": 1e3 * statistics.median(judgements[_WARM:])}]


def goals(rows: list[Record]) -> list[Promise]:
    """Time of 20 metrics, room of 10."""
    of_20, of_10 = (next(row for row in rows if row["metrics"] == count) for count in (20, 10))
    return [
        Promise("20 metrics are decided in under 1 ms", f"{of_20['tests']:.2f} ms", of_20["tests"] < _MILLISECONDS),
        Promise("The state of 10 metrics is under 4 KiB", f"{of_10['state']:,} bytes", of_10["state"] < _BYTES),
    ]


@dataclass
class _Counters:
    """Counters of both arms that go on counting, and the operator's look at them."""

    metrics: tuple[Metric, ...]
    rng: np.random.Generator
    now: float = 0.0

    def __post_init__(self) -> None:
        self.policy = Analysis(_INTERVAL, ALPHA, BETA, None, 0.0, 0, 0.0, self.metrics)
        keys = {REQUESTS: 0.0} | {metric_key(metric, 0.0): STABLE for metric in self.metrics}
        self._rates = keys
        self._counted = {key: [Counts(1000, 20000), Counts(1000, 20000)] for key in keys}

    def count(self) -> Snapshot:
        """The next snapshot, some requests later."""
        self.now += _INTERVAL
        for key, rate in self._rates.items():
            for arm, mean in enumerate(_REQUESTS):
                trials = int(self.rng.poisson(mean))
                self._counted[key][arm] += Counts(int(self.rng.binomial(trials, rate)), trials)
        return self.snapshot()

    def judge(self, state: str, snapshot: Snapshot) -> str:
        """The state after a look at the snapshot."""
        return analysis.judge(self.policy, state, snapshot, *_REVISIONS, self.now, weight=10).state

    def snapshot(self) -> Snapshot:
        """What a scrape of both pods gives."""
        samples = {
            key: {
                revision: {series: counts} for revision, series, counts in zip(_REVISIONS, _SERIES, both, strict=True)
            }
            for key, both in self._counted.items()
        }
        return Snapshot(samples, frozenset(_SERIES), frozenset(one.partition("/")[0] for one in _SERIES))


def _metrics(count: int) -> tuple[Metric, ...]:
    """As people have them: errors, latency, accuracy, then classes and counters of their own."""
    first = [
        Metric("errors", MetricType.ERRORS, MARGIN, bound=0.1),
        Metric("latency", MetricType.LATENCY, MARGIN, slower_than=0.25),
        Metric("accuracy", MetricType.ACCURACY, MARGIN),
        Metric("off-by-more", MetricType.REGRESSION, MARGIN, within=0.5),
        *(Metric(f"recall-{name}", MetricType.RECALL, MARGIN, label=name) for name in ("cat", "dog", "bird")),
    ]
    queries = Queries("refunds_total", "orders_total")
    own = [Metric(f"orders-{number}", MetricType.CUSTOM, MARGIN, queries=queries) for number in range(count)]
    return tuple([*first, *own][:count])


def _median_of_tests(count: int, rng: np.random.Generator, runs: int) -> float:
    """Seconds for one look at so many metrics, without counters, texts and sentences."""
    tests = evidence.start(tolerance=np.zeros(count), margin=MARGIN)
    taken = []
    for _ in range(_WARM + runs):
        trials = rng.poisson(_REQUESTS, (count, 2))
        counts = np.stack([rng.binomial(trials, STABLE), trials], axis=2).reshape(count, 1, 4)
        began = time.process_time()
        tests = evidence.update(tests, counts, limit=-math.log(ALPHA / count))
        logs = [f(tests).tolist() for f in (evidence.log_e_worse, evidence.log_e_non_inferior, evidence.log_e_superior)]
        each = [
            Standing(str(i), True, True, 1.0, Goal.NON_INFERIOR, *log_e)
            for i, log_e in enumerate(zip(*logs, strict=True))
        ]
        verdict.verdict(each, alpha=ALPHA, beta=BETA)
        taken.append(time.process_time() - began)
    return statistics.median(taken[_WARM:])
