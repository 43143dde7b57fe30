"""Draws the pictures of statistics.md and model-server.md, with the operator's own evidence on simulated counts.

    .venv/bin/python docs/generate_figures.py

The seed is fixed, so the same code draws the same pictures. It takes some seconds.
"""

import math
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serin_operator.decide import drift, evidence
from serin_operator.decide.evidence import Evidence

FIGURES = Path(__file__).parent / "figures"
SEED = 7
RPS, SHARE, INTERVAL = 10, 0.1, 30  # requests a second of both arms, the canary's part, seconds between looks
STABLE, MARGIN, ALPHA = 0.05, 0.02, 0.05
RUNS, LOOKS = 2000, 240
DAYS, SAMPLES = 400, 30
DECILES = tuple(f"[{low}, {low + 1})" for low in range(10))
TOLERANCE, FALSE_ALARMS = 0.05, 0.01

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def blocks(rng: np.random.Generator, rates: Array, runs: int) -> Counts:
    """Counts of shape (looks, runs, 1, 4) of canaries that fail at these rates, (looks,)."""
    canary, stable = round(RPS * INTERVAL * SHARE), round(RPS * INTERVAL * (1 - SHARE))
    out = np.empty((len(rates), runs, 1, 4), np.int64)
    out[..., 0] = rng.binomial(canary, rates[:, None, None], (len(rates), runs, 1))
    out[..., 1] = canary
    out[..., 2] = rng.binomial(stable, STABLE, (len(rates), runs, 1))
    out[..., 3] = stable
    return out


def follow(counts: Counts) -> list[Evidence]:
    """The evidence after each look."""
    state = evidence.start(tolerance=np.zeros(counts.shape[1]), margin=MARGIN)
    states = []
    for block in counts:
        state = evidence.update(state, block, limit=-math.log(ALPHA))
        states.append(state)
    return states


def odds(rng: np.random.Generator) -> Figure:
    """How the odds of three canaries run: equal, five points worse, and one that turns bad."""
    stories = {
        "as good as stable": np.full(LOOKS, STABLE),
        "5 points worse": np.full(LOOKS, STABLE + 0.05),
        "turns 5 points worse after 20 min": np.where(np.arange(LOOKS) < 40, STABLE, STABLE + 0.05),
    }
    figure, (left, right) = _two("odds that it is worse", "odds that it is worse by less than 2 points")
    for name, rates in stories.items():
        states = follow(blocks(rng, rates[:80], 1))
        minutes = np.arange(1, len(states) + 1) * INTERVAL / 60
        for axes, log_odds in ((left, evidence.log_e_worse), (right, evidence.log_e_non_inferior)):
            axes.plot(minutes, np.clip([float(log_odds(state)[0]) for state in states], -9, 9), label=name)
    for axes, verdict in ((left, "roll back"), (right, "enough for promotion")):
        axes.axhline(math.log(1 / ALPHA), color="black", linewidth=1, linestyle="--")
        axes.annotate(f"{verdict}: 20 : 1", (39, math.log(1 / ALPHA)), (0, 4), textcoords="offset points", ha="right")
        marks = [1e-3, 0.01, 0.1, 1, 10, 100, 1000]
        axes.set_yticks([math.log(mark) for mark in marks], [f"{mark:g} : 1" for mark in marks])
        axes.set_xlabel("minutes")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(stories))
    return figure


def looks(rng: np.random.Generator) -> Figure:
    """How many good canaries are rolled back by the time, by this test and by a z-test that is asked at every look."""
    counts = blocks(rng, np.full(LOOKS, STABLE), RUNS)
    ours = np.maximum.accumulate([evidence.log_e_worse(state) for state in follow(counts)])
    y_c, n_c, y_s, n_s = np.moveaxis(np.cumsum(counts[:, :, 0], axis=0), -1, 0)
    pooled = (y_c + y_s) / (n_c + n_s)
    z = (y_c / n_c - y_s / n_s) / np.sqrt(pooled * (1 - pooled) * (1 / n_c + 1 / n_s))
    theirs = np.maximum.accumulate(z)
    minutes = np.arange(1, LOOKS + 1) * INTERVAL / 60
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(minutes, 100 * np.mean(theirs > 1.645, axis=1), label="z-test at 5 %, asked at every look")
    axes.plot(minutes, 100 * np.mean(ours >= math.log(1 / ALPHA), axis=1), label="Serin")
    axes.axhline(100 * ALPHA, color="black", linewidth=1, linestyle="--")
    axes.annotate("promised: at most 5 %", (minutes[-1], 5), (0, 4), textcoords="offset points", ha="right")
    axes.set(xlabel="minutes", ylabel="good canaries rolled back, %", ylim=(0, None))
    axes.legend()
    axes.grid(color="0.9")
    return figure


def interval(rng: np.random.Generator) -> Figure:
    """How the interval of the difference closes in on the truth."""
    figure, panels = _two("a canary as good as stable", "a canary 5 points worse")
    for axes, worse_by in zip(panels, (0.0, 0.05), strict=True):
        states = follow(blocks(rng, np.full(120, STABLE + worse_by), 1))
        minutes = np.arange(1, len(states) + 1) * INTERVAL / 60
        ends = 100 * np.array([evidence.interval(state, alpha=ALPHA, beta=ALPHA)[0] for state in states])
        axes.fill_between(minutes, ends[:, 0], ends[:, 1], alpha=0.3, step="post")
        axes.axhline(100 * worse_by, color="black", linewidth=1)
        axes.axhline(100 * MARGIN, color="black", linewidth=1, linestyle="--")
        axes.annotate("margin", (60, 100 * MARGIN), (0, 3), textcoords="offset points", ha="right")
        axes.set(xlabel="minutes", ylabel="canary minus stable, points", ylim=(-10, 20))
        axes.grid(color="0.9")
    return figure


def drift_alarms(rng: np.random.Generator) -> Figure:
    """How often PSI and Serin's test call no drift drift, and which shifts Serin's finds within seven days."""
    figure, (left, right) = _two(
        "no drift at all: days that are called drift", "a shift of the mean: found within 7 days"
    )
    rows = [30, 50, 100, 200, 300, 500, 1000, 2000]
    called = np.array([np.mean([_calls(rng, n) for _ in range(DAYS)], axis=0) for n in rows])
    for place, name in enumerate(("PSI over 0.1", "PSI over 0.2", "Serin")):
        left.plot(rows, 100 * called[:, place], marker="o", label=name)
    left.set(xlabel="rows a day, against a reference of 2,000", xscale="log", ylabel="%", ylim=(-3, 103))
    left.set_xticks(rows, [str(n) for n in rows], minor=False)
    left.minorticks_off()
    shifts = np.arange(0, 1.01, 0.1)
    for reference in (500, 2000, 10_000):
        found = [100 * np.mean([_found(rng, reference, shift) for _ in range(SAMPLES)]) for shift in shifts]
        right.plot(shifts, found, marker="o", label=f"reference of {reference:,} rows")
    right.set(xlabel="shift of one of five features, in standard deviations", ylim=(-3, 103))
    for axes in (left, right):
        axes.grid(color="0.9")
        axes.legend()
    return figure


def _deciles(rng: np.random.Generator, rows: int) -> tuple[Array, drift.Feature]:
    """The edges between the deciles of a sample, and how the sample falls between them."""
    sample = np.sort(rng.normal(size=rows))
    edges = sample[np.arange(1, 10) * rows // 10]
    return edges, drift.Feature("x", DECILES, tuple(_binned(edges, sample).tolist()))


def _binned(edges: Array, values: Array) -> Counts:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=10)


def _calls(rng: np.random.Generator, rows: int) -> tuple[bool, bool, bool]:
    """Whether PSI, as people compute it, is over 0.1 and over 0.2 on a day without drift, and whether Serin alarms."""
    edges, feature = _deciles(rng, 2000)
    live = _binned(edges, rng.normal(size=rows))
    was, now = (np.maximum(counts / counts.sum(), 1e-4) for counts in (np.array(feature.reference), live))
    psi = float(((now - was) * np.log(now / was)).sum())
    alarm = drift.log_e([feature], [live], TOLERANCE)[0] >= math.log(1 / FALSE_ALARMS)
    return psi > 0.1, psi > 0.2, bool(alarm)


def _found(rng: np.random.Generator, reference: int, shift: float) -> bool:
    """Whether seven days of 2,000 rows each are enough, when one of five features has drifted."""
    edges, features = zip(*(_deciles(rng, reference) for _ in range(5)), strict=True)
    sums = np.full(5, -math.inf)
    for _ in range(7):
        live = [_binned(cut, rng.normal(0.0 if place else shift, size=2000)) for place, cut in enumerate(edges)]
        sums = drift.advance(sums, drift.log_e(features, live, TOLERANCE), log_most=math.inf)
        if drift.log_mean(sums) >= math.log(1 / FALSE_ALARMS):
            return True
    return False


def _two(left: str, right: str) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    one, other = figure.subplots(1, 2)
    one.set_title(left)
    other.set_title(right)
    return figure, (one, other)


def main() -> None:
    """Draw all."""
    FIGURES.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "serin", "svg.fonttype": "none", "font.size": 9}):
        for draw in (odds, looks, interval, drift_alarms):
            path = FIGURES / f"{draw.__name__}.svg"
            draw(np.random.default_rng(SEED)).savefig(path, metadata={"Date": None})
            print(path)


if __name__ == "__main__":
    main()
