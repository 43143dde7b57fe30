"""The series with a `window` label, as a reader of /metrics sees them."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serin_server.monitor.cohorts import WINDOWS
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.settled import ERROR_BUCKETS

STABLE, CANARY = "0123456789", "abcdef0123"
NOW = 1_800_000_000
TEXTS = [str(window) for window in WINDOWS]
FEEDBACK, PREDICTIONS = "serin_feedback_settled_total", "serin_predictions_settled_total"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(metrics: Metrics, now: float) -> Series:
    """Every series with a window, by name and labels."""
    found: Series = {}
    for family in text_string_to_metric_families(metrics.render(now).decode()):
        for sample in family.samples:
            if "window" in sample.labels:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found
                found[key] = sample.value
    return found


def per_window(metrics: Metrics, now: float, name: str, **labels: str) -> list[float | None]:
    """The values of one series in all windows."""
    found = read(metrics, now)
    labels = {"model": "m", "revision": STABLE, "attempt": "first", **labels}
    return [found.get((name, frozenset({**labels, "window": text}.items()))) for text in TEXTS]


def settled_by(windows: int) -> list[float]:
    """One in so many of the shorter windows, zero in the others."""
    return [1.0] * windows + [0.0] * (len(WINDOWS) - windows)


def test_a_classifiers_series_start_at_zero() -> None:
    metrics = Metrics("m", STABLE, ["0", "1"])
    for name in "01":
        assert per_window(metrics, NOW, FEEDBACK, actual=name, predicted=name) == settled_by(0)
    assert per_window(metrics, NOW, PREDICTIONS) == settled_by(0)
    assert len(read(metrics, NOW)) == 3 * len(WINDOWS)


def test_a_regressions_series_start_at_zero() -> None:
    metrics = Metrics("m", STABLE, None)
    assert per_window(metrics, NOW, "serin_feedback_error_bucket", le="0.5") == settled_by(0)
    assert per_window(metrics, NOW, PREDICTIONS) == settled_by(0)


def test_a_wrong_answers_series_is_there_before_it_counts() -> None:
    metrics = Metrics("m", STABLE, ["0", "1"])
    metrics.feedback_counted(CANARY, "0", "1", "first", NOW - 3, NOW)
    labels = {"revision": CANARY, "actual": "0", "predicted": "1"}
    assert per_window(metrics, NOW, FEEDBACK, **labels) == settled_by(0)
    assert per_window(metrics, NOW + 60, FEEDBACK, **labels) == settled_by(2)
    assert per_window(metrics, NOW + 15 * 86400, FEEDBACK, **labels) == settled_by(len(WINDOWS))


def test_a_late_label_counts_in_the_longer_windows_only() -> None:
    metrics = Metrics("m", STABLE, ["0", "1"])
    metrics.feedback_counted(STABLE, "0", "0", "first", NOW - 1000, NOW)
    found = per_window(metrics, NOW + 15 * 86400, FEEDBACK, actual="0", predicted="0")
    assert found == [float(window >= 1000) for window in WINDOWS]


def test_a_label_older_than_all_windows_makes_no_series() -> None:
    metrics = Metrics("m", STABLE, ["0", "1"])
    before = read(metrics, NOW).keys()
    metrics.feedback_counted(CANARY, "0", "1", "first", NOW - 8 * 86400, NOW)
    assert read(metrics, NOW).keys() == before


def test_rows_with_ids_settle_as_labels_do() -> None:
    metrics = Metrics("m", STABLE, ["0", "1"])
    metrics.issued(7, "first", NOW + 0.7)
    metrics.issued(2, "retry", NOW + 0.7)
    assert per_window(metrics, NOW + 10, PREDICTIONS) == settled_by(0)
    assert per_window(metrics, NOW + 11, PREDICTIONS) == [7 * count for count in settled_by(1)]
    assert per_window(metrics, NOW + 11, PREDICTIONS, attempt="retry") == [2 * count for count in settled_by(1)]


def test_errors_are_counted_at_arrival_and_when_they_settle() -> None:
    metrics = Metrics("m", STABLE, None)
    for error in (0.0, 0.2, 0.3, 2e6):
        metrics.error_counted(STABLE, error, "first", NOW - 1000, NOW)
    cumulative = {"1e-06": 1, "0.1": 1, "0.2": 2, "0.5": 3, "1e+06": 3, "+Inf": 4}
    long = [float(window >= 1000) for window in WINDOWS]
    for now, settled in ((NOW, settled_by(0)), (later := NOW + 15 * 86400, long)):
        for bound, count in cumulative.items():
            at_arrival = {"model": "m", "revision": STABLE, "attempt": "first", "window": "0", "le": bound}
            assert read(metrics, now)["serin_feedback_error_bucket", frozenset(at_arrival.items())] == count
            found = per_window(metrics, now, "serin_feedback_error_bucket", le=bound)
            assert found == [count * one for one in settled]
    assert per_window(metrics, later, "serin_feedback_error_count") == [4 * one for one in long]
    assert per_window(metrics, later, "serin_feedback_error_sum") == pytest.approx([2_000_000.5 * one for one in long])


def test_error_buckets_are_written_as_people_write_them() -> None:
    assert ERROR_BUCKETS[:5] == (1e-6, 2e-6, 5e-6, 1e-5, 2e-5)
    assert ERROR_BUCKETS[-2:] == (500_000.0, 1_000_000.0)
    assert {0.1, 0.2, 0.5, 1.0, 20.0} <= set(ERROR_BUCKETS)


@pytest.mark.parametrize("name", ['say "cat"', "back\\slash", "two\nlines", "{},=#", "ü", ""])
def test_every_class_can_be_read_back(name: str) -> None:
    metrics = Metrics("m", STABLE, [name])
    assert per_window(metrics, NOW, FEEDBACK, actual=name, predicted=name) == settled_by(0)


def test_classes_without_a_label_of_their_own_are_other_here_too() -> None:
    metrics = Metrics("m", STABLE, [str(number) for number in range(50)])
    metrics.feedback_counted(STABLE, "60", "61", "first", NOW, NOW)
    assert per_window(metrics, NOW + 11, FEEDBACK, actual="another", predicted="other") == settled_by(1)
