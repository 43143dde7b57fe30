"""Worlds that a canary can be in, and tables of counts drawn from them."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.decisions.outcomes import Table

LOOKS = 120
STABLE = 0.05  # share of failures, an accuracy of 95 %
MARGIN = 0.02
HISTORY = 1000  # trials of the stable arm before a rollout

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """Traffic and failures of both arms, look by look. Numbers, or arrays with one per look.

    rate: requests per second of both arms together. split: the canary's share of them.
    stable: the stable arm's share of failures. excess: how much larger the canary's is.
    seconds: between two looks. noise: standard deviation of the log odds of failure, drawn for each arm and look.
    missed: chance that a look does not see an arm; the next one that does brings what was missed.
    """

    rate: float = 10.0
    split: float | Floats = 0.1
    stable: float | Floats = STABLE
    excess: float | Floats = 0.0
    seconds: float = 30.0
    looks: int = LOOKS
    noise: float = 0.0
    missed: float = 0.0

    @property
    def minutes(self) -> float:
        """Between two looks."""
        return self.seconds / 60

    @property
    def per_minute(self) -> tuple[float, float]:
        """Requests per minute of the canary and of the stable, on average over the looks."""
        split = float(np.mean(self.split))
        return self.rate * 60 * split, self.rate * 60 * (1 - split)

    def worse_by(self, excess: float | Floats) -> "World":
        """The same world with another canary."""
        return replace(self, excess=excess)


def every_rate() -> list[World]:
    """The four rates, each looked at 120 times: every 30 s for an hour, or less often for longer at little traffic."""
    seconds = {0.1: 720.0, 1.0: 180.0, 10.0: 30.0, 100.0: 30.0}
    return [World(rate=rate, seconds=each) for rate, each in seconds.items()]


def draw(world: World, rng: np.random.Generator, runs: int) -> Table:
    """Independent tables of what each look counts: requests by a Poisson process, split and failing by chance."""
    shape = (runs, world.looks)
    trials = rng.poisson(world.rate * world.seconds, shape)
    canary = rng.binomial(trials, np.broadcast_to(world.split, shape))
    stable_rate = np.broadcast_to(world.stable, shape)
    table = np.empty((*shape, 4), np.int64)
    for arm, (requests, rate) in enumerate([(canary, stable_rate + world.excess), (trials - canary, stable_rate)]):
        table[:, :, 2 * arm] = rng.binomial(requests, _noisy(rng, rate, world.noise))
        table[:, :, 2 * arm + 1] = requests
    return _with_gaps(table, world.missed, rng)


def past(world: World, rng: np.random.Generator, runs: int) -> npt.NDArray[np.int64]:
    """Failures and trials of the stable arm before each rollout, (runs, 2). They only tell its rate."""
    failures = rng.binomial(HISTORY, float(np.ravel(world.stable)[0]), runs)
    return np.stack([failures, np.full(runs, HISTORY)], axis=1)


def halves(world: World, rng: np.random.Generator, runs: int) -> Table:
    """What two halves of the stable pods count before the rollout, look by look, each with its own noise."""
    before = replace(world, split=0.5, excess=0.0, stable=float(np.ravel(world.stable)[0]), missed=0.0)
    return draw(before, rng, runs)


def _noisy(rng: np.random.Generator, rate: Floats, noise: float) -> Floats:
    if not noise:
        return rate
    odds = rate / (1 - rate) * np.exp(noise * rng.standard_normal(rate.shape))
    return np.asarray(odds / (1 + odds))


def _with_gaps(table: Table, missed: float, rng: np.random.Generator) -> Table:
    """Each arm's counts at the first look that sees it, with those of the looks that did not."""
    if not missed:
        return table
    out, waiting = np.zeros_like(table), np.zeros((len(table), 2, 2), np.int64)
    for look in range(table.shape[1]):
        waiting = waiting + table[:, look].reshape(waiting.shape)
        seen = rng.random((len(table), 2, 1)) >= missed
        out[:, look] = np.where(seen, waiting, 0).reshape(len(table), 4)
        waiting = np.where(seen, 0, waiting)
    return out
