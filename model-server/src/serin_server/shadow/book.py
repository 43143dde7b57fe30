"""A server's part in pairs of answers: what it tells of its own answers, and what it makes of others'."""

import asyncio
import time
from collections.abc import Callable, Sequence

import orjson

from serin_server.monitor.attempts import Attempt
from serin_server.monitor.feedback import FeedbackCounter
from serin_server.monitor.keys import Keyring
from serin_server.monitor.tokens import Prediction, nonce_of
from serin_server.protocol.metadata import PREDICTION_ID
from serin_server.protocol.tensors import InferResponse
from serin_server.serving.inquiry import Inquiry
from serin_server.shadow.answers import MOST_ROWS, Answers, Told, key_of, parse_batch, parts, shared_outcome
from serin_server.shadow.pairs import Pairs
from serin_server.shadow.settling import Label, Pair

# Entries of a batch that are taken in in one turn of the event loop, in one or two milliseconds.
_AT_ONCE = 100


class Book:
    """Belongs to the process that counts labels: the only one of a server, or the parent of the others."""

    def __init__(self, keyring: Keyring, model: str, revision: str) -> None:
        self._keyring = keyring
        self._model = model
        self._revision = revision
        self._feedback: FeedbackCounter
        self.answers = Answers(keyring, model, revision)
        self.pairs = Pairs(model, revision, self._label)

    def count_with(self, feedback: FeedbackCounter) -> None:
        """Count the labels that pairs get with this counter."""
        self._feedback = feedback

    def answered(self, told: Sequence[Told]) -> None:
        """Note the server's own answers to marked requests."""
        self.answers.answered(told)
        self.pairs.answered(told)

    async def take(self, sealed: bytes) -> None:
        """Take in what another server told, in turns with the requests. Raises RequestError for what none did."""
        now = time.time()
        self._keyring.look(now)
        for part in parts(parse_batch(sealed, self._keyring, self._model), _AT_ONCE):
            self.pairs.take(part, now)
            await asyncio.sleep(0)
        # Also where nobody reads the counters: what is old enough must not go on to be remembered.
        for _ in self.pairs.settle():
            await asyncio.sleep(0)

    def _label(self, pair: Pair, label: Label, window: int) -> None:
        prediction = Prediction(self._revision, pair.made, b"", Attempt.FIRST, pair.own)
        self._feedback.count_of_pair(prediction, label, window, time.time())


class ShadowWatcher:
    """Tells of the answers to marked requests; belongs to the process that gives them."""

    def __init__(self, tell: Callable[[Sequence[Told]], None]) -> None:
        self._tell = tell

    def answered(self, inquiry: Inquiry, response: InferResponse) -> None:
        """A request that a router sends again has no part in evidence."""
        if inquiry.attempt is not Attempt.FIRST or inquiry.shared_by is None:
            return
        outcomes = inquiry.predictions.outcomes
        if outcomes is None:
            return
        ids = next((output.array.ravel() for output in response.outputs if output.name == PREDICTION_ID), ())
        made = int(time.time())
        self._tell(
            [
                Told(key_of(inquiry.shared_by, row), nonce_of(ids[row]).hex() if len(ids) else "", outcome, made)
                for row, outcome in enumerate(outcomes[:MOST_ROWS])
            ]
        )


def dump_told(told: Sequence[Told]) -> bytes:
    """As one process tells another of the same server."""
    return orjson.dumps([[one.key, one.nonce, one.outcome.kind, one.outcome.text, one.made] for one in told])


def parse_told(payload: bytes) -> list[Told]:
    """What `dump_told` wrote."""
    told = orjson.loads(payload)
    return [Told(key, nonce, shared_outcome(kind, text), made) for key, nonce, kind, text, made in told]
