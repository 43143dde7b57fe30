"""Sequential evidence: is the canary worse than the stable version, is it good enough, is it better?

A metric is "y failures in n trials" per arm, or in each of K strata per arm; then all hypotheses are about the mean
over strata of the difference f_c - f_s. An `Evidence` holds the tests of a batch of metrics. Each test is an e-process
made of the safe test for two streams (likelihood ratio against the projection onto the null hypothesis):

- *worse* is evidence against H0: f_c <= f_s + tolerance. Enough of it rolls the canary back.
- *non-inferior* is evidence against H0: f_c >= f_s + margin. Enough of it lets the canary be promoted.
- *superior* is evidence against H0: f_c >= f_s, for those who promote only what is better.

An e-process starts at 1 and, while its null hypothesis holds, ever reaches 1/a with probability at most a
(Ville's inequality). So one may look after every scrape and stop at will. The split enters only through the
trials of each block, and drift that both arms share cancels, because each block is compared within itself.
The alternatives of a block depend on earlier blocks only. `verdict.py` combines the log odds of several metrics.

*Worse* can begin late. Part of the stake is laid at the start, the rest at later onsets in shares that are fixed in
advance, and the evidence is the mean over all of them (a mixture of e-processes that start at different times).

Everything here is pure, and an `Evidence` is never changed. All evidence is in natural logarithms; all rates are
fractions of 1. Shapes: B tests, K strata.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from serin_operator.decide import alternatives, grid, totals
from serin_operator.decide.alternatives import NON_INFERIOR, SUPERIOR, WORSE, Prior
from serin_operator.decide.grid import GRID
from serin_operator.decide.projection import Array, Integers, log_likelihood_ratios_and_slopes
from serin_operator.decide.sums import Singles, log_mean_exp, log_sum_exp, pack, per_alternative, rounded_down, unpack

CEILING = 2.0  # times the odds at which a test rolls back: what it may have of them
_FIRST_ONSET = 256  # canary trials; then whenever they have doubled
_LAYOUT = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """`failures` among `trials`. Raises ValueError unless 0 <= failures <= trials."""

    failures: int = 0
    trials: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.failures <= self.trials:
            raise ValueError(f"{self.failures} failures in {self.trials} trials")

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.failures + other.failures, self.trials + other.trials)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The state of a batch of tests. Make it with `start`, change it with `update`, `onset` and `retarget` only.

    tolerance, margin: (B,), the hypotheses, as fractions.
    phi: (B,), overdispersion, at least 1. Every log likelihood ratio is divided by it.
    history: (B, K, 2), failures and trials of the stable arm before the rollout, at most a thousand trials.
    tested, pending: (B, K, 4), failures and trials of the canary, then of the stable arm: those that the sums hold, and
        those that wait until every stratum of both arms has at least one trial.
    onsets, onset_trials: (B,), how many onsets there were after the start, and the canary's tested trials at the last.
    worse: (B, J), per alternative the ln of the summed likelihood ratios since each onset, weighted by the onsets'
        shares relative to the start's.
    non_inferior, superior: (B, *), log likelihood ratio per alternative.
    above, below: (B, len(GRID)), per difference d log evidence against f_c <= f_s + d and against f_c >= f_s + d.
    prior: the alternatives for worse.

    Sums are single-precision numbers, rounded down (the grid's to three bytes): still valid evidence, and what is
    stored is what is computed with.
    """

    tolerance: Array
    margin: Array
    phi: Array
    history: Integers
    tested: Integers
    pending: Integers
    onsets: Integers
    onset_trials: Integers
    worse: Singles
    non_inferior: Singles
    superior: Singles
    above: Singles
    below: Singles
    prior: Prior = WORSE

    def __len__(self) -> int:
        return len(self.tolerance)

    @property
    def strata(self) -> int:
        return int(self.tested.shape[1])

    @property
    def total(self) -> Integers:
        """(B, K, 4), everything counted so far, pending counts included."""
        return self.tested + self.pending


def start(
    *,
    tolerance: npt.ArrayLike,
    margin: npt.ArrayLike,
    phi: npt.ArrayLike = 1.0,
    strata: int = 1,
    history: npt.ArrayLike | None = None,
    prior: Prior = WORSE,
) -> Evidence:
    """No evidence yet, for as many tests as the longest argument has numbers.

    history: integers (B, K, 2), the stable arm's failures and trials before the rollout. They are not tested; they let
    the first blocks be tested with the right rate, so that a decision comes sooner. Of many, only the ratio counts.
    Raises ValueError unless 0 <= tolerance < margin < 1, phi >= 1, all finite, and strata >= 1.
    """
    tolerance, margin, phi = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(value, np.float64)) for value in (tolerance, margin, phi))
    )
    if not np.all((tolerance >= 0) & (tolerance < margin) & (margin < 1)):
        raise ValueError(f"need 0 <= tolerance < margin < 1, got tolerance {tolerance} and margin {margin}")
    if not np.all((phi >= 1) & (phi < math.inf)):
        raise ValueError(f"need a finite phi of at least 1, got {phi}")
    if strata < 1:
        raise ValueError(f"need at least one stratum, got {strata}")
    batch = len(tolerance)

    def nothing(length: int) -> Singles:
        return np.zeros((batch, length), np.float32)

    return Evidence(
        tolerance=tolerance.copy(),
        margin=margin.copy(),
        phi=phi.copy(),
        history=_history(history, (batch, strata, 2)),
        tested=np.zeros((batch, strata, 4), np.int64),
        pending=np.zeros((batch, strata, 4), np.int64),
        onsets=np.zeros(batch, np.int64),
        onset_trials=np.zeros(batch, np.int64),
        worse=nothing(len(prior.margins)),
        non_inferior=nothing(len(NON_INFERIOR.margins)),
        superior=nothing(len(SUPERIOR.margins)),
        above=nothing(len(GRID)),
        below=nothing(len(GRID)),
        prior=prior,
    )


def retarget(evidence: Evidence, *, tolerance: npt.ArrayLike, margin: npt.ArrayLike) -> Evidence:
    """The same evidence under tolerances and margins that were edited while the rollouts run; scalars or (B,).

    Evidence against f_c <= f_s + 0.01 is also evidence against f_c <= f_s, but not the other way round. So
    the sums of a hypothesis that became wider start again at nothing, those of a narrower one are kept, and
    the counts and the grid are kept always. The same values change nothing. Raises ValueError as `start`.
    """
    fresh = start(
        tolerance=np.broadcast_to(np.asarray(tolerance), len(evidence)),
        margin=margin,
        strata=evidence.strata,
        prior=evidence.prior,
    )
    wider, narrower = fresh.tolerance > evidence.tolerance, fresh.margin < evidence.margin
    return replace(
        evidence,
        tolerance=fresh.tolerance,
        margin=fresh.margin,
        worse=np.where(wider[:, None], fresh.worse, evidence.worse),
        onsets=np.where(wider, 0, evidence.onsets),
        onset_trials=np.where(wider, _canary_trials(evidence), evidence.onset_trials),
        non_inferior=np.where(narrower[:, None], fresh.non_inferior, evidence.non_inferior),
    )


def update(evidence: Evidence, counts: npt.ArrayLike, *, limit: npt.ArrayLike | None = None) -> Evidence:
    """The evidence after one more block of counts, integers of shape (B, K, 4) like `tested`.

    limit: ln of the odds at which each test rolls back by itself, scalar or (B,), inf for one that never does. With it,
    the evidence for worse is raised as far as the totals allow (see `totals`), to at most CEILING times the limit.

    A block in which a stratum of either arm has no trial says nothing about the mean difference: it waits in `pending`
    and is tested together with the blocks after it. A block without any counts changes nothing. Raises ValueError for
    another shape, or unless 0 <= failures <= trials.
    """
    waiting = evidence.pending + _checked(counts, evidence.tested.shape)
    full = np.asarray((waiting[..., 1::2] > 0).all(axis=(1, 2)))
    block = np.where(full[:, None, None], waiting, 0)

    past = evidence.history + evidence.tested[..., 2:]
    gains, slopes = _gains(evidence, past, block)
    if evidence.strata == 1 and evidence.prior.lesson:
        unknown = full & (past[:, 0, 1] == 0)
        if unknown.any():
            gains[unknown] = _gains_of_lessons(take(evidence, unknown), block[unknown])
    if limit is not None:
        for_worse = gains[:, : len(evidence.prior.margins)]
        for_worse += _raised(evidence, for_worse, slopes, past, block, limit)[:, None]

    sums = np.concatenate([getattr(evidence, name) for name in _SUMS], axis=1) + gains
    of_grid = np.arange(sums.shape[1]) >= sums.shape[1] - 2 * len(GRID)
    parts = _parted(rounded_down(sums, short=of_grid), evidence)
    following = replace(evidence, tested=evidence.tested + block, pending=waiting - block, **parts)
    # One long step has onsets too.
    return _begin(following, _canary_trials(following) >= np.maximum(_FIRST_ONSET, 2 * evidence.onset_trials))


def onset(evidence: Evidence, where: npt.ArrayLike = True) -> Evidence:
    """A new process of each alternative for worse starts now, with the next share of the stake: say, at a new weight.

    where: (B,) or for all. Changes nothing where nothing was tested since the last onset.
    """
    return _begin(evidence, np.asarray(where, np.bool_))


def log_e_worse(evidence: Evidence) -> Array:
    """(B,), ln of the odds that the canary is worse: f_c > f_s + tolerance. 0 without data."""
    prior = evidence.prior
    laid = math.log(prior.first) + log_mean_exp(evidence.worse, prior.log_weights)
    return np.asarray(np.logaddexp(laid, np.log(np.maximum(prior.unspent(evidence.onsets), 1e-300))))


def log_e_non_inferior(evidence: Evidence) -> Array:
    """(B,), ln of the odds that the canary is good enough: f_c < f_s + margin. 0 without data."""
    return log_mean_exp(evidence.non_inferior, NON_INFERIOR.log_weights)


def log_e_superior(evidence: Evidence) -> Array:
    """(B,), ln of the odds that the canary is better: f_c < f_s. 0 without data."""
    return log_mean_exp(evidence.superior, SUPERIOR.log_weights)


def interval(evidence: Evidence, *, alpha: float, beta: float) -> Array:
    """(B, 2), confidence sequences (low, high) for the difference f_c - f_s, at level 1 - alpha - beta.

    If the difference stays the same, it lies within all the intervals that are ever shown with at least that
    probability. They agree with the verdicts: low >= tolerance when `log_e_worse` reaches ln(1/alpha), high <= margin
    when `log_e_non_inferior` reaches ln(1/beta), and high <= 0 when `log_e_superior` does as well. See `grid.py`.

    Where no single difference fits (the true difference has changed over time), or alpha + beta >= 1, it is
    (-1, 1).
    """
    return grid.interval(
        evidence.above,
        evidence.below,
        tolerance=evidence.tolerance[:, None],
        margin=evidence.margin[:, None],
        worse=log_e_worse(evidence)[:, None],
        non_inferior=log_e_non_inferior(evidence)[:, None],
        superior=log_e_superior(evidence)[:, None],
        alpha=alpha,
        beta=beta,
    )


def upper_limit(evidence: Evidence, *, alpha: float, beta: float) -> Array:
    """(B,), the largest f_c - f_s that is not excluded; 1 without evidence. See `grid.py`.

    If the difference stays the same, it is below all the limits that are ever shown with probability at least
    1 - alpha - beta. Unlike the interval, it also follows a difference that has changed.
    """
    return grid.upper_limit(
        evidence.below,
        margin=evidence.margin[:, None],
        non_inferior=log_e_non_inferior(evidence)[:, None],
        superior=log_e_superior(evidence)[:, None],
        alpha=alpha,
        beta=beta,
    )


def difference(evidence: Evidence) -> Array:
    """(B,), the mean over strata of the observed f_c - f_s over everything tested; nan while nothing is.

    Plain ratios of totals: under drift together with a changing split it is off, where the tests are not.
    """
    y_c, n_c, y_s, n_s = (evidence.tested[..., i] for i in range(4))
    apart = y_c / np.maximum(n_c, 1) - y_s / np.maximum(n_s, 1)
    return np.where(_canary_trials(evidence) > 0, apart.mean(axis=1), np.nan)


def take(evidence: Evidence, indices: npt.ArrayLike) -> Evidence:
    """The tests at these places of the batch, in this order."""
    chosen: dict[str, Any] = {name: getattr(evidence, name)[indices] for name in _ARRAYS}
    return replace(evidence, **chosen)


def concat(batches: Sequence[Evidence]) -> Evidence:
    """All tests of several batches, in order. Raises ValueError without any, or for unequal strata or priors."""
    if len({(id(each.prior), each.strata) for each in batches}) != 1:
        raise ValueError("only batches with equal strata and priors can be joined, at least one")
    joined: dict[str, Any] = {name: np.concatenate([getattr(each, name) for each in batches]) for name in _ARRAYS}
    return replace(batches[0], **joined)


def encode(evidence: Evidence) -> list[str]:
    """One text per test, about 300 characters that JSON needs not escape. `decode` gives back what encodes equal."""
    texts = []
    for i in range(len(evidence)):
        counts = np.concatenate([each[i].ravel() for each in (evidence.history, evidence.tested, evidence.pending)])
        integers = [_LAYOUT, int(evidence.onsets[i]), int(evidence.onset_trials[i]), *counts.tolist()]
        doubles = [getattr(evidence, name)[i] for name in _HYPOTHESES]
        texts.append(pack(integers, doubles, np.concatenate([getattr(evidence, name)[i] for name in _SUMS])))
    return texts


def decode(texts: Sequence[str], *, prior: Prior = WORSE) -> Evidence:
    """Reads what `encode` wrote, all of equal strata. Raises ValueError for anything else, another layout included."""
    return concat([_decode(text, prior) for text in texts])


def _decode(text: str, prior: Prior) -> Evidence:
    integers, doubles, singles = unpack(text)
    if integers[:1] != [_LAYOUT]:
        raise ValueError(f"evidence has layout {integers[:1]}, this version reads {_LAYOUT}")
    strata, odd = divmod(len(integers) - 3, 10)
    if strata < 1 or odd or len(doubles) != len(_HYPOTHESES):
        raise ValueError(f"not a stored state of evidence: {len(integers)} integers and {len(doubles)} doubles")
    history, tested, pending = np.split(np.array(integers[3:], np.int64), [2 * strata, 6 * strata])
    tolerance, margin, phi = doubles
    fresh = start(
        tolerance=tolerance,
        margin=margin,
        phi=phi,
        strata=strata,
        history=history.reshape(1, strata, 2),
        prior=prior,
    )
    sums = _parted(singles[None], fresh)
    expected = sum(getattr(fresh, name).shape[1] for name in _SUMS)
    if len(singles) != expected or not np.isfinite(singles).all():
        raise ValueError(f"not a stored state of evidence: expected {expected} finite sums, got {singles}")
    return replace(
        fresh,
        tested=_checked(tested.reshape(1, strata, 4), (1, strata, 4)),
        pending=_checked(pending.reshape(1, strata, 4), (1, strata, 4)),
        onsets=np.array(integers[1:2]),
        onset_trials=np.array(integers[2:3]),
        **sums,
    )


_HYPOTHESES = ("tolerance", "margin", "phi")
_SUMS = ("worse", "non_inferior", "superior", "above", "below")
_ARRAYS = tuple(field.name for field in fields(Evidence) if field.name != "prior")


def _parted(sums: Singles, like: Evidence) -> dict[str, Any]:
    """The sums of each field, from those of all fields side by side."""
    parts, begin = {}, 0
    for name in _SUMS:
        end = begin + getattr(like, name).shape[1]
        parts[name] = sums[:, begin:end]
        begin = end
    return parts


def _gains(evidence: Evidence, past: Integers, block: Integers) -> tuple[Array, Array]:
    """Log likelihood ratios of a block, (B, all alternatives): of each field in _SUMS, in their order.

    And by how much those for worse are more for a failure of the canary instead of one of the stable arm, (B, J).
    past: (B, K, 2), failures and trials of the stable arm that give its rate.
    """
    of_canary, of_stable = evidence.tested.astype(np.float64), past.astype(np.float64)
    f_s = alternatives.stable_rate(of_stable[..., :1], of_stable[..., 1:])
    f_c = alternatives.canary_rate(of_canary[..., :1], of_canary[..., 1:2], f_s)
    rates, limits = alternatives.side_by_side(f_c, f_s, evidence.tolerance, evidence.margin, evidence.prior)
    ratios, slopes = log_likelihood_ratios_and_slopes(rates, f_s, limits, block)
    ratios /= evidence.phi[:, None]
    excess = (rates - f_s).sum(axis=1) / evidence.strata - limits
    # An alternative that is not strictly outside its null hypothesis adds nothing.
    over, under = np.where(excess > 0, ratios, 0.0), np.where(excess < 0, ratios, 0.0)
    first, last = len(evidence.prior.margins), -len(GRID)
    gains = np.concatenate([over[:, :first], under[:, first:last], over[:, last:], under[:, last:]], axis=1)
    return gains, np.where(excess[:, :first] > 0, slopes[:, :first], 0.0)


def _gains_of_lessons(evidence: Evidence, block: Integers) -> Array:
    """As `_gains`, for tests of one stratum whose stable rate is not known: a part of the block teaches it."""
    teach, chances = alternatives.lessons(block[:, 0, 2], block[:, 0, 3], evidence.prior.lesson)
    rows, taught = np.nonzero(chances)
    past = np.stack([taught, teach[rows]], axis=1)[:, None]
    rest = block[rows]
    rest[..., 2:] -= past
    log_chances = np.log(chances[rows, taught])[:, None]
    starts = np.searchsorted(rows, np.arange(len(block)))
    total = np.logaddexp.reduceat(log_chances + _gains(take(evidence, rows), past, rest)[0], starts)
    return np.asarray(total - np.logaddexp.reduceat(log_chances, starts))  # the latter is ln 1, but for rounding


def _raised(
    evidence: Evidence, gains: Array, slopes: Array, past: Integers, block: Integers, limit: npt.ArrayLike
) -> Array:
    """(B,), by how much the totals of a block raise the logarithms for worse. gains, slopes, past: those of `_gains`.

    0 where they do not tell how the failures fall: with a tolerance, with overdispersion, with several strata, and
    where the stable rate is learned in the same block; and for a test that has rolled back.
    """
    raised = np.zeros(len(evidence))
    if evidence.strata > 1:
        return raised
    prior = evidence.prior
    bets = (math.log(prior.first) + prior.log_weights)[:, None] + per_alternative(evidence.worse)
    before, unlaid = log_sum_exp(bets), prior.unspent(evidence.onsets)
    odds = np.exp(np.minimum(limit, totals.MOST))
    tells = (evidence.tolerance == 0) & (evidence.phi == 1) & (past[:, 0, 1] > 0) & (block[:, 0, 1] > 0)
    tells &= np.exp(np.minimum(before, totals.MOST)) + unlaid < odds
    if tells.any():
        chosen = slice(None) if tells.all() else np.flatnonzero(tells)
        after, room = bets + gains.T, np.log(CEILING * odds - unlaid)
        raised[chosen] = totals.log_factor(
            before[chosen], after[:, chosen], slopes.T[:, chosen], room[chosen], block[chosen, 0]
        )
    return raised


def _begin(evidence: Evidence, where: npt.NDArray[np.bool_]) -> Evidence:
    if evidence.prior.first == 1 or not where.any():
        return evidence
    trials = _canary_trials(evidence)
    where = where & (trials > evidence.onset_trials)
    onsets = evidence.onsets + where
    share = np.log(evidence.prior.share(np.maximum(onsets, 1)))[:, None]
    return replace(
        evidence,
        onsets=onsets,
        onset_trials=np.where(where, trials, evidence.onset_trials),
        worse=np.where(where[:, None], rounded_down(np.logaddexp(evidence.worse, share)), evidence.worse),
    )


def _canary_trials(evidence: Evidence) -> Integers:
    return np.asarray(evidence.tested[..., 1].sum(axis=1))


def _history(history: npt.ArrayLike | None, shape: tuple[int, ...]) -> Integers:
    if history is None:
        return np.zeros(shape, np.int64)
    return alternatives.recent(_checked(history, shape))


def _checked(counts: npt.ArrayLike, shape: tuple[int, ...]) -> Integers:
    """The counts as integers. Raises ValueError for impossible ones."""
    counts = np.asarray(counts)
    if counts.shape != shape or counts.dtype.kind not in "iu":
        raise ValueError(f"expected integers of shape {shape}, got {counts.dtype} of shape {counts.shape}")
    failures, trials = counts[..., 0::2], counts[..., 1::2]
    wrong = (failures < 0) | (failures > trials)
    if wrong.any():
        raise ValueError(f"{failures[wrong][0]} failures in {trials[wrong][0]} trials")
    return counts.astype(np.int64)
