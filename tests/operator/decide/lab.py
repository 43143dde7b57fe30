"""Two arms on a bench, for tests of the analysis: counters that are told what to count, looks at them, a clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serin_operator.api.spec import Analysis, Metric, MetricType, Queries
from serin_operator.decide import analysis
from serin_operator.decide.analysis import Judgement
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Snapshot

START = 1_750_000_000.25
BORN = START - 1000
CANARY, STABLE = "c0ffee", "5ab1e0"
ARMS = (CANARY, STABLE)


def metric(kind: str = "errors", **changes: object) -> Metric:
    """A metric of this type, named like it."""
    known: dict[str, object] = {"name": kind, "type": MetricType(kind), "margin": 0.02}
    if kind == "latency":
        known["slower_than"] = 0.25
    if kind == "regression":
        known["within"] = 0.5
    if kind == "custom":
        known |= {"name": "refunds", "queries": Queries("refunds_total", "orders_total")}
    return Metric(**(known | changes))  # type: ignore[arg-type]


def policy(*metrics: Metric, window: float = 0.0, warm_up: int = 0, **changes: object) -> Analysis:
    """An analysis of these metrics at 20 : 1."""
    known: dict[str, object] = {
        "interval": 10.0,
        "false_rollback_rate": 0.05,
        "false_promotion_rate": 0.05,
        "prometheus": None,
        "label_window": window,
        "warm_up": warm_up,
        "calibration": 0.0,
        "metrics": metrics or (metric(),),
    }
    return Analysis(**(known | changes))  # type: ignore[arg-type]


def pod(arm: str, number: int = 0, born: float = BORN) -> str:
    """A series: one process of one pod."""
    return f"iris-{arm}-{number}/{born:.0f}"


@dataclass
class Lab:
    """Counters of both arms' pods. `count` adds to them, `look` judges them."""

    analysis: Analysis
    pods: int = 1
    calibrated: str = ""
    now: float = START
    samples: dict[str, dict[str, dict[str, Counts]]] = field(default_factory=dict)
    unclocked: frozenset[str] = frozenset()
    state: str = ""

    def begin(self) -> "Lab":
        self.state = analysis.begin(self.analysis, self.snapshot, CANARY, STABLE, self.now, self.calibrated)
        return self

    def count(self, key: str, canary: tuple[int, int], stable: tuple[int, int], number: int = 0) -> "Lab":
        """So many more failures and trials in one pod of each arm."""
        for arm, (failures, trials) in ((CANARY, canary), (STABLE, stable)):
            series = self.samples.setdefault(key, {}).setdefault(arm, {})
            name = f"custom/{arm}{number}" if key.startswith("custom") else pod(arm, number)
            series[name] = series.get(name, Counts()) + Counts(failures, trials)
        return self

    def look(self, seconds: float = 10.0, weight: int | None = None, snapshot: Snapshot | None = None) -> Judgement:
        """Judges what was counted, and keeps the state."""
        self.now += seconds
        judged = analysis.judge(self.analysis, self.state, snapshot or self.snapshot, *ARMS, self.now, weight=weight)
        self.state = judged.state
        return judged

    def repeat(
        self, times: int, blocks: Mapping[str, tuple[tuple[int, int], tuple[int, int]]], weight: int | None = None
    ) -> Judgement:
        """So many looks at the same counts."""
        for _ in range(times):
            for key, (canary, stable) in blocks.items():
                self.count(key, canary, stable)
            judged = self.look(weight=weight)
        return judged

    @property
    def snapshot(self) -> Snapshot:
        processes = frozenset(pod(arm, number) for arm in ARMS for number in range(self.pods))
        names = frozenset(one.partition("/")[0] for one in processes)
        samples = {key: {arm: dict(series) for arm, series in arms.items()} for key, arms in self.samples.items()}
        return Snapshot(samples, processes, names, unclocked=self.unclocked)
