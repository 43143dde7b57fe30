"""What the model server exposes is what the operator reads: the two share nothing but these names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from serin_operator.api.spec import Metric, MetricType, seconds
from serin_operator.decide.evidence import Counts
from serin_operator.decide.keys import pair_keys
from serin_operator.decide.pairs import most_a_minute
from serin_operator.observe.prometheus import to_points
from serin_operator.observe.samples import Point, samples, wanted
from serin_operator.observe.scrape import parse
from serin_server.monitor.classes import Kind, Outcome
from serin_server.monitor.cohorts import WINDOWS, bucket_width
from serin_server.monitor.metrics import ANOTHER, DURATION_BUCKETS, OTHER, Metrics
from serin_server.monitor.settled import ERROR_BUCKETS
from serin_server.shadow import settling
from serin_server.shadow.answers import Batch, Told, ToldLabel
from serin_server.shadow.pairs import Pairs

STABLE, CANARY, EARLIER = "a" * 10, "b" * 10, "c" * 10
MADE = 1_800_000_000
NOW = MADE + 8.0
STARTED = "process_start_time_seconds 1.75e+09\n"
SERIES = "pod-0/1750000000"
CRD = Path(__file__).parents[3] / "crds" / "modeldeployments.serin.dev.yaml"


def read(server: Metrics, metric: Metric, window: float, now: float) -> dict[str, Counts]:
    """What the canary counts by the pod's exposition, without the requests."""
    lines = [line for line in server.render(now).decode().splitlines() if not line.startswith("process_start_time")]
    _, points = parse("pod-0", STARTED + "\n".join(lines) + "\n", wanted([metric], window))
    found = samples([metric], points, window)
    return {key: arms[CANARY][SERIES] for key, arms in found.items() if key != "requests" and CANARY in arms}


def classifier() -> Metrics:
    server = Metrics("m", CANARY, ["0", "1"])
    server.issued(10, "first", float(MADE))
    for actual, predicted, count in (("0", "0", 5), ("0", "1", 2), ("1", "1", 1)):
        for _ in range(count):
            server.feedback_counted(CANARY, actual, predicted, "first", MADE, NOW)
    return server


@pytest.mark.parametrize("window", [0, *WINDOWS])
def test_labels_of_a_classifier(window: int) -> None:
    server, later = classifier(), NOW + 30 * 86400
    coverage = {f"coverage@{window}": Counts(8, 18)} if window else {}
    accuracy = Metric("accuracy", MetricType.ACCURACY, 0.01)
    recall = Metric("recall", MetricType.RECALL, 0.01)
    assert read(server, accuracy, window, NOW)[f"accuracy@{window}"] == (Counts() if window else Counts(2, 8))
    assert read(server, accuracy, window, later) == {f"accuracy@{window}": Counts(2, 8)} | coverage
    strata = {f"recall:0@{window}": Counts(2, 7), f"recall:1@{window}": Counts(0, 1)}
    assert read(server, recall, window, later) == strata | coverage


@pytest.mark.parametrize("window", [0, *WINDOWS])
def test_labels_of_a_regression(window: int) -> None:
    server = Metrics("m", CANARY, None)
    server.issued(10, "first", float(MADE))
    for error in (0.1, 0.2, 0.3):
        server.error_counted(CANARY, error, "first", MADE, NOW)
    found = read(server, Metric("near", MetricType.REGRESSION, 0.01, within=0.2), window, NOW + 30 * 86400)
    assert found[f"regression@0.2@{window}"] == Counts(1, 3)
    assert found.get("coverage@" + str(window), Counts(3, 13)) == Counts(3, 13)


def test_requests_and_their_durations() -> None:
    server = Metrics("m", CANARY, ["0"])
    for code, took in ((200, 0.1), (200, 0.3), (503, 0.01)):
        server.request_done(code, "first", took)
    assert read(server, Metric("errors", MetricType.ERRORS, 0.01), 0, NOW) == {"errors": Counts(1, 3)}
    latency = Metric("latency", MetricType.LATENCY, 0.01, slower_than=0.25)
    assert read(server, latency, 0, NOW) == {"latency@0.25": Counts(1, 3)}


def test_two_of_the_classes_without_a_name_are_a_wrong_answer() -> None:
    server = Metrics("m", CANARY, [str(number) for number in range(50)])
    server.feedback_counted(CANARY, "60", "61", "first", MADE, NOW)
    server.feedback_counted(CANARY, "60", "60", "first", MADE, NOW)
    text = server.render(NOW).decode()
    assert f'actual="{ANOTHER}"' in text
    other = Metric("recall", MetricType.RECALL, 0.01, label=OTHER)
    assert read(server, other, 0, NOW) == {f"recall:{OTHER}@0": Counts(1, 2)}


def pairs(stable: str, kind: Kind, answers: Sequence[tuple[str, str]], window: int) -> str:
    """What the canary's server counts of these pairs of answers, its own first; every label is its own answer."""
    found = Pairs("m", CANARY, lambda _pair, _label, _window: None)
    theirs = [Told(str(number), str(number), Outcome(kind, other)) for number, (_, other) in enumerate(answers)]
    found.answered([Told(str(number), "", Outcome(kind, own), MADE) for number, (own, _) in enumerate(answers)])
    labels = [ToldLabel(str(number), own) for number, (own, _) in enumerate(answers)]
    found.take(Batch(stable, theirs, labels, window), NOW)
    for later in (60, 70):
        found.take(Batch(stable, [], [], window), NOW + 2 * window + later)
    return found.render()


EVERYTHING = (
    Metric("errors", MetricType.ERRORS, 0.01),
    Metric("latency", MetricType.LATENCY, 0.01, slower_than=0.25),
    Metric("accuracy", MetricType.ACCURACY, 0.01),
    Metric("recall", MetricType.RECALL, 0.01),
    Metric("near", MetricType.REGRESSION, 0.01, within=0.2),
)


@pytest.mark.parametrize("window", [0, *WINDOWS])
def test_pairs_are_read_as_they_came_and_at_the_age_of_the_window(window: int) -> None:
    shown = pairs(STABLE, Kind.TEXT, [*[("0", "0")] * 9, ("0", "1"), *[("1", "0")] * 3], window)
    _, points = parse("pod-0", STARTED + shown, wanted(EVERYTHING, window, shadow=True))
    found = {key: arms[CANARY][SERIES] for key, arms in samples(EVERYTHING, points, window).items() if CANARY in arms}
    counted = (Counts(4, 13), Counts(0, 4), Counts(0, 13), Counts(4, 13))
    for key, expected in zip(pair_keys(STABLE, window), counted, strict=True):
        assert found[key] == expected
    assert found[pair_keys(STABLE)[0]] == Counts(4, 13)


@pytest.mark.parametrize("window", WINDOWS)
def test_so_many_pairs_are_drawn_as_a_plan_takes_them_to_be(window: int) -> None:
    assert most_a_minute(window) == pytest.approx(60 * settling.EACH / bucket_width(window))


@pytest.mark.parametrize("window", [0, *WINDOWS])
def test_prometheus_has_the_same_counts_as_the_servers(window: int) -> None:
    server, numbers = classifier(), Metrics("m", EARLIER, None)
    for code, attempt, took in ((200, "first", 0.1), (503, "first", 0.3), (200, "retry", 0.1)):
        server.request_done(code, attempt, took)
    for error in (0.1, 0.3):
        numbers.error_counted(EARLIER, error, "first", MADE, NOW)
    classes = pairs(STABLE, Kind.TEXT, [*[("0", "0")] * 9, ("0", "1"), *[("1", "0")] * 3], window)
    quantities = pairs(EARLIER, Kind.QUANTITY, [("1.0", "1.0"), ("1.0", "1.3"), ("1.0", "9.0")], window)
    shown = [one.render(NOW + 30 * 86400).decode() for one in (server, numbers)]
    lines = {line for text in (*shown, classes, quantities) for line in text.splitlines() if line[0] != "#"}
    exposed = STARTED + "\n".join(sorted(line for line in lines if not line.startswith("process_start_time"))) + "\n"
    asked = wanted(EVERYTHING, window, shadow=True)
    _, scraped = parse("pod-0", exposed, asked)
    target = {"job": "models", "instance": "10.0.0.1:8080", "namespace": "shop", "pod": "pod-0"}
    start = ({"__name__": "process_start_time_seconds"} | target, 1.75e9)
    kept, _ = to_points([start, *(({"__name__": one.name} | dict(one.labels) | target, one.value) for one in scraped)])
    assert sorted(_without(target, kept)) == sorted(_without(target, scraped))
    assert samples(EVERYTHING, kept, window) == samples(EVERYTHING, scraped, window)
    assert {one.name for one in scraped} == {*asked.families} - {"process_start_time_seconds"}


def _without(target: Mapping[str, str], points: Sequence[Point]) -> list[tuple[str, list[tuple[str, str]], float]]:
    """What is the servers' own of these points."""
    own = {"__name__", *target}
    return [(one.name, sorted((k, v) for k, v in one.labels.items() if k not in own), one.value) for one in points]


def test_the_bounds_that_can_be_asked_for_are_those_that_are_counted() -> None:
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    metric = spec["analysis"]["properties"]["metrics"]["items"]["properties"]
    assert [seconds(bound) for bound in metric["slowerThan"]["enum"]] == list(DURATION_BUCKETS)
    (rule,) = metric["within"]["x-kubernetes-validations"]
    assert [float(bound) for bound in re.findall(r"[0-9.]+", rule["rule"])] == list(ERROR_BUCKETS)
