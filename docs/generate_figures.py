"""Draws the pictures of statistics.md, with the operator's own evidence on simulated counts.

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

from serin_operator.decide import evidence
from serin_operator.decide.evidence import Evidence

FIGURES = Path(__file__).parent / "figures"
SEED = 7
RPS, SHARE, INTERVAL = 10, 0.1, 30  # requests a second of both arms, the canary's part, seconds between looks
STABLE, MARGIN, ALPHA = 0.05, 0.02, 0.05
RUNS, LOOKS = 2000, 240

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
        state = evidence.update(state, block)
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
        for draw in (odds, looks, interval):
            path = FIGURES / f"{draw.__name__}.svg"
            draw(np.random.default_rng(SEED)).savefig(path, metadata={"Date": None})
            print(path)


if __name__ == "__main__":
    main()
