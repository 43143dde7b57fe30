"""Counts labels that arrive later, for the revision that predicted, each prediction once."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serin_server.monitor.attempts import Attempt
from serin_server.monitor.classes import Kind, error_of, label_text, quantity_of
from serin_server.monitor.metrics import Metrics
from serin_server.monitor.tokens import Prediction, Refusal, TokenRefusedError, Tokens
from serin_server.protocol.feedback import Label

# About 10 MB when full.
REMEMBERED = 100_000
# Labels that are counted in one turn of the event loop, in one or two milliseconds.
_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the labels of one request; `refused` holds (index, reason)."""

    accepted: int
    duplicates: int
    refused: list[tuple[int, str]]


class LabelLog(Protocol):
    """Where labels go besides the counters."""

    def labelled(self, prediction_id: str, label: object, now: float) -> None:
        """Called for each label that counts; must be quick, and must not raise."""


class LabelTeller(Protocol):
    """Who tells other servers of labels."""

    def labelled(self, revision: str, nonce: str, value: object, now: float) -> None:
        """Called for each label that counts for evidence; must be quick, and must not raise."""


class FeedbackCounter:
    """Takes in labels. Remembers the last REMEMBERED predictions that got one, in this process only."""

    def __init__(
        self,
        tokens: Tokens,
        metrics: Metrics,
        label_log: LabelLog | None = None,
        remembered: int = REMEMBERED,
        teller: LabelTeller | None = None,
    ) -> None:
        self._tokens = tokens
        self._metrics = metrics
        self._label_log = label_log
        self._teller = teller
        self._seen: set[bytes] = set()
        self._order: deque[bytes] = deque()
        self._remembered = remembered

    def count(self, labels: Sequence[Label], now: float) -> Receipt:
        """Count labels at `now` (seconds since 1970)."""
        self._tokens.refresh(now)
        accepted = duplicates = 0
        refused: list[tuple[int, str]] = []
        for index, label in enumerate(labels):
            try:
                prediction = self._tokens.read(label.prediction_id)
                judged = _judged(prediction, label.value)
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
            self._count_one(prediction, judged, now)
            if self._label_log is not None:
                self._label_log.labelled(label.prediction_id, label.value, now)
            if self._teller is not None and prediction.attempt is Attempt.FIRST:
                self._teller.labelled(prediction.revision, prediction.nonce.hex(), label.value, now)
        return Receipt(accepted, duplicates, refused)

    async def count_in_turns(self, labels: Sequence[Label], now: float) -> Receipt:
        """As `count`; but requests that come meanwhile need not wait for all of the labels."""
        accepted = duplicates = 0
        refused: list[tuple[int, str]] = []
        for start in range(0, len(labels), _AT_ONCE):
            part = self.count(labels[start : start + _AT_ONCE], now)
            accepted += part.accepted
            duplicates += part.duplicates
            refused += [(start + index, reason) for index, reason in part.refused]
            await asyncio.sleep(0)
        return Receipt(accepted, duplicates, refused)

    def count_of_pair(self, prediction: Prediction, value: object, window: int, now: float) -> None:
        """Count the label of another revision's answer for this prediction, the answer to the same request.

        window: in which it counts, alone; 0 for at arrival, and then in no other.
        """
        try:
            judged = _judged(prediction, value)
        except (TokenRefusedError, ValueError):
            return  # no label for what this model predicts
        revision, predicted, attempt = prediction.revision, prediction.outcome.text, prediction.attempt
        match judged, window:
            case float(), 0:
                self._metrics.error_arrived(revision, judged, attempt, prediction.time, now)
            case float(), _:
                self._metrics.error_settled(revision, judged, attempt, window)
            case _, 0:
                self._metrics.feedback_arrived(revision, judged, predicted, attempt, prediction.time, now)
            case _:
                self._metrics.feedback_settled(revision, judged, predicted, attempt, window)

    def _count_one(self, prediction: Prediction, judged: str | float, now: float) -> None:
        revision, made = prediction.revision, prediction.time
        attempt = prediction.attempt
        if isinstance(judged, float):
            self._metrics.error_counted(revision, judged, attempt, made, now)
        else:
            self._metrics.feedback_counted(revision, judged, prediction.outcome.text, attempt, made, now)

    def _is_first(self, nonce: bytes) -> bool:
        if nonce in self._seen:
            return False
        if len(self._order) >= self._remembered:
            self._seen.remove(self._order.popleft())
        self._seen.add(nonce)
        self._order.append(nonce)
        return True


def _judged(prediction: Prediction, label: object) -> str | float:
    """The true class or, for a predicted number, how far it is off. Raises TokenRefusedError or ValueError."""
    if prediction.outcome.kind is not Kind.QUANTITY:
        return label_text(label, prediction.outcome.kind)
    predicted = quantity_of(prediction.outcome)
    if predicted is None:
        raise TokenRefusedError(Refusal.NOT_A_NUMBER)
    return error_of(label, predicted)
