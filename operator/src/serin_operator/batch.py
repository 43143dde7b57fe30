"""Many rollouts of one policy at once, without a cluster: counts in, the operator's own evidence and verdicts out.

Recorded counts (`serin replay`) and simulated ones go this way. The first axis of every array is the rollout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from serin_operator.api.spec import Analysis, Metric, Mode, OnInconclusive, Rollout, Shadow, Step, Strategy
from serin_operator.decide import evidence, many_pairs, one_arm, verdict
from serin_operator.decide.evidence import Evidence
from serin_operator.decide.many_pairs import ManyPairs
from serin_operator.decide.one_arm import OneArm
from serin_operator.decide.pairs import paired_metrics
from serin_operator.decide.roles import shadow_of
from serin_operator.decide.verdict import BoundOdds, Standing

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SHADOW = -1  # the step of a canary that gets copies of requests only


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides: `spec.analysis` and `spec.rollout`. Without a rollout part nothing has to last, so that the
    canary is promoted as soon as the evidence suffices."""

    analysis: Analysis
    rollout: Rollout | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric, in the order of all lists of metrics."""
        return self.analysis.metrics

    @property
    def steps(self) -> tuple[Step, ...]:
        """None where nothing has to last, and for a mere shadow."""
        if self.rollout is None or self.rollout.strategy is Strategy.SHADOW:
            return ()
        return self.rollout.steps if self.rollout.mode is Mode.STEPS else ()

    @property
    def shadow(self) -> Shadow | None:
        """What the canary gets copies of before anything else, if it does."""
        return shadow_of(self.rollout.strategy, self.rollout) if self.rollout else None

    @property
    def paired(self) -> tuple[bool, ...]:
        """Per metric, whether pairs decide it in a shadow."""
        by_pairs = paired_metrics(self.analysis) if self.shadow else []
        return tuple(metric in by_pairs for metric in self.metrics)

    @property
    def step_ends(self) -> Floats:
        """Seconds after the start at which each step has lasted long enough; empty without steps."""
        return np.cumsum([step.duration for step in self.steps], dtype=np.float64)

    def step_at(self, elapsed: Floats) -> Ints:
        """The step that serves from then on, so many seconds after the first began; 0 without steps."""
        return np.asarray(
            np.minimum(np.searchsorted(self.step_ends, elapsed, side="right"), max(len(self.steps) - 1, 0))
        )

    @property
    def max_duration(self) -> float:
        """Seconds; inf without a rollout part."""
        return self.rollout.max_duration if self.rollout else math.inf


@dataclass(frozen=True, slots=True)
class Bound:
    """The tests of one metric's absolute bound, one arm at a time."""

    canary: OneArm
    stable: OneArm


@dataclass(frozen=True, slots=True)
class Batch:
    """B rollouts. Make it with `begin`, change it with `look` and `take` only.

    tests, bounds: per metric, over all rollouts. pairs: of the metrics that pairs decide in a shadow.
    step: (B,) which step serves, or SHADOW. began: (B,) seconds after the start at which the first one did.
    warming: (B,) how many of the next scrapes are still dropped.
    """

    policy: Policy
    tests: tuple[Evidence, ...]
    bounds: tuple[Bound | None, ...]
    pairs: tuple[ManyPairs | None, ...]
    step: Ints
    began: Floats
    warming: Ints

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one look leads to, per rollout (B,). Rolling back goes before promoting: no rollout is in both.

    inconclusive: those of the rollbacks that are for want of evidence within maxDuration.
    first_step: shadows that get requests of their own now.
    """

    roll_back: Bools
    promote: Bools
    inconclusive: Bools
    first_step: Bools


def begin(
    policy: Policy,
    rollouts: int,
    *,
    phi: npt.ArrayLike = 1.0,
    strata: Sequence[int] = (),
    history: Sequence[Ints] | None = None,
) -> Batch:
    """So many rollouts before their first look.

    phi: scalar or (M, B), M metrics. strata: per metric, else one each. history: per metric (B, K, 2), what the stable
    arm had counted before; it is not tested, but tells its rate. Raises ValueError as `evidence.start`.
    """
    shape = len(policy.metrics), rollouts
    past: Sequence[Ints | None] = history or [None] * shape[0]
    tests = tuple(
        evidence.start(tolerance=metric.tolerance, margin=metric.margin, phi=scatter, strata=count, history=before)
        for metric, scatter, count, before in zip(
            policy.metrics, np.broadcast_to(phi, shape), strata or [1] * shape[0], past, strict=True
        )
    )
    bounds = tuple(
        None if metric.bound is None else Bound(one_arm.start(rollouts), one_arm.start(rollouts))
        for metric in policy.metrics
    )
    warming = np.full(rollouts, policy.analysis.warm_up, np.int64)
    pairs = tuple(
        many_pairs.start(metric, rollouts) if paired else None
        for metric, paired in zip(policy.metrics, policy.paired, strict=True)
    )
    first = np.full(rollouts, SHADOW if policy.shadow else 0, np.int64)
    return Batch(policy, tests, bounds, pairs, first, np.zeros(rollouts), warming)


def look(batch: Batch, counts: Sequence[Ints], elapsed: Floats, pairs: Sequence[Ints | None] = ()) -> Batch:
    """One scrape of every rollout. counts: per metric, (B, K, 4). elapsed: (B,) seconds since the start.

    pairs: per metric that pairs decide, (B, 7), those of rollouts that are shadows; the arms' counts are not tested
    there. Without any, arms are compared in shadows as well.

    A scrape is dropped while its step warms up. A step that has lasted long enough gives way to the next one, where
    the tests start anew against harm that begins there.
    """
    dropped, shadows = batch.warming > 0, batch.step == SHADOW
    pairs = pairs or [None] * len(counts)
    kept = [np.where(dropped[:, None, None], 0, block) for block in counts]
    compared = [
        block if new is None else np.where(shadows[:, None, None], 0, block)
        for block, new in zip(kept, pairs, strict=True)
    ]
    of_pairs = tuple(
        many if many is None or new is None else many_pairs.counted(many, new)
        for many, new in zip(batch.pairs, pairs, strict=True)
    )
    limits = verdict.log_odds_alone(batch.policy.metrics, alpha=batch.policy.analysis.false_rollback_rate)
    tests = tuple(
        evidence.update(test, block, limit=limits.get(metric.name, math.inf))
        for metric, test, block in zip(batch.policy.metrics, batch.tests, compared, strict=True)
    )
    bounds = tuple(
        _update_bound(metric, bound, block, test.phi)
        for metric, bound, block, test in zip(batch.policy.metrics, batch.bounds, kept, tests, strict=True)
    )
    counted = np.any([block[..., 1::2].any(axis=(1, 2)) for block in counts], axis=0)  # else it was no look
    warming = batch.warming - (dropped & counted)
    following = replace(batch, tests=tests, bounds=bounds, pairs=of_pairs, warming=warming)
    return to_step(following, np.where(shadows, SHADOW, batch.policy.step_at(elapsed - batch.began)))


def to_step(batch: Batch, step: Ints) -> Batch:
    """The rollouts at these steps, (B,); those whose step is new spend evidence on a late onset and warm up again."""
    new = step > batch.step
    if not new.any():
        return batch
    tests = tuple(evidence.onset(test, new) for test in batch.tests)
    pairs = tuple(many and many_pairs.onset(many, new) for many in batch.pairs)
    warming = np.where(new, batch.policy.analysis.warm_up, batch.warming)
    return replace(batch, tests=tests, pairs=pairs, step=step, warming=warming)


def to_first_step(batch: Batch, where: Bools, elapsed: Floats) -> Batch:
    """Shadows that have passed get requests of their own: `Decision.first_step`. elapsed: (B,) since the start."""
    following = replace(batch, began=np.where(where, elapsed, batch.began))
    return to_step(following, np.where(where, 0, batch.step))


def standings(batch: Batch) -> list[Standing]:
    """Where each metric stands, in the form of the operator's verdict; log values are (B,).

    Odds of pairs and those of the arms multiply, as of one e-process.
    """
    return [
        Standing(
            name=metric.name,
            guards=metric.guards,
            gates=metric.gates,
            weight=metric.weight,
            goal=metric.goal,
            log_e_worse=evidence.log_e_worse(test) + worse,
            log_e_non_inferior=evidence.log_e_non_inferior(test) + good,
            log_e_superior=evidence.log_e_superior(test) + better,
            bound=None if bound is None else _bound_odds(bound),
        )
        for metric, test, bound, (worse, good, better) in zip(
            batch.policy.metrics, batch.tests, batch.bounds, map(_pair_odds, batch.pairs), strict=True
        )
    ]


def standings_of(standings: Sequence[Standing], rollout: int) -> list[Standing]:
    """Those of one rollout, in numbers, as `verdict.verdict` takes them."""
    return [
        each._replace(
            log_e_worse=float(np.asarray(each.log_e_worse)[rollout]),
            log_e_non_inferior=float(np.asarray(each.log_e_non_inferior)[rollout]),
            log_e_superior=float(np.asarray(each.log_e_superior)[rollout]),
            bound=each.bound and BoundOdds(*(float(np.asarray(log)[rollout]) for log in each.bound)),
        )
        for each in standings
    ]


def decide(batch: Batch, standings: Sequence[Standing], elapsed: Floats) -> Decision:
    """What the operator would do after this look. elapsed: (B,) seconds since the start."""
    analysis = batch.policy.analysis
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    rolls_back = verdict.rolls_back(standings, alpha=alpha)
    promotes = verdict.promotes(standings, alpha=alpha, beta=beta)
    return in_time(batch.policy, rolls_back, promotes, elapsed, shadows=batch.step == SHADOW, began=batch.began)


def in_time(
    policy: Policy, rolls_back: Bools, promotes: Bools, elapsed: Floats, *, shadows: Bools, began: Floats
) -> Decision:
    """What the evidence leads to at this time. rolls_back, promotes: (B,), what it asks for; the first goes first.

    shadows: (B,), which are still shadows. began: (B,) seconds after the start, when others' first step did.
    """
    overdue = elapsed >= policy.max_duration
    ends = policy.rollout is not None and policy.rollout.on_inconclusive is OnInconclusive.ROLLBACK
    inconclusive = overdue & ~rolls_back & ends
    least = np.where(
        shadows, policy.shadow.duration if policy.shadow else 0.0, sum(step.duration for step in policy.steps)
    )
    passes = promotes & (elapsed >= began + least) & ~overdue & ~rolls_back
    goes_on = shadows & (policy.rollout is not None and policy.rollout.strategy is Strategy.CANARY)
    return Decision(rolls_back | inconclusive, passes & ~goes_on, inconclusive, passes & goes_on)


def worst_excess(batch: Batch) -> Floats:
    """(B,), the largest excess of a guard's share of failed requests that is not excluded yet: 1.0 without data."""
    analysis = batch.policy.analysis
    alpha, beta = analysis.false_rollback_rate, analysis.false_promotion_rate
    limits = [
        evidence.upper_limit(test, alpha=alpha, beta=beta)
        for metric, test in zip(batch.policy.metrics, batch.tests, strict=True)
        if metric.guards and metric.per_request
    ]
    return np.asarray(np.max(limits, axis=0) if limits else np.ones(len(batch)))


def take(batch: Batch, rollouts: Ints) -> Batch:
    """Only these rollouts, by number."""
    return replace(
        batch,
        tests=tuple(evidence.take(test, rollouts) for test in batch.tests),
        bounds=tuple(
            bound and Bound(*(_take(arm, rollouts) for arm in (bound.canary, bound.stable))) for bound in batch.bounds
        ),
        pairs=tuple(many and many_pairs.take(many, rollouts) for many in batch.pairs),
        step=batch.step[rollouts],
        began=batch.began[rollouts],
        warming=batch.warming[rollouts],
    )


def _update_bound(metric: Metric, bound: Bound | None, block: Ints, phi: Floats) -> Bound | None:
    if bound is None or metric.bound is None:
        return None
    canary, stable = (
        one_arm.update(arm, block[..., place : place + 2].sum(axis=1), metric.bound, phi)
        for place, arm in ((0, bound.canary), (2, bound.stable))
    )
    return Bound(canary, stable)


def _pair_odds(pairs: ManyPairs | None) -> tuple[Floats | float, Floats | float, Floats | float]:
    return (0.0, 0.0, 0.0) if pairs is None else many_pairs.odds(pairs)


def _bound_odds(bound: Bound) -> BoundOdds:
    return BoundOdds(
        over=one_arm.log_e_over(bound.canary),
        under=one_arm.log_e_under(bound.canary),
        stable_over=one_arm.log_e_over(bound.stable),
    )


def _take(arm: OneArm, rollouts: Ints) -> OneArm:
    return OneArm(arm.over[rollouts], arm.under[rollouts])
