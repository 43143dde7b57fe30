"""From raw counters to failures and trials: a table per metric."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serin_operator.api.spec import Metric, MetricType, Queries
from serin_operator.decide.evidence import Counts
from serin_operator.observe.samples import Point, samples, wanted

CANARY, STABLE = "b" * 10, "a" * 10
SERIES = "pod-0/1750000000"


def metric(of: MetricType, **fields: Any) -> Metric:
    return Metric(of.value, of, 0.01, **fields)


ERRORS, ACCURACY = metric(MetricType.ERRORS), metric(MetricType.ACCURACY)
LATENCY = metric(MetricType.LATENCY, slower_than=0.25)
REGRESSION = metric(MetricType.REGRESSION, within=0.5)
RESTARTS = metric(MetricType.RESTARTS)
CUSTOM = metric(MetricType.CUSTOM, queries=Queries("a", "b"))


def point(name: str, value: float, revision: str = CANARY, series: str = SERIES, **labels: str) -> Point:
    return Point(series, name, {"attempt": "first", "revision": revision, **labels}, value)


def labels(cells: dict[tuple[str, str], int], *, window: str | None = None, **where: str) -> list[Point]:
    """Counted labels: (actual, predicted) to how many."""
    name, extra = (
        ("serin_feedback_total", {}) if window is None else ("serin_feedback_settled_total", {"window": window})
    )
    return [point(name, n, actual=a, predicted=p, **extra, **where) for (a, p), n in cells.items()]


def errors_within(bound: str, n: float, window: str) -> Point:
    return point("serin_feedback_error_bucket", n, le=bound, window=window)


def counted(of: Metric, points: list[Point], window: float = 0) -> dict[str, Counts]:
    """Per key but `requests` and coverage, what the canary's one series counts."""
    found = samples([of], points, window)
    return {
        key: arms[CANARY][SERIES]
        for key, arms in found.items()
        if key != "requests" and not key.startswith("coverage") and CANARY in arms
    }


CONFUSION = {("a", "a"): 50, ("a", "b"): 4, ("b", "a"): 6, ("b", "b"): 30, ("c", "a"): 1, ("c", "c"): 9}


@pytest.mark.parametrize(
    ("of", "key", "counts"),
    [
        (ACCURACY, "accuracy@0", Counts(11, 100)),
        (metric(MetricType.PRECISION, label="a"), "precision:a@0", Counts(7, 57)),
        (metric(MetricType.RECALL, label="a"), "recall:a@0", Counts(4, 54)),
        (metric(MetricType.F1, label="a"), "f1:a@0", Counts(11, 61)),
        (metric(MetricType.RECALL, label="c"), "recall:c@0", Counts(1, 10)),
        (metric(MetricType.PRECISION, label="c"), "precision:c@0", Counts(0, 9)),
        (metric(MetricType.F1, label="never seen"), "f1:never seen@0", Counts(0, 0)),
    ],
)
def test_what_a_confusion_matrix_counts(of: Metric, key: str, counts: Counts) -> None:
    assert counted(of, labels(CONFUSION)) == {key: counts}


@pytest.mark.parametrize("of", [MetricType.PRECISION, MetricType.RECALL])
def test_an_average_has_a_stratum_for_every_class_that_either_arm_knows(of: MetricType) -> None:
    points = labels(CONFUSION) + labels({("d", "a"): 1}, revision=STABLE)
    found = samples([metric(of)], points, 0)
    assert found.keys() == {"requests", *(f"{of}:{name}@0" for name in "abcd")}
    for name in "abcd":
        assert found[f"{of}:{name}@0"] == samples([metric(of, label=name)], points, 0)[f"{of}:{name}@0"]


@given(st.dictionaries(st.tuples(*[st.sampled_from(["a", "b", "other"])] * 2), st.integers(0, 99)), st.integers(0, 9))
def test_over_all_classes_every_label_is_a_trial_of_precision_and_of_recall_once(
    cells: dict[tuple[str, str], int], others: int
) -> None:
    cells = cells | {("another", "other"): others}
    (accuracy,) = counted(ACCURACY, labels(cells)).values()
    for of in (MetricType.PRECISION, MetricType.RECALL, MetricType.F1):
        strata = counted(metric(of), labels(cells)).values()
        assert sum(strata, Counts()) == accuracy


def test_an_average_of_f1_counts_each_wrong_prediction_in_one_of_its_classes() -> None:
    """By a fair coin: half of FP + FN = 1100 among the failures of a, the standard deviation of the half is 16."""
    cells = {("a", "a"): 5000, ("a", "b"): 400, ("b", "a"): 600, ("b", "b"): 3000, ("c", "a"): 100, ("c", "c"): 900}
    found = counted(metric(MetricType.F1), labels(cells))
    assert found.keys() == {"macro-f1:a@0", "macro-f1:b@0", "macro-f1:c@0"}
    of_a = found["macro-f1:a@0"]
    assert of_a.trials - of_a.failures == 5000
    assert of_a.failures == pytest.approx(550, abs=64)


@given(
    st.dictionaries(st.tuples(*[st.sampled_from(["a", "b", "other"])] * 2), st.tuples(*[st.integers(0, 99)] * 2)),
)
def test_counts_of_an_average_of_f1_only_ever_rise(cells: dict[tuple[str, str], tuple[int, int]]) -> None:
    before = counted(metric(MetricType.F1), labels({cell: first for cell, (first, _) in cells.items()}))
    after = counted(metric(MetricType.F1), labels({cell: first + more for cell, (first, more) in cells.items()}))
    for key, counts in before.items():
        assert counts.failures <= after[key].failures
        assert counts.trials - counts.failures <= after[key].trials - after[key].failures


def test_the_classes_without_a_name_are_one_class() -> None:
    points = labels({("other", "other"): 5, ("another", "other"): 3, ("a", "other"): 2, ("other", "a"): 1})
    assert counted(metric(MetricType.PRECISION), points) == {
        "precision:a@0": Counts(1, 1),
        "precision:other@0": Counts(5, 10),
    }
    assert counted(metric(MetricType.RECALL, label="other"), points) == {"recall:other@0": Counts(4, 9)}
    assert counted(metric(MetricType.F1, label="other"), points) == {"f1:other@0": Counts(6, 11)}


def test_a_class_may_be_called_another() -> None:
    points = labels({("another", "another"): 5, ("another", "a"): 2})
    assert counted(metric(MetricType.RECALL), points) == {"recall:a@0": Counts(0, 0), "recall:another@0": Counts(2, 7)}


def test_the_window_chooses_the_labels() -> None:
    points = [
        *labels({("a", "a"): 90, ("a", "b"): 10}),
        *labels({("a", "a"): 40, ("a", "b"): 5}, window="60"),
        *labels({("a", "a"): 20, ("a", "b"): 2}, window="300"),
    ]
    for window, counts in ((0, Counts(10, 100)), (60, Counts(5, 45)), (300.0, Counts(2, 22))):
        assert counted(ACCURACY, points, window) == {f"accuracy@{window:g}": counts}
    assert counted(ACCURACY, points, 604_800) == {}


@pytest.mark.parametrize(("window", "key"), [(0, "regression@0.5@0"), (86400, "regression@0.5@86400")])
def test_errors_of_a_regression(window: float, key: str) -> None:
    text = f"{window:g}"
    points = [errors_within("0.2", 10, text), errors_within("0.5", 15, text), errors_within("+Inf", 20, text)]
    noise = [errors_within(bound, 99, "10") for bound in ("0.5", "+Inf")]
    assert counted(REGRESSION, points + noise, window) == {key: Counts(5, 20)}


def test_the_smallest_and_largest_bounds_are_found_as_the_server_writes_them() -> None:
    for within, text in ((1e-6, "1e-06"), (0.00002, "2e-05"), (200_000, "200000.0"), (1_000_000, "1e+06")):
        points = [errors_within(text, 15, "0"), errors_within("+Inf", 20, "0")]
        (counts,) = counted(metric(MetricType.REGRESSION, within=within), points).values()
        assert counts == Counts(5, 20)


def test_a_histogram_without_the_bound_tells_nothing() -> None:
    assert counted(REGRESSION, [errors_within("1.0", 15, "0"), errors_within("+Inf", 20, "0")]) == {}


def test_a_bound_that_is_no_number_is_that_of_no_bucket() -> None:
    assert counted(LATENCY, [point("serin_request_duration_seconds_bucket", 5, le="far")]) == {}


def test_requests_are_always_counted() -> None:
    points = [point("serin_requests_total", 7, code="200"), point("serin_requests_total", 3, code="503")]
    assert samples([ACCURACY], points, 0)["requests"] == {CANARY: {SERIES: Counts(0, 10)}}


def test_coverage_counts_labels_and_predictions_wherever_they_came() -> None:
    points = [
        *labels({("a", "a"): 40, ("a", "b"): 5}, window="60", series="s-0/1"),
        errors_within("+Inf", 3, "60"),
        point("serin_predictions_settled_total", 100, window="60"),
        point("serin_predictions_settled_total", 999, window="300"),
    ]
    found = samples([ACCURACY], points, 60)["coverage@60"]
    assert found == {CANARY: {"s-0/1": Counts(45, 45), SERIES: Counts(3, 103)}}


@pytest.mark.parametrize(("metrics", "window"), [([ERRORS], 60), ([ACCURACY], 0)])
def test_there_is_no_coverage_without_an_age_or_a_metric_of_labels(metrics: list[Metric], window: float) -> None:
    points = [point("serin_predictions_settled_total", 100, window="60")]
    assert not any(key.startswith("coverage") for key in samples(metrics, points, window))


def test_what_the_router_sent_again_is_left_out() -> None:
    names = ("serin_requests_total", "serin_predictions_settled_total", "serin_feedback_settled_total")
    more = {"window": "60", "actual": "a", "predicted": "a", "attempt": "retry"}
    found = samples([ERRORS, ACCURACY], [Point(SERIES, name, more, 5.0) for name in names], 60)
    assert found == {"requests": {}, "errors": {}, "accuracy@60": {}, "coverage@60": {}}


@pytest.mark.parametrize(
    ("metrics", "window", "families"),
    [
        ([], 0, set()),
        ([ERRORS, RESTARTS, CUSTOM], 60, set()),
        ([LATENCY], 0, {"serin_request_duration_seconds_bucket"}),
        ([ACCURACY], 0, {"serin_feedback_total", "serin_feedback_error_bucket"}),
        (
            [REGRESSION, ERRORS],
            60,
            {"serin_feedback_settled_total", "serin_predictions_settled_total", "serin_feedback_error_bucket"},
        ),
    ],
)
def test_only_what_is_needed_is_read(metrics: list[Metric], window: float, families: set[str]) -> None:
    needed = wanted(metrics, window)
    assert set(needed.families) == families | {"serin_requests_total", "process_start_time_seconds"}
    of_age = {"serin_pairs_settled_total", "serin_paired_labels_settled_total"}
    of_pairs = {"serin_pairs_total", "serin_pairs_moved_total", "serin_pairs_distance_bucket"}
    of_pairs |= of_age if window else {"serin_paired_labels_total"}
    assert set(wanted(metrics, window, shadow=True).families) == {*needed.families, *of_pairs}
    assert needed.window == f"{window:g}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e300])
def test_values_that_no_counter_has_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="the counter x of s is"):
        Point("s", "x", {}, value)


def test_pairs_are_counted_per_stable_revision() -> None:
    canary = {"revision": "b" * 10, "stable": "a" * 10}

    def count(name: str, value: float, **labels: str) -> Point:
        return Point("c0/1", name, canary | labels, value)

    points = [
        count("serin_pairs_total", 90, answers="same"),
        count("serin_pairs_total", 10, answers="different"),
        count("serin_pairs_total", 7, answers="same", stable="c" * 10),
        count("serin_paired_labels_total", 40, answers="same", wrong="none"),
        count("serin_paired_labels_total", 3, answers="same", wrong="both"),
        count("serin_paired_labels_total", 4, answers="different", wrong="canary"),
        count("serin_paired_labels_total", 2, answers="different", wrong="stable"),
        count("serin_paired_labels_total", 1, answers="different", wrong="both"),
        count("serin_pairs_moved_total", 6, by="canary", predicted="cat"),
        count("serin_pairs_moved_total", 1, by="stable", predicted="cat"),
    ]
    found = samples([], points, 0)
    (pod,) = {series for each in found.values() for of_arm in each.values() for series in of_arm}
    told = {key: of_arm["b" * 10][pod] for key, of_arm in found.items() if of_arm}
    assert told == {
        f"pairs/{'a' * 10}": Counts(10, 100),
        f"pairs-settled/{'a' * 10}": Counts(4, 7),
        f"pairs-canary/{'a' * 10}": Counts(8, 50),
        f"pairs-stable/{'a' * 10}": Counts(6, 50),
        f"pairs/{'c' * 10}": Counts(0, 7),
        f"moves/{'a' * 10}:cat": Counts(6, 7),
    }


def test_numbers_differ_when_they_are_further_apart_than_counts_as_an_error() -> None:
    where = {"revision": "b" * 10, "stable": "a" * 10}
    points = [Point("c0/1", "serin_pairs_total", {**where, "answers": "different"}, 100)]
    for bound, value in (("0.2", 40), ("0.5", 70), ("+Inf", 100)):
        points.append(Point("c0/1", "serin_pairs_distance_bucket", {**where, "le": bound}, value))
    found = samples([REGRESSION], points, 0)
    assert found[f"pairs/{'a' * 10}"]["b" * 10]["c0/1"] == Counts(30, 100)
