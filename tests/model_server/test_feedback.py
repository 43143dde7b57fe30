"""Prediction ids and the labels that come back for them, without a server."""

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from tests.model_server.turns import counting_turns

from serin_server.monitor.attempts import Attempt
from serin_server.monitor.classes import (
    TEXT_LIMIT,
    Kind,
    Outcome,
    bounded,
    class_outcome,
    error_of,
    label_text,
    quantity_of,
    quantity_outcome,
)
from serin_server.monitor.feedback import FeedbackCounter, Receipt
from serin_server.monitor.keys import Keyring
from serin_server.monitor.metrics import MAX_CLASSES, Metrics
from serin_server.monitor.tokens import Refusal, TokenRefusedError, Tokens
from serin_server.protocol.feedback import Label

KEY = bytes(range(32))
STABLE, CANARY = "0123456789", "abcdef0123"
NOW = 1_800_000_000.0


def tokens(model: str = "m", revision: str = STABLE, key: bytes = KEY) -> Tokens:
    return Tokens(Keyring.of(key), model, revision)


@pytest.mark.parametrize(
    ("predicted", "label"),
    [
        (3, 3), (3, 3.0), (3, "3"), (3, "3.0"), (3, " 3 "), (np.int64(3), 3), (3.0, 3), (np.float64(3), "3"),
        (1, True), (-7, "-7"), (2**60, 2**60), (2**60, str(2**60)),
        ("cat", "cat"), ("3", 3), ("3", 3.0), (np.str_("ü"), "ü"), ("", ""),
        (True, True), (np.bool_(True), "True"), (True, 1), (False, "0"), (False, 0.0),
        ("x" * 1000, "x" * 1000),
    ],
)  # fmt: skip
def test_equal_labels_agree_however_they_are_written(predicted: Any, label: Any) -> None:
    outcome = class_outcome(predicted)
    assert label_text(label, outcome.kind) == outcome.text


@pytest.mark.parametrize(
    ("predicted", "label"),
    [(3, 4), (3, 3.5), ("3", "3.0"), ("cat", "Cat"), (True, False), ("x" * 1000, "x" * 999), ("01", 1)],
)
def test_different_labels_differ(predicted: Any, label: Any) -> None:
    outcome = class_outcome(predicted)
    assert label_text(label, outcome.kind) != outcome.text


@pytest.mark.parametrize(
    ("predicted", "label"), [(3, "cat"), (3, None), (3, [3]), (3, "nan"), (True, 2), (True, "yes"), ("a", {})]
)
def test_labels_that_cannot_be_compared_are_refused(predicted: Any, label: Any) -> None:
    with pytest.raises(ValueError, match="the label must be"):
        label_text(label, class_outcome(predicted).kind)


@given(st.text())
def test_texts_are_bounded_and_stay_so(text: str) -> None:
    once = bounded(text)
    assert len(once.encode()) <= TEXT_LIMIT
    assert bounded(once) == once


@given(st.text(max_size=60), st.sampled_from(Kind), st.sampled_from(Attempt), st.integers(0, 2**32 - 1))
def test_a_token_says_what_was_put_in(text: str, kind: Kind, attempt: Attempt, now: int) -> None:
    outcome = Outcome(kind, bounded(text))
    (token,) = tokens(revision=CANARY).issue([outcome], now, attempt)
    read = tokens(revision=STABLE).read(token)
    assert (read.revision, read.time, read.attempt, read.outcome) == (CANARY, now, attempt, outcome)


def test_rows_get_tokens_of_their_own() -> None:
    outcome = class_outcome(1)
    issued = tokens().issue([outcome] * 100, NOW)
    assert len({tokens().read(token).nonce for token in issued}) == 100


@given(st.lists(st.sampled_from(["a", "bb", 1, 2.5, True]), min_size=1, max_size=200), st.integers(1, 60))
def test_any_rows_in_any_requests_get_tokens_that_hold_for_them_alone(classes: list[Any], rows: int) -> None:
    own, other = tokens(), tokens(key=KEY[::-1])
    outcomes = [quantity_outcome(value) if value == 2.5 else class_outcome(value) for value in classes]
    parts = [outcomes[start : start + rows] for start in range(0, len(outcomes), rows)]
    issued = [token for second, part in enumerate(parts) for token in own.issue(part, NOW + second // 2)]
    assert [own.read(token).outcome for token in issued] == outcomes
    tags = {base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[-12:] for token in issued}
    assert len(tags) == len(issued)
    with pytest.raises(TokenRefusedError):
        other.read(issued[-1])


def test_a_token_is_short() -> None:
    (token,) = tokens().issue([class_outcome(2)], NOW)
    assert len(token) <= 50


def test_every_changed_byte_is_noticed() -> None:
    (token,) = tokens().issue([class_outcome("cat")], NOW)
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(TokenRefusedError):
            tokens().read(base64.urlsafe_b64encode(changed).rstrip(b"=").decode())


@pytest.mark.parametrize(
    ("made_by", "refusal"),
    [
        (tokens(key=b"another key, as long"), Refusal.FORGED),
        (tokens(model="another"), Refusal.OTHER_MODEL),
    ],
)
def test_tokens_of_others_are_refused(made_by: Tokens, refusal: Refusal) -> None:
    (token,) = made_by.issue([class_outcome(1)], NOW)
    with pytest.raises(TokenRefusedError) as refused:
        tokens().read(token)
    assert refused.value.refusal is refusal


@pytest.mark.parametrize("damage", ["", "a", "é" * 40, "!" * 48, "A" * 47, "A" * 48, "A" * 10_000, "=" * 48])
def test_damaged_tokens_are_refused_as_such(damage: str) -> None:
    with pytest.raises(TokenRefusedError) as refused:
        tokens().read(damage)
    assert refused.value.refusal is Refusal.DAMAGED


@given(st.text(max_size=150))
def test_no_text_makes_reading_fail_in_another_way_than_a_refusal(text: str) -> None:
    with pytest.raises(TokenRefusedError):
        tokens().read(text)


class Desk:
    """A pod that takes labels."""

    def __init__(self, revision: str = STABLE, remembered: int = 100) -> None:
        self.metrics = Metrics("m", revision, ["0", "1"])
        self.logged: list[tuple[str, object]] = []
        self.counter = FeedbackCounter(tokens(revision=revision), self.metrics, self, remembered)

    def count(self, *labels: tuple[str, Any], now: float = NOW) -> Receipt:
        return self.counter.count([Label(token, value) for token, value in labels], now)

    def labelled(self, prediction_id: str, label: object, now: float) -> None:
        """As the payload log takes labels."""
        self.logged.append((prediction_id, label))

    def feedback(self, **labels: str) -> float:
        """The sum of the feedback cells that have these labels."""
        return sum(cell.value for cell in self.cells() if labels.items() <= cell.labels.items())

    def cells(self) -> list[Sample]:
        """All series of serin_feedback_total."""
        return [sample for sample in self.samples() if sample.name == "serin_feedback_total"]

    def value(self, name: str, **labels: str) -> float:
        """The value of the one series that has these labels among its own."""
        (found,) = [s.value for s in self.samples() if s.name == name and labels.items() <= s.labels.items()]
        return found

    def samples(self) -> list[Sample]:
        families = text_string_to_metric_families(self.metrics.render(NOW).decode())
        return [sample for family in families for sample in family.samples]


def issue(predicted: Any, revision: str = STABLE, attempt: Attempt = Attempt.FIRST, now: float = NOW) -> str:
    return tokens(revision=revision).issue([class_outcome(predicted)], now, attempt)[0]


def test_a_label_is_counted_for_the_revision_that_predicted_by_any_other() -> None:
    desk = Desk(STABLE)
    assert desk.count((issue(1, CANARY), 0), (issue(1, CANARY), 1)) == Receipt(2, 0, [])
    assert desk.feedback(revision=CANARY, predicted="1", actual="0") == 1
    assert desk.feedback(revision=CANARY, predicted="1", actual="1") == 1
    assert desk.feedback(revision=STABLE) == 0


@pytest.mark.parametrize("attempt", [Attempt.RETRY, Attempt.TESTER])
def test_the_label_of_what_is_no_first_attempt_is_kept_apart(attempt: Attempt) -> None:
    desk = Desk()
    desk.count((issue(1, attempt=attempt), 1))
    assert desk.feedback(attempt=attempt) == 1
    assert desk.feedback(attempt="first") == 0


def test_a_repeated_label_counts_once() -> None:
    desk = Desk()
    token = issue(1)
    assert desk.count((token, 1), (token, 1)) == Receipt(1, 1, [])
    assert desk.count((token, 0)) == Receipt(0, 1, [])
    assert desk.feedback() == 1


def test_memory_is_bounded_and_forgets_the_oldest_first() -> None:
    desk = Desk(remembered=2)
    first, second, third = issue(1), issue(1), issue(1)
    desk.count((first, 1), (second, 1), (third, 1))
    assert desk.count((second, 1), (third, 1)) == Receipt(0, 2, [])
    assert desk.count((first, 1)).accepted == 1


def test_a_refused_label_is_reported_and_can_be_sent_again_corrected() -> None:
    desk = Desk()
    token = issue(1)
    receipt = desk.count(("nonsense", 1), (token, None), (token, 1))
    assert receipt.accepted == 1
    assert [index for index, _ in receipt.refused] == [0, 1]
    assert "damaged" in receipt.refused[0][1]
    assert "must be a number" in receipt.refused[1][1]


async def test_many_labels_let_others_take_turns_and_are_counted_alike() -> None:
    ids = [issue(row % 2) for row in range(1000)]
    labels = [Label(prediction_id if row % 7 else "nonsense", 1) for row, prediction_id in enumerate([*ids, ids[1]])]
    receipt, turns = await counting_turns(Desk(remembered=10_000).counter.count_in_turns(labels, NOW))
    assert turns >= 10
    assert receipt == Desk(remembered=10_000).counter.count(labels, NOW)
    assert (receipt.accepted + 1 + len(receipt.refused), receipt.duplicates) == (1001, 1)


def test_the_labels_that_count_are_logged_as_they_came() -> None:
    desk = Desk()
    one, other = issue(1), issue(0)
    desk.count((one, "1.0"), (one, 1), ("nonsense", 1), (other, None), (other, 0))
    assert desk.logged == [(one, "1.0"), (other, 0)]


@pytest.mark.parametrize(
    "value", [1.5, -0.1, 5e-324, 1.7976931348623157e308, 123456789.12345679, 2**60, np.float32(0.1)]
)
def test_a_predicted_number_comes_back_with_all_of_its_digits(value: Any) -> None:
    (token,) = tokens().issue([quantity_outcome(value)], NOW)
    predicted = quantity_of(tokens().read(token).outcome)
    assert predicted is not None
    assert type(value)(predicted) == value


@pytest.mark.parametrize(
    ("predicted", "label", "error"),
    [
        (1.5, 1.5, 0), (1.5, 1, 0.5), (1.5, "2.5", 1), (-3, 4, 7), (1.1, 1.0, 0.1), (1e6 + 0.3, 1e6 + 0.2, 0.1),
        (1e308, -7e307, 1.7e308), (0.0, 5e-324, 5e-324),
    ],
)  # fmt: skip
def test_an_error_is_what_people_would_compute(predicted: float, label: Any, error: float) -> None:
    number = quantity_of(quantity_outcome(predicted))
    assert number is not None
    assert error_of(label, number) == error


def test_a_number_is_judged_by_its_distance() -> None:
    desk = Desk()
    (token,) = tokens(revision=CANARY).issue([quantity_outcome(1.5)], NOW)
    assert desk.count((token, 1.8), (token, 1.8), now=NOW + 4) == Receipt(1, 1, [])
    arm = {"revision": CANARY, "attempt": "first", "window": "0"}
    assert desk.value("serin_feedback_error_bucket", le="0.2", **arm) == 0
    assert desk.value("serin_feedback_error_bucket", le="0.5", **arm) == 1
    assert desk.value("serin_feedback_error_sum", **arm) == 0.3
    assert desk.value("serin_feedback_delay_seconds_sum", revision=CANARY) == 4
    assert desk.feedback() == 0


@pytest.mark.parametrize(
    ("predicted", "label", "text"),
    [
        (1.5, "large", "must be a number"), (1.5, None, "must be a number"), (1.5, True, "must be a number"),
        (1.5, "nan", "must be a finite number"), (1.5, "1e999", "must be a finite number"),
        (1.5, int("9" * 400), "must be a finite number"), (-1e308, 1e308, "must be a finite number"),
        ("a word", 1.0, "neither a class nor a number"), (10**60, 1.0, "neither a class nor a number"),
    ],
)  # fmt: skip
def test_labels_that_no_distance_can_be_told_from_are_refused(predicted: Any, label: Any, text: str) -> None:
    (token,) = tokens().issue([quantity_outcome(predicted)], NOW)
    receipt = Desk().count((token, label))
    assert receipt.accepted == 0
    assert text in receipt.refused[0][1]


def test_classes_are_bounded_and_right_stays_right_and_wrong_stays_wrong() -> None:
    desk = Desk()
    for number in range(MAX_CLASSES + 20):
        desk.count((issue(f"class {number}", CANARY), f"class {number}"))
    for number in range(MAX_CLASSES + 20):
        desk.count((issue(f"class {number}", CANARY), f"class {number + 1}"))
    cells = [cell for cell in desk.cells() if cell.labels["revision"] == CANARY]
    right = sum(cell.value for cell in cells if cell.labels["actual"] == cell.labels["predicted"])
    wrong = sum(cell.value for cell in cells if cell.labels["actual"] != cell.labels["predicted"])
    assert right == wrong == MAX_CLASSES + 20
    assert len({cell.labels["predicted"] for cell in cells}) == MAX_CLASSES - 2 + 1  # without the desk's own two


def test_a_class_named_like_the_overflow_is_not_mistaken_for_it() -> None:
    desk = Desk()
    desk.count((issue("other", CANARY), "other"))
    for number in range(MAX_CLASSES):
        desk.count((issue(f"class {number}", CANARY), f"class {number}"))
    desk.count((issue(f"class {MAX_CLASSES}", CANARY), "other"))
    assert desk.feedback(revision=CANARY, predicted="other", actual="another") == 1


def test_pods_agree_on_the_classes_that_they_have_labels_for() -> None:
    names = [f"class {number}" for number in range(MAX_CLASSES + 10)]
    pods = [Metrics("m", revision, names) for revision in (STABLE, CANARY)]
    for pod, order in zip(pods, (names, names[::-1]), strict=True):
        for name in order:
            pod.feedback_counted(STABLE, name, name, "first", int(NOW), NOW)
    texts = [pod.render(NOW).decode().splitlines() for pod in pods]
    series = [{line for line in text if f'revision="{STABLE}"' in line and "feedback_total{" in line} for text in texts]
    assert series[0] == series[1]
    assert any(line.endswith(" 10.0") for line in series[0])
