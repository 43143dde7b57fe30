"""Simulated rollouts: random counts of a world that is given, through the operator's own tests, verdicts and ramp.

    results = simulate(policy, world, np.random.default_rng(1), runs=1000)

Every random number comes from the generator that is passed, so the same seed gives the same results.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from serin_operator import batch
from serin_operator.api.spec import Mode, OnInconclusive
from serin_operator.batch import SHADOW, Bools, Floats, Ints, Policy
from serin_operator.decide import dispersion, exposure
from serin_operator.decide.keys import labelled
from serin_operator.decide.paired_forecast import one_wrong

_MOST_AT_ONCE = 1000  # runs: more in one array are no faster


@dataclass(frozen=True, slots=True)
class World:
    """What happens to one rollout, scrape by scrape; T scrapes, M metrics of the policy.

    rate: requests per second of all clients, scalar or (T,).
    canary, stable: the arms' shares of failures; scalar, (T,) or (M, T). Every request is a trial of every metric.
    scrapes: T. interval: seconds between them.
    weight: the canary's share in per cent, where the policy has neither steps nor an adaptive ramp.
    delay: scrapes from a request to the scrape that counts it, as for labels.
    noise: standard deviation of the log odds of failure between pods and scrapes: failures that come in bursts.
    history: trials of each metric that the stable arm has counted before; they are not tested, but tell its rate.
    pods: of each arm; requests are spread evenly.
    missed: chance that a scrape does not see an arm; the next one that does brings what was missed.
    resets: chance that an arm's counters begin anew between two scrapes, and what was counted before then is lost.
    labelled: the share of requests that are a trial of the metrics of labels.
    differ: the share of requests that a shadow answers otherwise than stable, scalar or (M,); more if the shares of
        failures differ by more. Just one of two such answers is right. No pair is late, missed or lost.
    """

    rate: npt.ArrayLike
    canary: npt.ArrayLike
    stable: npt.ArrayLike
    scrapes: int = 120
    interval: float = 30.0
    weight: float = 10.0
    delay: int = 0
    history: int = 1000
    noise: float = 0.0
    pods: int = 1
    missed: float = 0.0
    resets: float = 0.0
    labelled: float = 1.0
    differ: npt.ArrayLike = 0.02


@dataclass(frozen=True, slots=True)
class Results:
    """Per run, shape (runs,). Scrapes count from 0; `scrapes` stands for never.

    rolled_back, promoted: the scrape with that verdict; never both.
    inconclusive: rolled back for want of evidence. exposed: clients' requests that the canary had until the verdict.
    harmed: failures to be expected more than without the canary, those after a promotion included, until the last
    scrape; on the guard on which they are most.
    """

    scrapes: int
    rolled_back: Ints
    promoted: Ints
    inconclusive: Bools
    exposed: Ints
    harmed: Floats


def simulate(
    policy: Policy,
    world: World,
    rng: np.random.Generator,
    runs: int,
    *,
    progress: Callable[[float], None] | None = None,
) -> Results:
    """So many independent rollouts. progress: called now and then with the share that is done, up to 1."""
    chunks = []
    for first in range(0, runs, _MOST_AT_ONCE):
        size = min(_MOST_AT_ONCE, runs - first)
        chunk = _Rollouts(policy, world, rng, size)
        for scrape in range(world.scrapes):
            chunk.advance(scrape)
            if progress:
                progress((first + size * (scrape + 1) / world.scrapes) / runs)
        chunks.append(chunk.results)
    arrays = {
        item.name: np.concatenate([getattr(chunk, item.name) for chunk in chunks])
        for item in fields(Results)
        if item.name != "scrapes"
    }
    return Results(world.scrapes, **arrays)


class _Rollouts:
    """Rollouts under way. What is decided is taken out, so that the arrays hold only runs that are `open`."""

    def __init__(self, policy: Policy, world: World, rng: np.random.Generator, runs: int) -> None:
        self._policy, self._world = policy, world
        self._rate = np.broadcast_to(np.asarray(world.rate, np.float64), (world.scrapes,))
        self._excess = _excess(policy, world)
        self._traffic = _Traffic(policy, world, rng, runs)
        before = _history(policy, world, rng, runs)
        self._batch = batch.begin(policy, runs, phi=_calibrated(policy, world, rng, runs), history=before)
        self._open = np.arange(runs)
        self._weight = self._first_weight(runs)
        never = np.full(runs, world.scrapes)
        self.results = Results(
            world.scrapes, never, never.copy(), np.zeros(runs, bool), np.zeros(runs, np.int64), np.zeros(runs)
        )

    def advance(self, scrape: int) -> None:
        """The requests up to this scrape, the look at it, and what follows from the verdict."""
        if not len(self._open):
            return
        results, now_open = self.results, self._open
        shadows = self._batch.step == SHADOW
        sent, counts, pairs = self._traffic.scrape(scrape, self._weight, shadows)
        results.exposed[now_open] += sent
        results.harmed[now_open] += sent * self._excess[scrape]
        elapsed = np.full(len(now_open), (scrape + 1) * self._world.interval)
        self._batch = batch.look(self._batch, [counts[:, m, None] for m in range(counts.shape[1])], elapsed, pairs)
        decision = batch.decide(self._batch, batch.standings(self._batch), elapsed)
        self._batch = batch.to_first_step(self._batch, decision.first_step, elapsed)
        spent = self._ramp(scrape, results.exposed[now_open], shadows)
        inconclusive = decision.inconclusive | (spent & ~decision.roll_back & ~decision.promote)
        results.rolled_back[now_open[decision.roll_back | inconclusive]] = scrape
        results.inconclusive[now_open[inconclusive]] = True
        results.promoted[now_open[decision.promote]] = scrape
        after = (self._rate * self._excess)[scrape + 1 :].sum() * self._world.interval
        results.harmed[now_open[decision.promote]] += after
        stays = np.flatnonzero(~(decision.roll_back | decision.promote | inconclusive))
        if len(stays) < len(now_open):
            self._batch = batch.take(self._batch, stays)
            self._traffic.take(stays)
            self._open, self._weight = now_open[stays], self._weight[stays]

    def _first_weight(self, runs: int) -> Floats:
        rollout = self._policy.rollout
        if rollout is None:
            return np.full(runs, self._world.weight)
        if rollout.mode is Mode.STEPS:
            return np.full(runs, float(rollout.steps[0].weight))
        limits = exposure.limits(rollout, self._policy.analysis)
        first = exposure.next_weight(0, exposed=0, worst_excess=1.0, per_second=float(self._rate[0]), limits=limits)
        return np.full(runs, float(first))

    def _ramp(self, scrape: int, exposed: Ints, shadows: Bools) -> Bools:
        """Sets the weights that serve next. Returns which runs have spent their budget of harm and end with that.

        shadows: which were shadows until now; those of them that no longer are get the first weight.
        """
        rollout = self._policy.rollout
        nobody = np.zeros(len(self._batch), bool)
        if rollout is None or shadows.all():
            return nobody
        if rollout.mode is Mode.STEPS:
            self._weight = np.array([float(step.weight) for step in rollout.steps])[np.maximum(self._batch.step, 0)]
            return nobody
        limits, before = exposure.limits(rollout, self._policy.analysis), self._weight
        worst = batch.worst_excess(self._batch)
        granted = np.array(
            [
                float(
                    exposure.next_weight(
                        int(weight),
                        exposed=int(requests),
                        worst_excess=float(excess),
                        per_second=float(self._rate[scrape]),
                        limits=limits,
                    )
                )
                for weight, requests, excess in zip(before, exposed, worst, strict=True)
            ]
        )
        self._weight = np.where(shadows, before, granted)
        self._batch = batch.to_step(self._batch, self._batch.step + (self._weight > before))
        return np.asarray((self._weight == 0) & ~shadows & (rollout.on_inconclusive is OnInconclusive.ROLLBACK))


class _Traffic:
    """Draws what each scrape counts, for many runs at once."""

    def __init__(self, policy: Policy, world: World, rng: np.random.Generator, runs: int) -> None:
        metrics = len(policy.metrics)
        self._world, self._rng = world, rng
        self._copied = policy.shadow.percent if policy.shadow else 0
        self._paired, self._labelled = policy.paired, [labelled(metric) for metric in policy.metrics]
        self._differ = np.broadcast_to(np.asarray(world.differ, np.float64), (metrics,))
        self._rate = np.broadcast_to(np.asarray(world.rate, np.float64), (world.scrapes,))
        self._failure_rates = [_per_metric(rates, metrics, world.scrapes) for rates in (world.canary, world.stable)]
        self._late: deque[Ints] = deque()  # scrapes whose requests are not counted yet, for want of labels
        self._unseen: Ints = np.zeros((runs, metrics, 4), np.int64)  # counted, but missed by the scrapes so far

    def take(self, runs: Ints) -> None:
        """Goes on with these runs only."""
        self._late = deque(block[runs] for block in self._late)
        self._unseen = self._unseen[runs]

    def scrape(self, number: int, weight: Floats, shadows: Bools) -> tuple[Ints, Ints, list[Ints | None]]:
        """What clients sent to the canary since the scrape before (runs,), and what the scrape shows.

        That is (runs, metrics, 4), and per metric that pairs decide (runs, 7) as `batch.look` takes them. shadows:
        (runs,), which get copies of what stable answers, instead of requests.
        """
        world, rng = self._world, self._rng
        total = rng.poisson(self._rate[number] * world.interval, len(weight))
        canary = rng.binomial(total, np.where(shadows, self._copied, weight) / 100)
        sent = np.where(shadows, 0, canary)
        block = np.empty_like(self._unseen)
        for arm, requests in enumerate((canary, total - sent)):
            for metric, rates in enumerate(self._failure_rates[arm]):
                trials = self._with_label(requests) if self._labelled[metric] else requests
                block[:, metric, 2 * arm] = self._failures(trials, rates[number])
                block[:, metric, 2 * arm + 1] = trials
        pairs: list[Ints | None] = [None] * len(self._paired)
        for metric in np.flatnonzero(self._paired).tolist():
            found = pairs[metric] = self._pairs(metric, number, canary - sent)
            block[shadows, metric, :2] = found[shadows][:, [4, 2]]
        self._late.append(block)
        block = self._late.popleft() if len(self._late) > world.delay else np.zeros_like(block)
        return sent, self._with_faults(block), pairs

    def _with_label(self, requests: Ints) -> Ints:
        share = self._world.labelled
        return requests if share == 1 else np.asarray(self._rng.binomial(requests, share))

    def _pairs(self, metric: int, number: int, copies: Ints) -> Ints:
        """(runs, 7), what becomes of copies in the order of `pairs.Totals`."""
        of_canary, of_stable = (float(rates[metric][number]) for rates in self._failure_rates)
        wrong = of_canary + of_stable
        # One of two answers that differ is right, one wrong.
        differ = min(float(self._differ[metric]), wrong, 2 - wrong)
        b, c = one_wrong(differ, of_canary - of_stable)
        both = max(0.0, of_stable - c)
        known = self._with_label(copies)
        shares = [max(0.0, 1 - both - b - c), both, b, c]
        _, both_wrong, only_canary, only_stable = self._rng.multinomial(known, shares).T
        settled = only_canary + only_stable
        different = settled + self._rng.binomial(copies - known, b + c)
        each = both_wrong + only_canary, both_wrong + only_stable
        return np.stack([copies, different, known, settled, *each, only_canary], axis=1)

    def _failures(self, requests: Ints, rate: float) -> Ints:
        world, rng = self._world, self._rng
        if world.noise == 0:
            return np.asarray(rng.binomial(requests, rate))
        per_pod = rng.multinomial(requests, np.full(world.pods, 1 / world.pods))
        odds = rate * np.exp(world.noise * rng.standard_normal(per_pod.shape))
        return np.asarray(rng.binomial(per_pod, odds / (odds + 1 - rate)).sum(axis=1))

    def _with_faults(self, block: Ints) -> Ints:
        """Without what resets lose; what a scrape misses comes with the next one."""
        world, rng, shape = self._world, self._rng, block.shape
        arms: Ints = block.reshape(*shape[:2], 2, 2)
        if world.resets:
            hit = rng.random((len(block), 1, 2)) < world.resets
            left = np.where(hit, rng.random((len(block), 1, 2)), 1.0)
            trials = rng.binomial(arms[..., 1], left)
            failures = rng.hypergeometric(arms[..., 0], arms[..., 1] - arms[..., 0], trials)
            arms = np.stack(np.broadcast_arrays(failures, trials), axis=-1)
        if not world.missed:
            return arms.reshape(shape)
        found = arms + self._unseen.reshape(arms.shape)
        seen = rng.random((len(block), 1, 2, 1)) >= world.missed
        self._unseen = np.where(seen, 0, found).reshape(shape)
        return np.where(seen, found, 0).reshape(shape)


def _history(policy: Policy, world: World, rng: np.random.Generator, runs: int) -> list[Ints]:
    """Per metric (runs, 1, 2), what the stable arm has counted before the first step."""
    found = []
    for rates in _per_metric(world.stable, len(policy.metrics), world.scrapes):
        failures = rng.binomial(world.history, rates[0], runs)
        found.append(np.stack([failures, np.full(runs, world.history)], axis=1)[:, None])
    return found


def _calibrated(policy: Policy, world: World, rng: np.random.Generator, runs: int) -> Floats:
    """(M, runs), the overdispersion that the stable pods show before the first step; 1 without a calibration."""
    shape = len(policy.metrics), runs
    scrapes = int(policy.analysis.calibration // world.interval)
    if world.noise == 0 or world.pods < 2 or scrapes == 0:
        return np.ones(shape)
    rate = float(np.broadcast_to(np.asarray(world.rate, np.float64), (world.scrapes,))[0])
    phi = []
    for rates in _per_metric(world.stable, *shape[:1], world.scrapes):
        state = dispersion.start(runs)
        for _ in range(scrapes):
            state = dispersion.grow(state, _halves(rng, rate * world.interval, float(rates[0]), world, runs))
        phi.append(dispersion.phi(state))
    return np.array(phi)


def _halves(rng: np.random.Generator, requests: float, rate: float, world: World, runs: int) -> Ints:
    """(runs, 1, 4), what two halves of the stable pods count in one scrape."""
    trials = rng.poisson(requests / world.pods, (runs, world.pods))
    odds = rate * np.exp(world.noise * rng.standard_normal(trials.shape))
    failures = rng.binomial(trials, odds / (odds + 1 - rate))
    half = world.pods // 2
    parts = [counts[:, pods].sum(axis=1) for pods in (slice(half), slice(half, None)) for counts in (failures, trials)]
    return np.stack(parts, axis=1)[:, None]


def _per_metric(rates: npt.ArrayLike, metrics: int, scrapes: int) -> Floats:
    return np.broadcast_to(np.asarray(rates, np.float64), (metrics, scrapes))


def _excess(policy: Policy, world: World) -> Floats:
    """(T,), how much more of the canary's requests fail than of the stable arm's, on the guard that is hit most."""
    shape = len(policy.metrics), world.scrapes
    guards = [metric.guards for metric in policy.metrics]
    more = _per_metric(world.canary, *shape) - _per_metric(world.stable, *shape)
    return np.asarray(np.maximum(more, 0).max(axis=0, where=np.array(guards)[:, None], initial=0.0))
