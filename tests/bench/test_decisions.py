"""The simulations of the benchmark: what they draw, that they repeat, and that every table can be written."""

import io
import json
from types import ModuleType

import numpy as np
import pytest
from bench.decisions import contest, cost, delays, grid, hardships, labels, pairs, ramps, report, worlds
from rich.console import Console

SECTIONS = [cost, delays, grid, hardships, labels, pairs, ramps]


@pytest.mark.parametrize("module", SECTIONS, ids=lambda module: module.__name__)
def test_a_section_makes_a_table_and_goals(module: ModuleType) -> None:
    section = module.section(4)
    tasks = section.tasks if module is cost else section.tasks[-1:]
    records = [record for number, task in enumerate(tasks) for record in task(number, 4)]
    console = Console(file=io.StringIO(), width=200)
    report.show(console, section, records)
    text = report.markdown(section, records)
    for column in section.columns:
        assert column.title in text
    assert len(text.splitlines()) >= len(records) + 2
    assert json.loads(report.as_json({section.key: records}, [], {"seed": 1}))["sections"][section.key]


def test_the_same_seed_gives_the_same_rows() -> None:
    task = grid.section(10).tasks[0]
    assert task(3, 10) == task(3, 10)


@pytest.mark.parametrize("missed", [0.0, 0.3])
def test_worlds_split_and_fail_as_they_say(missed: float) -> None:
    world = worlds.World(rate=10, split=0.25, stable=0.1, excess=0.05, missed=missed)
    y_c, n_c, y_s, n_s = worlds.draw(world, np.random.default_rng(1), 200).sum(axis=(0, 1))
    assert n_c / (n_c + n_s) == pytest.approx(0.25, abs=0.01)
    assert y_c / n_c == pytest.approx(0.15, abs=0.005)
    assert y_s / n_s == pytest.approx(0.10, abs=0.005)
    assert n_c + n_s == pytest.approx(200 * worlds.LOOKS * 300, rel=0.01)


def test_a_look_that_misses_an_arm_leaves_its_counts_to_the_next_one() -> None:
    whole, gaps = (
        worlds.draw(worlds.World(split=0.5, missed=missed), np.random.default_rng(1), 50) for missed in (0.0, 0.3)
    )
    assert np.all(np.cumsum(gaps, axis=1) <= np.cumsum(whole, axis=1))
    seen = gaps[:, -1, 1] > 0
    assert np.array_equal(gaps[seen, :, :2].sum(axis=1), whole[seen, :, :2].sum(axis=1))
    assert np.mean(gaps[:, :, 1] == 0) == pytest.approx(0.3, abs=0.03)


def test_a_cohort_counts_the_labels_of_its_window_and_none_of_before_the_rollout() -> None:
    world = labels.stepped_up(60)
    arrived, closed = labels.draw(world, np.random.default_rng(1), 100)
    assert closed[:, : world.window].sum() == 0
    in_window = 1 - np.exp(-(world.window + 1) / world.right_after)
    canary, stable = closed[:, world.window].sum(axis=0)[[1, 3]]
    assert (canary + stable) / (100 * world.per_look) == pytest.approx(in_window, rel=0.02)
    assert canary / (canary + stable) == pytest.approx(0.05, abs=0.01)
    # On arrival the stable has the labels of predictions from before, the canary has not.
    assert arrived[:, 0, 1].sum() / arrived[:, 0, 3].sum() < 0.02


def test_serin_decides_alike_whatever_else_is_in_the_batch() -> None:
    table = worlds.draw(worlds.World(excess=0.03), np.random.default_rng(1), 8)
    together = contest.serin(table, contest.policy())
    for run in range(8):
        alone = contest.serin(table[run : run + 1], contest.policy())
        assert (alone.rolled_back[0], alone.promoted[0]) == (together.rolled_back[run], together.promoted[run])


def test_goals_say_what_is_missed() -> None:
    row = {"rule": contest.SERIN, "false_rollback": 0.051, "false_promotion": 0.01}
    rollback, promotion = grid.goals([row, row | {"false_rollback": 0.0}])
    assert (rollback.kept, promotion.kept) == (False, True)
    assert rollback.measured == "at most 5.1 % in 2 rows"
    assert "**no**" in report.goals_markdown([rollback])


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (report.percent, 0.0, "0 %"),
        (report.percent, 0.034, "3.4 %"),
        (report.percent, 0.5, "50 %"),
        (report.percent, None, "–"),
        (report.minutes, float("inf"), "–"),
        (report.minutes, 14.907, "14.9"),
        (report.minutes, 0.25, "0.25"),
        (report.number, 1234.5, "1,234"),
        (report.number, 0, "0"),
    ],
)
def test_numbers_are_written_with_the_digits_that_matter(write: object, value: float | None, expected: str) -> None:
    assert callable(write)
    assert write(value) == expected
