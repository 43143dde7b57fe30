"""Error rates by simulation: false rollbacks and promotions in worlds that break lesser tests, and the power there.

Every world is looked at 60 times, at 10 requests a second. In each, three canaries: one as good as the stable revision,
one worse by just the margin, and one much worse, which must be found: a test that never decides has no errors either.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from bench.decisions import contest, labels
from bench.decisions.outcomes import Outcome, Table
from tests.operator.policies import ACCURACY, ANALYSIS, ROLLOUT

from serin_operator.api.spec import Step
from serin_operator.batch import Policy
from serin_operator.decide import counters
from serin_operator.decide.evidence import Counts
from serin_operator.simulation import World, simulate

pytestmark = pytest.mark.simulation

ALPHA = BETA = 0.05
LOOKS, SECONDS, REQUESTS = 60, 60.0, 600
STABLE, MARGIN, HARM = 0.05, ACCURACY.margin, 0.05
RUNS, FEW = 1500, 200
FOUND = 0.9
DRIFT = np.linspace(0.02, 0.12, LOOKS)
STEPS = tuple(Step(weight, LOOKS * SECONDS / 3) for weight in (5, 25, 50))
ONE = Policy(replace(ANALYSIS, metrics=(ACCURACY,)))
STEPPED = replace(ONE, rollout=replace(ROLLOUT, steps=STEPS, max_duration=86400.0))

Trial = Callable[[float, int], Outcome]  # (how much worse the canary is, runs)


def constant(worse_by: float, runs: int) -> Outcome:
    return simulated(ONE, World(10, STABLE + worse_by, STABLE), runs)


def drift_and_ramp(worse_by: float, runs: int) -> Outcome:
    """Both get worse while the traffic moves to the canary: pooled counts take that for harm."""
    return simulated(STEPPED, World(10, DRIFT + worse_by, DRIFT), runs)


def overdispersed(worse_by: float, runs: int) -> Outcome:
    """Failures come in bursts, and half an hour of the stable pods before the rollout has shown it."""
    return simulated(calibrated(1800.0), bursts(worse_by), runs)


def five_metrics(worse_by: float, runs: int) -> Outcome:
    """Only the last one is worse."""
    metrics = tuple(replace(ACCURACY, name=f"accuracy-{number}") for number in range(5))
    canary = np.full((5, LOOKS), STABLE)
    canary[-1] += worse_by
    return simulated(Policy(replace(ANALYSIS, metrics=metrics)), World(10, canary, STABLE), runs)


def late_onset(worse_by: float, runs: int) -> Outcome:
    """The harm begins after half of the ramp, with the last step but one."""
    begins = np.where(np.arange(LOOKS) < LOOKS // 2, 0.0, 1.0)
    return simulated(STEPPED, World(10, STABLE + worse_by * begins, STABLE), runs)


def late_labels(worse_by: float, runs: int) -> Outcome:
    """By cohorts, while the traffic steps up and both get worse."""
    return with_labels(worse_by, runs, by_cohort=True)


def restarts_and_gaps(worse_by: float, runs: int) -> Outcome:
    """Two pods an arm, read through their counters: one reading in seven fails, one process in twenty starts anew."""
    rng = np.random.default_rng(6)
    trials = rng.multinomial(rng.poisson(REQUESTS, (runs, LOOKS)), [0.05, 0.05, 0.45, 0.45])
    failing = np.array([STABLE + worse_by] * 2 + [STABLE] * 2)
    failures = rng.binomial(trials, failing)
    unread, restarted = rng.random(trials.shape) < 1 / 7, rng.random(trials.shape) < 1 / 20
    table = np.zeros((runs, LOOKS, 4), np.int64)
    for run in range(runs):
        for arm in (0, 1):
            pods = run, slice(None), slice(2 * arm, 2 * arm + 2)
            table[pods] = readings(failures[pods], trials[pods], unread[pods], restarted[pods])
    return contest.serin(table, ONE)


def unequal_pods(worse_by: float, runs: int) -> Outcome:
    """Four pods an arm with unequal shares of the requests, which waver, and unequal failures."""
    rng = np.random.default_rng(7)
    failing = np.array([0.03, 0.05, 0.08, 0.18])
    trials = rng.poisson(REQUESTS, (runs, LOOKS))
    canary = rng.binomial(trials, 0.1)
    arms = []
    for requests, excess in ((canary, worse_by), (trials - canary, 0.0)):
        shares = rng.dirichlet(100 * np.array([0.55, 0.25, 0.15, 0.05]), (runs, LOOKS))
        arms += [rng.binomial(rng.multinomial(requests, shares), failing + excess).sum(axis=2), requests]
    return contest.serin(np.stack(arms, axis=2), ONE)


WORLDS: dict[str, Trial] = {
    "constant": constant,
    "shared drift with a ramp": drift_and_ramp,
    "restarts and gaps": restarts_and_gaps,
    "late labels with a step-up": late_labels,
    "unequal pods": unequal_pods,
    "overdispersion": overdispersed,
    "five metrics": five_metrics,
    "late onset": late_onset,
}


@pytest.mark.parametrize("trial", WORLDS.values(), ids=WORLDS)
def test_a_canary_as_good_as_the_stable_one_is_rarely_rolled_back(trial: Trial) -> None:
    assert trial(0.0, RUNS).rollbacks <= at_most(ALPHA, RUNS)


@pytest.mark.parametrize("name", sorted(WORLDS.keys() - {"late onset"}))  # there it is as good for half of the time
def test_a_canary_worse_by_the_margin_is_rarely_promoted(name: str) -> None:
    runs = RUNS // 3
    assert WORLDS[name](MARGIN, runs).promotions <= at_most(BETA, runs)


@pytest.mark.parametrize("trial", WORLDS.values(), ids=WORLDS)
def test_a_canary_that_is_much_worse_is_found_in_the_same_world(trial: Trial) -> None:
    assert trial(HARM, FEW).rollbacks >= FOUND


def test_labels_counted_as_they_arrive_break_the_error_rate() -> None:
    """So the cohorts are what keeps it in this world."""
    assert with_labels(0.0, 3 * FEW, by_cohort=False).rollbacks > at_most(ALPHA, 3 * FEW)


def test_bursts_without_a_calibration_break_the_error_rate() -> None:
    """So the overdispersion is what keeps it in this world."""
    assert simulated(calibrated(0.0), bursts(0.0), FEW).rollbacks > at_most(ALPHA, FEW)


def at_most(rate: float, runs: int) -> float:
    """Three standard errors above."""
    return float(rate + 3 * np.sqrt(rate * (1 - rate) / runs))


def simulated(policy: Policy, world: World, runs: int) -> Outcome:
    results = simulate(policy, replace(world, scrapes=LOOKS, interval=SECONDS), np.random.default_rng(1), runs)
    return Outcome(LOOKS, results.rolled_back, results.promoted)


def calibrated(seconds: float) -> Policy:
    return replace(ONE, analysis=replace(ONE.analysis, calibration=seconds))


def bursts(worse_by: float) -> World:
    return World(100, STABLE + worse_by, STABLE, noise=0.3, pods=2)


def with_labels(worse_by: float, runs: int, *, by_cohort: bool) -> Outcome:
    world = replace(labels.stepped_up(LOOKS), excess=worse_by, per_look=REQUESTS)
    arrived, closed = labels.draw(world, np.random.default_rng(5), runs)
    return contest.serin(closed if by_cohort else arrived, STEPPED, seconds=SECONDS)


def readings(
    failures: Table, trials: Table, unread: npt.NDArray[np.bool_], restarted: npt.NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """What the looks at one arm count; every array is (looks, pods). What is unread when its process ends is lost."""
    pods = range(trials.shape[1])
    counted, born = [Counts() for _ in pods], [0 for _ in pods]
    ledger, out = counters.baseline({}), []
    for look in range(len(trials)):
        gone = []
        for pod in pods:
            if restarted[look, pod]:
                gone.append(f"{pod}/{born[pod]}")
                counted[pod], born[pod] = Counts(), look
            counted[pod] += Counts(int(failures[look, pod]), int(trials[look, pod]))
        seen = {f"{pod}/{born[pod]}": counted[pod] for pod in pods if not unread[look, pod]}
        ledger, block = counters.advance(ledger, seen, gone=gone)
        out.append((block.failures, block.trials))
    return out
