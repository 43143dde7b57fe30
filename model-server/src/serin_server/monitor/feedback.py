"""Counts labels that arrive later, for the revision that predicted, each prediction once."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from serin_server.monitor.classes import Kind, label_text
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Prediction, Refusal, TokenRefusedError, Tokens
from serin_server.protocol.feedback import Label

# About 10 MB when full.
REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the labels of one request; `refused` holds (index, reason)."""

    accepted: int
    duplicates: int
    refused: list[tuple[int, str]]


class FeedbackCounter:
    """Takes in labels. Remembers the last REMEMBERED predictions that got one, in this process only."""

    def __init__(self, tokens: Tokens, metrics: Metrics, remembered: int = REMEMBERED) -> None:
        self._tokens = tokens
        self._metrics = metrics
        self._seen: set[bytes] = set()
        self._order: deque[bytes] = deque()
        self._remembered = remembered

    def count(self, labels: Sequence[Label], now: float) -> Receipt:
        """Count labels at `now` (seconds since 1970)."""
        accepted = duplicates = 0
        refused: list[tuple[int, str]] = []
        for index, label in enumerate(labels):
            try:
                prediction = self._tokens.read(label.prediction_id)
                actual = _actual(prediction, label.value)
            except TokenRefusedError as error:
                self._metrics.feedback_refused(error.refusal.label)
                refused.append((index, error.refusal.text))
                continue
            except ValueError as error:
                self._metrics.feedback_refused(Refusal.BAD_LABEL.label)
                refused.append((index, str(error)))
                continue
            if not self._is_first(prediction.nonce):
                duplicates += 1
                continue
            accepted += 1
            self._metrics.feedback_counted(
                revision=prediction.revision,
                actual=actual,
                predicted=prediction.outcome.text,
                attempt="retry" if prediction.retry else "first",
                delay=now - prediction.time,
            )
        return Receipt(accepted, duplicates, refused)

    def _is_first(self, nonce: bytes) -> bool:
        if nonce in self._seen:
            return False
        if len(self._order) >= self._remembered:
            self._seen.remove(self._order.popleft())
        self._seen.add(nonce)
        self._order.append(nonce)
        return True


def _actual(prediction: Prediction, label: object) -> str:
    if prediction.outcome.kind is Kind.QUANTITY:
        raise TokenRefusedError(Refusal.NOT_A_CLASS)
    return label_text(label, prediction.outcome.kind)
