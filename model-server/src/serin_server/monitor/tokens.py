"""Prediction ids: compact tokens, authenticated with keys that all pods of a ModelDeployment share (see `keys`).

A token is unpadded base64url of
    format (1) | model (4) | revision (5) | time (4) | nonce (8) | flags (1) | text (0..48) | tag (12)
with sizes in bytes and numbers big-endian: the start of SHA-256 of the model's name, seconds since 1970, bits
1–2 of the flags for the kind of outcome, bit 0 for a retry and bit 3 for a tester. The tag of nonce n is, from place
12 (n mod m) on, of
    SHAKE256(own key | format … time | n div m | flags | text),
where the own key is HMAC-SHA256 of the model's name: a sponge keyed by what it absorbs first, as in KMAC (NIST SP
800-185). For classes m is 64, so that one output serves many rows: a hash for each would take longer than all else
that is done for a row. For quantities, which are rarely equal, m is 1.
"""

import binascii
import hashlib
import hmac
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from serin_server.monitor.attempts import Attempt
from serin_server.monitor.classes import TEXT_LIMIT, Kind, Outcome
from serin_server.monitor.keys import Key, Keyring

if TYPE_CHECKING:
    from _hashlib import HASHXOF

_FORMAT = 2
_HEADER = struct.Struct(">B4s5sI")
_NONCE = struct.Struct(">Q")
_TAG_BYTES = 12
_FLAGS = {Attempt.FIRST: 0, Attempt.RETRY: 1, Attempt.TESTER: 8}
_ATTEMPTS = {flags: attempt for attempt, flags in _FLAGS.items()}
_ATTEMPT_BITS = 9
_TOGETHER = 64  # nonces whose tags come from one output, for equal classes
_FIXED_BYTES = _HEADER.size + _NONCE.size + 1 + _TAG_BYTES
_LONGEST = (_FIXED_BYTES + TEXT_LIMIT + 2) // 3 * 4
_URL_ALPHABET = bytes.maketrans(b"+/", b"-_")
_STANDARD_ALPHABET = str.maketrans("-_+/", "+/!!")


class Refusal(Enum):
    """Why a label is not counted: the value of the metric's `reason`, and the text for the client."""

    DAMAGED = ("damaged", "the prediction id is damaged")
    OTHER_MODEL = ("other_model", "the prediction id was made for another model")
    FORGED = ("forged", "the prediction id was not made by this model's servers, or its key has been removed")
    NOT_A_NUMBER = (
        "not_a_number",
        "the model predicted neither a class nor a number, so no label can be compared with it",
    )
    BAD_LABEL = ("bad_label", "the label cannot be compared with the prediction")

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def text(self) -> str:
        return self.value[1]


class TokenRefusedError(Exception):
    """A prediction id that this server's key and model do not vouch for."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a token says. `time` is in seconds since 1970, `nonce` tells predictions of one model apart."""

    revision: str
    time: int
    nonce: bytes
    attempt: Attempt
    outcome: Outcome


class Tokens:
    """Makes and checks the prediction ids of one model."""

    def __init__(self, keyring: Keyring, model_name: str, revision: str) -> None:
        """`keyring` is shared by the model's servers, `revision` is this server's own (10 hex digits)."""
        self._keyring = keyring
        self._name = model_name.encode()
        self._model = hashlib.sha256(self._name).digest()[:4]
        self._revision = bytes.fromhex(revision)
        self._keys = keyring.keys
        self._sponges = self._make_sponges()
        # Counted up over all rows of this process; where it starts keeps processes apart.
        self._nonce = int.from_bytes(os.urandom(_NONCE.size))
        self._second = -1
        self._header = b""
        self._sponge = self._sponges[self._keys[0]]  # which has absorbed the header
        self._tags: dict[bytes, bytes] = {}  # of the nonces around the last one, by flags and text

    def refresh(self, now: float) -> None:
        """Take in keys that have come or gone, from time to time; `now` in seconds since 1970."""
        self._keyring.look(now)
        if self._keyring.keys != self._keys:  # also when somebody else made the keyring look
            self._keys = self._keyring.keys
            self._sponges = self._make_sponges()
            self._second = -1

    def _make_sponges(self) -> dict[Key, "HASHXOF"]:
        # The model's name goes into the key: a token of another model fails even where the key is shared.
        purpose = b"serin prediction id 2\0" + self._name
        return {key: hashlib.shake_256(hmac.digest(key.secret, purpose, "sha256")) for key in self._keys}

    def issue(self, outcomes: Sequence[Outcome], now: float, attempt: Attempt = Attempt.FIRST) -> list[str]:
        """One token per outcome; `now` in seconds since 1970."""
        self._begin_second(int(now))
        header, nonce = self._header, self._nonce
        # Of the outcomes, by identity: rows of one class share an object, whose tail and tags are looked up once.
        known: dict[int, tuple[bytes, bytes]] = {}
        contents = []
        for outcome in outcomes:
            nonce = (nonce + 1) & 0xFFFF_FFFF_FFFF_FFFF
            place = nonce % _TOGETHER
            if place == 0:
                known.clear()
                self._tags.clear()
            found = known.get(id(outcome))
            if found is None:
                tail = _tail(outcome, attempt)
                if outcome.kind is Kind.QUANTITY:
                    contents.append(header + _NONCE.pack(nonce) + tail + _tags(self._sponge, nonce, tail))
                    continue
                found = known[id(outcome)] = tail, self._class_tags(nonce, tail)
            start = place * _TAG_BYTES
            contents.append(header + _NONCE.pack(nonce) + found[0] + found[1][start : start + _TAG_BYTES])
        self._nonce = nonce
        if len(contents) > 1 and len(set(map(len, contents))) == 1:
            return _texts(contents)
        return [
            binascii.b2a_base64(content, newline=False).translate(_URL_ALPHABET, b"=").decode() for content in contents
        ]

    def _class_tags(self, nonce: int, tail: bytes) -> bytes:
        tags = self._tags.get(tail)
        if tags is None:
            tags = self._tags[tail] = _tags(self._sponge, nonce, tail)
        return tags

    def _begin_second(self, second: int) -> None:
        """Tokens of one second start alike, and so does the computation of their tags."""
        if second != self._second:
            self.refresh(second)
            self._second = second
            self._header = _HEADER.pack(_FORMAT, self._model, self._revision, second)
            self._sponge = self._sponges[self._keyring.signing(second)].copy()
            self._sponge.update(self._header)
            self._tags.clear()

    def read(self, token: str) -> Prediction:
        """Check a token and return what it says. Raises TokenRefusedError."""
        content, tag = _split(token)
        form, model, revision, time = _HEADER.unpack_from(content)
        if form != _FORMAT:
            raise TokenRefusedError(Refusal.DAMAGED)
        if model != self._model:
            raise TokenRefusedError(Refusal.OTHER_MODEL)
        if not any(_agrees(sponge, content, tag) for sponge in self._sponges.values()):
            raise TokenRefusedError(Refusal.FORGED)
        nonce = content[_HEADER.size : _HEADER.size + _NONCE.size]
        flags, text = content[_HEADER.size + _NONCE.size], content[_HEADER.size + _NONCE.size + 1 :]
        return Prediction(
            revision=revision.hex(),
            time=time,
            nonce=nonce,
            attempt=_ATTEMPTS[flags & _ATTEMPT_BITS],
            outcome=Outcome(_kind(flags), text.decode()),
        )


def nonce_of(token: str) -> bytes:
    """The nonce in a token that this server has just made."""
    content, _ = _split(token)
    return content[_HEADER.size : _HEADER.size + _NONCE.size]


def _tags(sponge: "HASHXOF", nonce: int, tail: bytes) -> bytes:
    """The tags of the nonces that share an output with this one; the sponge has absorbed key and header."""
    together = _sharing(tail)
    own = sponge.copy()
    own.update(_NONCE.pack(nonce // together) + tail)
    tags: bytes = own.digest(together * _TAG_BYTES)
    return tags


def _sharing(tail: bytes) -> int:
    return 1 if _kind(tail[0]) is Kind.QUANTITY else _TOGETHER


def _agrees(sponge: "HASHXOF", content: bytes, tag: bytes) -> bool:
    (nonce,) = _NONCE.unpack_from(content, _HEADER.size)
    tail = content[_HEADER.size + _NONCE.size :]
    own = sponge.copy()
    own.update(content[: _HEADER.size])
    start = nonce % _sharing(tail) * _TAG_BYTES
    return hmac.compare_digest(_tags(own, nonce, tail)[start : start + _TAG_BYTES], tag)


def _tail(outcome: Outcome, attempt: Attempt) -> bytes:
    return bytes([outcome.kind << 1 | _FLAGS[attempt]]) + outcome.text.encode()


def _kind(flags: int) -> Kind:
    return Kind(flags >> 1 & 3)


def _texts(contents: Sequence[bytes]) -> list[str]:
    """Unpadded base64url of each; they have one size, so that one call encodes them all."""
    size = len(contents[0])
    zeros = bytes(-size % 3)
    text = binascii.b2a_base64(zeros.join(contents) + zeros, newline=False).translate(_URL_ALPHABET).decode()
    width, used = (size + len(zeros)) * 4 // 3, (size * 4 + 2) // 3
    return [text[start : start + used] for start in range(0, len(text), width)]


def _split(token: str) -> tuple[bytes, bytes]:
    if len(token) > _LONGEST or not token.isascii():
        raise TokenRefusedError(Refusal.DAMAGED)
    padded = token.translate(_STANDARD_ALPHABET) + "=" * (-len(token) % 4)
    try:
        data = binascii.a2b_base64(padded, strict_mode=True)
    except binascii.Error:
        raise TokenRefusedError(Refusal.DAMAGED) from None
    if not _FIXED_BYTES <= len(data) <= _FIXED_BYTES + TEXT_LIMIT:
        raise TokenRefusedError(Refusal.DAMAGED)
    return data[:-_TAG_BYTES], data[-_TAG_BYTES:]
