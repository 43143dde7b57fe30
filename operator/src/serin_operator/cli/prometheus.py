"""`serin replay prometheus`: a rollout of the past out of a Prometheus server, by the operator's own analysis.

Every look asks for the raw counters as they were at that time, reduces them as the operator does and gives them to
`decide.analysis`: baselines, resets, calibration and steps are its.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np

from serin_operator import batch
from serin_operator.api.spec import Analysis, MetricType
from serin_operator.api.status import rfc3339
from serin_operator.batch import SHADOW, Policy
from serin_operator.cli import policy, screen, trails
from serin_operator.cli.errors import InputError
from serin_operator.cli.trails import End, Ending, Group, Trail
from serin_operator.decide import analysis, tracks
from serin_operator.decide.keys import metric_key
from serin_operator.decide.observed import Snapshot
from serin_operator.decide.standings import standings
from serin_operator.decide.verdict import Action
from serin_operator.observe.custom import read_custom
from serin_operator.observe.pods import Pod
from serin_operator.observe.prometheus import Prometheus, PrometheusError, read_prometheus
from serin_operator.observe.samples import samples, wanted

_MOST_LOOKS = 20_000


@dataclass(frozen=True, slots=True)
class _Past(Prometheus):
    """A Prometheus server as it was at some time, in seconds since 1970."""

    at: float

    async def instant(self, query: str, at: float | None = None) -> list[tuple[Mapping[str, str], float]]:
        return await Prometheus.instant(self, query, self.at if at is None else at)


@dataclass(frozen=True, slots=True)
class _Rollout:
    """Where to look: the ModelDeployment as (namespace, name), both revisions, and their pods.

    shadow: whether the canary got copies of requests first, of which its pods count the pairs.
    """

    session: aiohttp.ClientSession
    address: str
    place: tuple[str, str]
    canary: str
    stable: str
    pods: tuple[Pod, ...]
    shadow: bool

    async def snapshot(self, asked: Analysis, now: float) -> Snapshot:
        """What the operator would have seen. Raises InputError when the server does not answer."""
        server = _Past(self.session, self.address, now)
        asks = wanted(asked.metrics, asked.label_window, shadow=self.shadow)
        reading = await read_prometheus(server, self.place[0], self.pods, asks)
        if reading.problem:
            raise InputError(reading.problem)
        arms = (self.canary, self.stable)
        read = {pod.revision for pod in self.pods if pod.name not in reading.unread}
        missing = [arm for arm in arms if arm not in read]
        custom = [metric for metric in asked.metrics if metric.type is MetricType.CUSTOM]
        counted = await read_custom(server, self.place, custom, arms, now)
        found = dict(samples(asked.metrics, reading.points, asked.label_window))
        for metric in custom:
            if metric.name in counted.samples:
                found[metric_key(metric, asked.label_window)] = counted.samples[metric.name]
        return Snapshot(
            samples=found,
            processes=reading.processes,
            pods=frozenset(pod.name for pod in self.pods),  # a pod that is missing at a look may be back at the next
            unread=tuple(f"custom metric {name} ({why})" for name, why in counted.unread.items()),
            unclocked=counted.series,
            problem=f"no metrics of revision {', '.join(missing)}" if missing else None,
        )


_REQUIRED = ("address", "namespace", "name", "canary", "stable", "start", "end")


def replayed(arguments: argparse.Namespace) -> tuple[tuple[str, ...], Trail]:
    """The times of the looks and the trail of the one rollout. Raises InputError."""
    if missing := [f"--{name}" for name in _REQUIRED if getattr(arguments, name) is None]:
        raise InputError(f"serin replay prometheus needs {', '.join(missing)}")
    asked, rollout = policy.resolve(arguments, None)
    step = arguments.step or asked.interval
    times = np.arange(arguments.start, arguments.end + step / 2, step).tolist()
    if not 1 < len(times) <= _MOST_LOOKS:
        raise InputError(
            f"{len(times)} looks from --start to --end; choose --step so that there are 2 to {_MOST_LOOKS}"
        )
    with screen.progress("replaying") as tell:
        return asyncio.run(_replay(arguments, Policy(asked, rollout), times, step, tell))


async def _replay(
    arguments: argparse.Namespace, decides: Policy, times: Sequence[float], step: float, tell: Callable[[float], None]
) -> tuple[tuple[str, ...], Trail]:
    asked = decides.analysis
    async with aiohttp.ClientSession() as session:
        seconds = times[-1] - times[0] + asked.calibration
        rollout = await _rollout(session, arguments, seconds, shadow=decides.shadow is not None)
        calibrated = ""
        for now in np.arange(times[0] - asked.calibration, times[0], step).tolist():
            snapshot = await rollout.snapshot(asked, now)
            calibrated = analysis.calibrate(asked, calibrated, snapshot, rollout.stable, now)
        looks = _Looks(decides, rollout, calibrated)
        for number, now in enumerate(times):
            looks.take(await rollout.snapshot(asked, now), now)
            tell((number + 1) / len(times))
    return looks.trail()


async def _rollout(
    session: aiohttp.ClientSession, arguments: argparse.Namespace, seconds: float, *, shadow: bool
) -> _Rollout:
    """With every pod of both revisions that answered a request in the time before --end."""
    server = _Past(session, arguments.address, arguments.end)
    arms = f"{arguments.canary}|{arguments.stable}"
    series = f'serin_requests_total{{namespace="{arguments.namespace}",revision=~"{arms}"}}[{seconds:.0f}s]'
    try:
        found = await server.instant(f"group by (pod, revision) (last_over_time({series}))")
    except PrometheusError as error:
        raise InputError(f"Prometheus at {arguments.address}: {error}") from error
    pods = tuple(
        Pod(labels.get("pod", ""), "server", labels.get("revision", ""), "", True, False, None, None, None)
        for labels, _ in found
    )
    for arm in (arguments.canary, arguments.stable):
        if not any(pod.revision == arm for pod in pods):
            where = f"in namespace {arguments.namespace} in the {seconds:.0f} s before --end"
            raise InputError(f"Prometheus at {arguments.address} has no requests of revision {arm} {where}")
    place = (arguments.namespace, arguments.name)
    return _Rollout(session, arguments.address, place, arguments.canary, arguments.stable, pods, shadow)


class _Looks:
    """The operator's analysis, look by look, and what it came to."""

    def __init__(self, decides: Policy, rollout: _Rollout, calibrated: str) -> None:
        self._policy, self._rollout, self._calibrated = decides, rollout, calibrated
        self._state = ""
        self._began = 0.0
        self._steps_began = 0.0  # seconds later
        self._step = SHADOW if decides.shadow else 0
        self._steps: list[int] = []
        self._times: list[float] = []
        self._seen: list[list[list[float]]] = []
        self._end: End | None = None
        self._problems: set[str] = set()

    def take(self, snapshot: Snapshot, now: float) -> None:
        """One look. Counting begins with the first that sees both revisions."""
        asked, arms = self._policy.analysis, (self._rollout.canary, self._rollout.stable)
        if not self._state:
            if snapshot.problem is None:
                self._began = now
                shadow = self._policy.shadow is not None
                begun = analysis.begin(asked, snapshot, *arms, now, self._calibrated, shadow=shadow)
                self._state = analysis.step(asked, begun)
            return
        copied = self._policy.shadow.percent if self._policy.shadow and self._step == SHADOW else 0
        judged = analysis.judge(asked, self._state, snapshot, *arms, now, weight=None, mirror=copied)
        if judged.problem and judged.problem not in self._problems:
            self._problems.add(judged.problem)
            print(f"serin: at {rfc3339(now)}: {judged.problem}", file=sys.stderr)
        found = standings(tracks.load(judged.state), asked)
        self._times.append(now)
        self._steps.append(self._step)
        self._seen.append(
            [
                [
                    each.numbers.difference,
                    each.numbers.low,
                    each.numbers.high,
                    float(log.log_e_worse),
                    float(log.log_e_goal),
                ]
                for each, log in zip(found.tested, found.verdicts, strict=True)
            ]
        )
        elapsed = np.array([now - self._began])
        action = judged.verdict.action
        worse, good = (np.array([action is each]) for each in (Action.ROLL_BACK, Action.PROMOTE))
        shadows, began = np.array([self._step == SHADOW]), np.array([self._steps_began])
        decision = batch.in_time(self._policy, worse, good, elapsed, shadows=shadows, began=began)
        end = trails.end(decision, 0, len(self._times) - 1, judged.reports, judged.verdict)
        if self._end is None or self._end.ending is Ending.HOLD:
            self._end = end
        self._state = judged.state
        if decision.first_step[0]:
            self._steps_began = now - self._began
        elif self._step == SHADOW:
            return
        reached = int(self._policy.step_at(elapsed - self._steps_began)[0])
        if reached > self._step:
            self._state, self._step = analysis.step(asked, self._state), reached

    def trail(self) -> tuple[tuple[str, ...], Trail]:
        """Raises InputError if no look saw both revisions and another one came after it."""
        if self._end is None:
            raise InputError("no two looks saw both revisions; check --start and --end")
        metrics = self._policy.metrics
        group = Group(self._policy, (0,), tuple((place,) for place in range(len(metrics))), ((),) * len(metrics))
        estimate, low, high, worse, promote = np.moveaxis(np.array(self._seen), -1, 0)
        trail = Trail(group, estimate, low, high, worse, promote, np.array(self._steps), self._end)
        return tuple(rfc3339(time) for time in self._times), trail
