"""What a server tells of marked requests: its answers, and the labels that reach it, as batches of lines.

A batch is `place " " more "\\n" seal "\\n" JSON`: where the next one begins and whether it is there already, for who
carries it, then what only servers read. In place of the first line the carrier writes the label window. The seal is an
HMAC with a key that the servers of a model share (`monitor/keys.py`), so that nobody else can make up pairs. A batch
holds no inputs: only digests of request ids, predicted classes and labels.
"""

import hashlib
import hmac
import math
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import orjson

from serin_server.monitor.classes import Kind, Outcome, bounded
from serin_server.monitor.cohorts import WINDOWS
from serin_server.monitor.keys import Keyring
from serin_server.protocol.errors import RequestError, invalid
from serin_server.shadow.memory import Drawn, draw_of

# Of one request; its other rows have no part in pairs.
MOST_ROWS = 16
# What is told later than after so many others is lost: ten seconds at 2,000 marked rows a second. About 6 MB.
REMEMBERED = 20_000
MOST_AT_ONCE = 5_000
# Labels from one asking to the next: so many as they come, and of a batch that somebody sends at night a sample.
LABELS_AS_THEY_COME = 5_000
LABELS_DRAWN = 10_000
_PURPOSE = b"serin answers 1\0"


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to one row of a marked request.

    key: equal for both revisions. nonce: of its prediction id, or "". made: in seconds since 1970; 0 of another.
    """

    key: str
    nonce: str
    outcome: Outcome
    made: int = 0


@dataclass(frozen=True, slots=True)
class ToldLabel:
    """A label for the prediction whose id has this nonce, as the client sent it.

    at: when it came, in seconds since 1970, rounded up, so that it is not in time if it came a fraction too late; 0 if
        the server that told it did not say.
    """

    nonce: str
    value: str | int | float | bool
    at: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one server told. window: at which age whoever carries it wants pairs counted; 0 for none."""

    revision: str
    answers: Sequence[Told]
    labels: Sequence[ToldLabel]
    window: int = 0


def key_of(shared_by: str, row: int) -> str:
    """What is the same for both answers to a row of a request, from what both copies of the request share."""
    return hashlib.blake2b(f"{row} {shared_by}".encode(), digest_size=12).hexdigest()


class Answers:
    """The last answers and labels of a server, numbered in the order in which they came."""

    def __init__(self, keyring: Keyring, model: str, revision: str, remembered: int = REMEMBERED) -> None:
        self._keyring = keyring
        self._model = model.encode()
        self._revision = revision
        self._epoch = secrets.token_hex(6)  # another process begins to count anew
        self._first = 0  # the number of the oldest that is remembered
        self._entries: deque[list[object]] = deque()
        self._remembered = remembered
        self._labels = 0  # noted since somebody asked
        self._drawn: Drawn[list[object]] = Drawn(LABELS_DRAWN)

    def answered(self, told: Sequence[Told]) -> None:
        """Note answers to marked requests."""
        for one in told:
            self._note([one.key, one.nonce, one.outcome.kind, one.outcome.text])

    def labelled(self, revision: str, nonce: str, value: object, now: float) -> None:
        """Note a label that counts, if it may belong to a marked request of this server's revision."""
        if self._entries and revision == self._revision and isinstance(value, str | int | float):
            entry: list[object] = [nonce, bounded(value) if isinstance(value, str) else value, math.ceil(now)]
            self._labels += 1
            if self._labels <= LABELS_AS_THEY_COME:
                self._note(entry)
            else:
                self._drawn.put(draw_of(nonce), entry)

    def batch(self, place: str) -> bytes:
        """At most MOST_AT_ONCE entries from a place on that another batch told; "" is the oldest that is there."""
        self._note_drawn()
        epoch, _, number = place.partition(".")
        known = epoch == self._epoch and number.isdecimal()
        begin = max(int(number), self._first) if known else self._first
        start = min(begin - self._first, len(self._entries))
        end = min(start + MOST_AT_ONCE, len(self._entries))
        following = f"{self._epoch}.{self._first + end}"
        entries = [self._entries[i] for i in range(start, end)]
        body = orjson.dumps([self._revision, entries])
        key = self._keyring.keys[-1]  # the oldest: every server has it
        more = end < len(self._entries)
        return b"%s %d\n%s\n%s" % (following.encode(), more, _seal(key.secret, self._model, body), body)

    def _note_drawn(self) -> None:
        for entry in self._drawn:
            self._note(entry)
        self._drawn = Drawn(LABELS_DRAWN)
        self._labels = 0

    def _note(self, entry: list[object]) -> None:
        if len(self._entries) >= self._remembered:
            self._entries.popleft()
            self._first += 1
        self._entries.append(entry)


def parse_batch(sealed: bytes, keyring: Keyring, model: str) -> Batch:
    """What a server of the same model told. Raises RequestError for anything else."""
    first, _, rest = sealed.partition(b"\n")
    seal, _, body = rest.partition(b"\n")
    good = [_seal(key.secret, model.encode(), body) for key in keyring.keys]
    if not any(hmac.compare_digest(seal, each) for each in good):
        raise RequestError(403, "these answers were not told by a server of this model")
    try:
        revision, entries = orjson.loads(body)
        answers = [Told(e[0], e[1], shared_outcome(e[2], e[3])) for e in entries if len(e) == 4]
        labels = [ToldLabel(*e) for e in entries if len(e) in (2, 3)]
    except (ValueError, TypeError, IndexError):
        raise invalid("a batch of answers is a revision and a list of entries") from None
    return Batch(revision, answers, labels, _window(first))


def parts(batch: Batch, most: int) -> Iterator[Batch]:
    """The same in parts of at most so many answers and labels. One that tells nothing is a part as well."""
    for start in range(0, max(1, len(batch.answers), len(batch.labels)), most):
        some = slice(start, start + most)
        yield replace(batch, answers=batch.answers[some], labels=batch.labels[some])


@lru_cache(maxsize=1024)
def shared_outcome(kind: int, text: str) -> Outcome:
    """One object for equal outcomes, of which many may be remembered."""
    return Outcome(Kind(kind), text)


def _window(first: bytes) -> int:
    """What the carrier wrote in place of the line that was for it; one of the earlier versions leaves that line."""
    return next((window for window in WINDOWS if b"%d" % window == first), 0)


def _seal(secret: bytes, model: bytes, body: bytes) -> bytes:
    own = hmac.digest(secret, _PURPOSE + model, "sha256")
    return hmac.digest(own, body, "sha256").hex().encode()
