"""The rules side by side, on the same simulated counts."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.decisions import peers, references
from bench.decisions.outcomes import Outcome, Table
from bench.decisions.worlds import MARGIN, STABLE, World
from serin_operator import batch
from serin_operator.api.spec import Analysis, Metric, MetricType, Mode, OnInconclusive, Role, Rollout, Step
from serin_operator.batch import Policy

ALPHA = BETA = 0.05
SERIN = "Serin"
Z_TEST = "z-test at each look"
MSPRT = "mSPRT on pooled counts"
REFERENCES = frozenset({Z_TEST, MSPRT})  # these can only find a canary worse, and never promote
_AT_ONCE = 1000  # runs: more in one array are no faster

Rule = Callable[[Table, World], Outcome]


def policy(
    *, margin: float = MARGIN, role: Role = Role.GUARD_AND_GATE, steps: Sequence[float] = (), minutes: float = 60.0
) -> Policy:
    """One metric. Promotion comes as soon as the evidence suffices, or after `steps`, weights over `minutes` in all."""
    accuracy = Metric("accuracy", MetricType.ACCURACY, margin, role=role)
    analysis = Analysis(30.0, ALPHA, BETA, None, 0.0, 0, 0.0, (accuracy,))
    if not steps:
        return Policy(analysis)
    each = tuple(Step(round(100 * weight), 60 * minutes / len(steps)) for weight in steps)
    return Policy(analysis, Rollout(Mode.STEPS, each, 0, 50, 86400.0, OnInconclusive.HOLD, False, 600.0, 600.0))


def serin(
    table: Table,
    policy: Policy,
    *,
    seconds: float = 30.0,
    past: npt.NDArray[np.int64] | None = None,
    phi: npt.ArrayLike = 1.0,
) -> Outcome:
    """Serin's own tests and verdicts.

    seconds: between two looks. past: (runs, 2), failures and trials of the stable arm before the rollout.
    phi: the overdispersion, scalar or (runs,).
    """
    runs, looks, _ = table.shape
    phi = np.broadcast_to(np.asarray(phi, np.float64), (runs,))
    rolled_back, promoted = np.full((2, runs), looks, dtype=np.int64)
    for first in range(0, runs, _AT_ONCE):
        under_way = np.arange(first, min(first + _AT_ONCE, runs))
        history = None if past is None else [past[under_way, None]]
        state = batch.begin(policy, len(under_way), phi=phi[under_way], history=history)
        for look in range(looks):
            elapsed = np.full(len(under_way), (look + 1) * seconds)
            state = batch.look(state, [table[under_way, look, None]], elapsed)
            decision = batch.decide(state, batch.standings(state), elapsed)
            rolled_back[under_way[decision.roll_back]] = look
            promoted[under_way[decision.promote]] = look
            stays = np.flatnonzero(~(decision.roll_back | decision.promote))
            if not len(stays):
                break
            if len(stays) < len(under_way):
                under_way, state = under_way[stays], batch.take(state, stays)
    return Outcome(looks, rolled_back, promoted)


def rules(past: npt.NDArray[np.int64], *, stable: float = STABLE, margin: float = MARGIN) -> Mapping[str, Rule]:
    """Every rule, with the settings of a user who knows the stable version's share of failures and the margin.

    past: of the stable arm before the rollout, as `serin` takes it.
    """
    least = 1 - stable - margin
    return {
        SERIN: lambda table, _: serin(table, policy(margin=margin), past=past),
        "Argo Rollouts, each look, failureLimit 0": lambda table, _: peers.argo_rollouts(table, at_least=least),
        "Argo Rollouts, every 5 min, failureLimit 3": lambda table, world: peers.argo_rollouts(
            table, at_least=least, failure_limit=3, every=_looks_in(5, world)
        ),
        "Flagger, every minute, threshold 5": lambda table, world: peers.flagger(
            table, at_least=least, threshold=5, every=_looks_in(1, world)
        ),
        "Kayenta, every 10 looks": lambda table, _: peers.kayenta(table),
        Z_TEST: lambda table, _: references.z_test(table),
        MSPRT: lambda table, _: msprt(table, tau=margin),
    }


def msprt(table: Table, *, tau: float) -> Outcome:
    """The reference test at Serin's level."""
    return references.msprt(table, tau=tau, alpha=ALPHA)


def _looks_in(minutes: float, world: World) -> int:
    return max(1, round(minutes / world.minutes))
