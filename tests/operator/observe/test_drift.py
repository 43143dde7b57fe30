"""From exposed bins to the rows since the last reading."""

import math

import aiohttp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.operator.observe.http import answering, pod

from serin_operator.decide.drift import Feature, events
from serin_operator.observe.drift import _WANTED, MOST_FEATURES, DriftLedger, arrange, look_for_drift
from serin_operator.observe.samples import Point
from serin_operator.observe.scrape import parse
from serin_server.drift.build import build
from serin_server.drift.counter import DriftCounter, render_reference
from serin_server.runtime.model import Predictions

STARTED = 1000
OLD, NEW = "pod-0/1000", "pod-1/2050"
BINS = ("[-Inf, 1)", "[1, +Inf)")


def points(series: str, *counts: int, feature: str = "x") -> list[Point]:
    labels = [{"revision": "r", "feature": feature, "bin": name} for name in BINS]
    return [
        *(Point(series, "serin_feature_bin_total", each, n) for each, n in zip(labels, counts, strict=True)),
        *(Point(series, "serin_feature_reference_ratio", each, 0.5) for each in labels),
        Point(series, "serin_feature_reference_rows", labels[0], 30),
    ]


def step(known: DriftLedger | None, now: float, **processes: tuple[int, int]) -> tuple[list[int], DriftLedger]:
    names = {"old": OLD, "new": NEW}
    found = [point for name, counts in processes.items() for point in points(names[name], *counts)]
    reading, ledger = arrange(found, [names[name] for name in processes], {"pod-0", "pod-1"}, "r", known, now)
    assert reading.features == (Feature("x", BINS, (15, 15)),)
    return reading.live[0].tolist(), ledger


def test_the_first_reading_is_the_baseline() -> None:
    live, ledger = step(None, 2000, old=(5, 7))
    assert live == [0, 0]
    assert step(ledger, 2060, old=(6, 9))[0] == [1, 2]


def test_a_process_that_has_started_since_counts_in_full() -> None:
    _, ledger = step(None, 2000, old=(5, 7))
    assert step(ledger, 2060, old=(5, 7), new=(3, 4))[0] == [3, 4]


def test_a_process_that_could_not_be_read_before_has_its_baseline_first() -> None:
    _, ledger = step(None, 2100, old=(5, 7))
    live, ledger = step(ledger, 2160, old=(5, 7), new=(3, 4))
    assert live == [0, 0]
    assert step(ledger, 2220, old=(5, 7), new=(4, 4))[0] == [1, 0]


def test_a_pod_that_is_missed_once_brings_all_of_it_later() -> None:
    _, ledger = step(None, 2000, old=(5, 7))
    _, ledger = step(ledger, 2060, new=(3, 4))
    assert step(ledger, 2120, old=(7, 7), new=(3, 4))[0] == [2, 0]


def test_a_reading_of_an_earlier_moment_counts_nothing_and_nothing_twice_later() -> None:
    """Two Prometheus servers behind one address are seconds apart."""
    _, ledger = step(None, 2000, old=(50, 70))
    live, ledger = step(ledger, 2060, old=(49, 70))
    assert live == [0, 0]
    assert step(ledger, 2120, old=(51, 72))[0] == [1, 2]


def test_the_series_of_pods_that_are_gone_are_forgotten() -> None:
    _, ledger = step(None, 2000, old=(5, 7))
    _, ledger = arrange(points(NEW, 3, 4), [NEW], {"pod-1"}, "r", ledger, 2060)
    assert ledger.counted.keys() == {NEW}


def test_so_many_features_are_tested_the_first_by_name() -> None:
    found = [point for place in range(MOST_FEATURES + 9) for point in points(OLD, 1, 2, feature=f"x{place:03}")]
    reading, _ = arrange(found, [OLD], {"pod-0"}, "r", None, 2000)
    assert [each.name for each in reading.features] == [f"x{place:03}" for place in range(MOST_FEATURES)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9))
def test_every_row_counts_once_however_often_it_is_read(increments: list[tuple[int, int]]) -> None:
    at, total, ledger = np.array([0, 0]), np.array([0, 0]), None
    for place, increment in enumerate([(0, 0), *increments]):
        at = at + increment
        for again in (0, 1):
            live, ledger = step(ledger, 2000 + 2 * place + again, old=(int(at[0]), int(at[1])))
            total = total + live
    assert total.tolist() == at.tolist()


async def test_what_a_server_exposes_is_read_as_it_was_meant() -> None:
    """Odd names too: a category that looks like an interval, quotes, line breaks."""
    odd = 'a "quoted"\n\\ name, [1, 2)'
    columns = {odd: np.array(["[1, 2)"] * 10 + ["b"] * 20, dtype=object), "x": np.array([0.0, math.nan, 2.0] * 10)}
    profile = build(columns, np.array([1, 2, 3] * 10), ["1", "2", "3"], bins=4)
    counter = DriftCounter(profile, "m", "r")
    counter.add(np.array([["b", 2.0], [None, 0.0]], dtype=object), Predictions(np.array([1.5, 2.0]), {}, None))
    text = f"process_start_time_seconds {STARTED}\n" + counter.render() + render_reference(profile, "m", "r")
    series, found = parse("pod-0", text, _WANTED)
    ledger = DriftLedger("r", STARTED, {})
    reading, _ = arrange(found, [series], {"pod-0"}, "r", ledger, 2000)
    by_name = {each.name: (each, live) for each, live in zip(reading.features, reading.live, strict=True)}
    assert by_name.keys() == {odd, "x", "(prediction)"}
    feature, live = by_name[odd]
    assert dict(zip(feature.bins, feature.reference, strict=True)) == {
        "= [1, 2)": 10,
        "= b": 20,
        "other": 0,
        "missing": 0,
    }
    assert dict(zip(feature.bins, live.tolist(), strict=True)) == {"= [1, 2)": 0, "= b": 1, "other": 0, "missing": 1}
    assert "below 1" in events(by_name["x"][0].bins)[0]
    assert "below 1" not in events(feature.bins)[0]


EXPOSITION = """\
process_start_time_seconds 1500
serin_feature_bin_total{bin="[-Inf, 1)",feature="x",model="m",revision="r"} 4
serin_feature_bin_total{bin="[1, +Inf)",feature="x",model="m",revision="r"} 5
serin_feature_bin_total{bin="[1, +Inf)",feature="x",model="m",revision="another"} 6
serin_feature_reference_ratio{bin="[-Inf, 1)",feature="x",model="m",revision="r"} 0.5
serin_feature_reference_ratio{bin="[1, +Inf)",feature="x",model="m",revision="r"} 0.5
serin_feature_reference_rows{feature="x",model="m",revision="r"} 30
"""
LEDGER = DriftLedger("r", 1400.0, {})


async def test_the_pods_are_read(session: aiohttp.ClientSession, port: int) -> None:
    async with answering("127.0.0.1", port, EXPOSITION):
        pods = [pod("pod-0", "127.0.0.1", revision="r"), pod("pod-1", "127.0.0.2", revision="another")]
        reading, ledger = await look_for_drift(session, None, ("shop", "iris"), pods, "r", LEDGER, 2000)
    assert reading.features == (Feature("x", BINS, (15, 15)),)
    assert [each.tolist() for each in reading.live] == [[4, 5]]
    assert ledger is not None and ledger.counted.keys() == {"pod-0/1500"}


async def test_prometheus_is_read(session: aiohttp.ClientSession, port: int) -> None:
    series = []
    for family in text_string_to_metric_families(EXPOSITION):
        for sample in family.samples:
            labels = {"__name__": sample.name, "pod": "pod-0", "job": "pods", **sample.labels}
            series.append({"metric": labels, "value": [2000, str(sample.value)]})
    answer = {"status": "success", "data": {"resultType": "vector", "result": series}}
    async with answering("127.0.0.1", port, answer):
        pods = [pod("pod-0", "127.0.0.9", revision="r")]
        address = f"http://127.0.0.1:{port}"
        reading, _ = await look_for_drift(session, address, ("shop", "iris"), pods, "r", LEDGER, 2000)
    assert reading.features == (Feature("x", BINS, (15, 15)),)
    assert [each.tolist() for each in reading.live] == [[4, 5]]


async def test_what_can_not_be_read_changes_nothing(session: aiohttp.ClientSession, port: int) -> None:
    for pods, told in (([], "no pod serves"), ([pod("pod-0", "127.0.0.1", revision="r")], "pod-0: ")):
        reading, ledger = await look_for_drift(session, None, ("shop", "iris"), pods, "r", LEDGER, 2000)
        assert told in (reading.problem or "")
        assert ledger == LEDGER
