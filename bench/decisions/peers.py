"""The rules by which Argo Rollouts, Flagger and Kayenta decide, written from their documented behaviour.

None of it is their code. Each takes a table of counts and the settings that their users write, and ends at the last
look with a promotion if nothing spoke against it, as all three do. What their metric is: the success ratio of the
requests since the look before. Read for Argo Rollouts 1.10, Flagger 1.44 and Kayenta 2.46.
"""

import numpy as np
import numpy.typing as npt

from bench.decisions.outcomes import Looks, Outcome, Table, first, promoted_at_the_end

_Z_OF_98_PERCENT = 2.3263478740408408  # two-sided: the judge's confidence level
_CHUNK_OF_PAIRS = 4_000_000  # keeps the pairwise differences within the processor's reach: 32 MB


def argo_rollouts(table: Table, *, at_least: float, failure_limit: int = 0, every: int = 1) -> Outcome:
    """Argo Rollouts, an AnalysisTemplate that runs in the background.

    Documented (docs/features/analysis.md, "Background Analysis", "Failure Conditions and Failure Limit", "NaN and
    Infinity"): at each `interval` one measurement of the metric; one that does not meet `successCondition`
    (`result[0] >= at_least`) has failed; the rollout is aborted once more than `failureLimit` have, 0 by default.
    A rollout that completes its steps is promoted. Without requests the result is NaN, and the user chooses what that
    means: here it is the first of the three ways shown, `isNaN(result) || result >= at_least`.

    every: looks per measurement.
    """
    failures, trials = _windows(table, every)
    failed = (trials > 0) & (_success(failures, trials) < at_least)
    rolled_back = first(np.cumsum(failed, axis=1) > failure_limit)
    return promoted_at_the_end(_to_looks(rolled_back, failed.shape[1], every, table.shape[1]), table.shape[1])


def flagger(table: Table, *, at_least: float, threshold: int = 5, every: int = 1) -> Outcome:
    """Flagger, a Canary with a metric that has a `thresholdRange.min`.

    Documented (usage/how-it-works, usage/deployment-strategies, usage/metrics): at each `interval` the metric is
    checked over that interval; a check below the minimum halts the advancement and adds one to the counter of failed
    checks, which later successes do not reset; the canary is rolled back when the counter reaches `threshold` (5 in
    its tutorials), so "interval * threshold" is the least time to a rollback. A check without values has failed too
    ("no values found", "probably not receiving traffic"). What gets to the maximum weight is promoted.

    every: looks per check.
    """
    failures, trials = _windows(table, every)
    failed = (trials == 0) | (_success(failures, trials) < at_least)
    rolled_back = first(np.cumsum(failed, axis=1) >= threshold)
    return promoted_at_the_end(_to_looks(rolled_back, failed.shape[1], every, table.shape[1]), table.shape[1])


def kayenta(table: Table, *, every: int = 10, points: int = 50, tolerance: float = 0.25) -> Outcome:
    """Kayenta, the judge `NetflixACAJudge-v1.0` on one metric, with growing analysis.

    Documented (spinnaker.io "How canary judgment works" and "Best practices", docs/canary-config.md): the two arms'
    time series, here the share of failures per look, are compared by a Mann-Whitney U test; the metric is *High* when
    the 98 % confidence interval of the shift lies above `tolerance` times its Hodges-Lehmann estimate (direction
    `increase`) and the ratio of the means is at least `allowedIncrease`, 1 by default. The score is the percentage
    of metrics that pass, with one metric 0 or 100; below the marginal score (75) the canary fails at once, and at the
    pass score (95) the last judgement promotes it. Points without requests are left out (`nanStrategy: remove`), and
    a judgement in which half of the metrics have no data fails the canary. "At least 50 pieces of time series data"
    are asked for, so the first judgement comes at `points` looks; then one comes at every `every` looks.

    Its documentation asks for a baseline as large as the canary. Here the baseline is the whole stable arm, which has
    more requests, so that it is not judged by less data than the other rules.
    """
    runs, looks, _ = table.shape
    canary = _shares(table[:, :, 0], table[:, :, 1])
    stable = _shares(table[:, :, 2], table[:, :, 3])
    rolled_back = np.full(runs, looks, dtype=np.int64)
    for length in range(points, looks + 1, every):
        undecided = np.flatnonzero(rolled_back == looks)
        chunk = max(1, _CHUNK_OF_PAIRS // length**2)
        for begin in range(0, len(undecided), chunk):
            rows = undecided[begin : begin + chunk]
            fails = _fails(canary[rows, :length], stable[rows, :length], tolerance)
            rolled_back[rows[fails]] = length - 1
    return promoted_at_the_end(rolled_back, looks)


def _fails(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], tolerance: float) -> npt.NDArray[np.bool_]:
    """Whether the judge fails each row of canary shares `x` and baseline shares `y`, both (runs, points)."""
    # Order does not matter to the test: absent points (NaN) are sorted to the end and cut off where all rows allow.
    x, y = np.sort(x, axis=1), np.sort(y, axis=1)
    n_x, n_y = (~np.isnan(x)).sum(axis=1), (~np.isnan(y)).sum(axis=1)
    no_data = (n_x == 0) | (n_y == 0)
    x, y = x[:, : max(1, n_x.max(initial=0))], y[:, : max(1, n_y.max(initial=0))]

    differences = (x[:, :, None] - y[:, None, :]).reshape(len(x), -1)
    bound = tolerance * np.abs(_medians(differences, n_x * n_y))
    shifted = x - bound[:, None]

    # The interval's lower end exceeds the bound exactly when the test of "shift = bound" is beyond its quantile,
    # because the standardised rank sum falls as the assumed shift grows.
    above = (differences > bound[:, None]).sum(axis=1) + (differences == bound[:, None]).sum(axis=1) / 2
    excess = above - n_x * n_y / 2
    n = n_x + n_y
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = n_x * n_y / 12 * (n + 1 - _ties(np.concatenate([shifted, y], axis=1)) / (n * (n - 1)))
        z = (excess - np.sign(excess) / 2) / np.sqrt(variance)
    with np.errstate(invalid="ignore"):
        increased = np.nansum(x, axis=1) * n_y >= np.nansum(y, axis=1) * n_x
    return np.asarray(no_data | ((z > _Z_OF_98_PERCENT) & increased))


def _medians(values: npt.NDArray[np.float64], present: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Median of the first `present` sorted values of each row; the rest of the row is NaN. 0 for an empty row."""
    if np.all(present == values.shape[1]):
        return np.asarray(np.median(values, axis=1))
    in_order = np.sort(values, axis=1)
    rows = np.arange(len(values))
    low = in_order[rows, np.maximum(present - 1, 0) // 2]
    high = in_order[rows, np.minimum(present // 2, values.shape[1] - 1)]
    return np.where(present > 0, (low + high) / 2, 0.0)


def _ties(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sum of t^3 - t over the groups of t equal values in each row. NaN equals nothing."""
    in_order = np.sort(values, axis=1)
    begins = np.ones(in_order.shape, dtype=bool)
    begins[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    at = np.flatnonzero(begins)
    sizes = np.diff(np.append(at, in_order.size)).astype(np.float64)
    return np.bincount(at // in_order.shape[1], sizes**3 - sizes, len(values)).astype(np.float64)


def _windows(table: Table, every: int) -> tuple[Table, Table]:
    """Failures and trials of the canary over each `every` looks, (runs, looks // every) both."""
    windows = table.shape[1] // every
    cut = table[:, : windows * every, :2].reshape(len(table), windows, every, 2).sum(axis=2)
    return cut[:, :, 0], cut[:, :, 1]


def _success(failures: Table, trials: Table) -> npt.NDArray[np.float64]:
    """As a query computes it: good requests over all requests. 1 without requests."""
    return np.asarray((np.maximum(trials, 1) - failures) / np.maximum(trials, 1))


def _shares(failures: Table, trials: Table) -> npt.NDArray[np.float64]:
    """Share of failures per look, NaN without requests."""
    return np.where(trials > 0, failures / np.maximum(trials, 1), np.nan)


def _to_looks(windows: Looks, count: int, every: int, looks: int) -> Looks:
    """The index of the look that ends a window; `looks` for the window that never came."""
    return np.where(windows < count, (windows + 1) * every - 1, looks).astype(np.int64)
