"""Prediction ids: compact tokens, authenticated with keys that all pods of a ModelDeployment share (see `keys`).

A token is unpadded base64url of
    format (1) | model (4) | revision (5) | time (4) | nonce (8) | flags (1) | text (0..48) | tag (12)
with sizes in bytes and numbers big-endian: the start of SHA-256 of the model's name, seconds since 1970, bit
0 of the flags for a retry and bits 1–2 for the kind of outcome, and the start of HMAC-SHA256 over all of it.
"""

import binascii
import hashlib
import hmac
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from serin_server.monitor.classes import TEXT_LIMIT, Kind, Outcome
from serin_server.monitor.keys import Key, Keyring

_FORMAT = 1
_HEADER = struct.Struct(">B4s5sI")
_NONCE = struct.Struct(">Q")
_TAG_BYTES = 12
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
    retry: bool
    outcome: Outcome


class Tokens:
    """Makes and checks the prediction ids of one model."""

    def __init__(self, keyring: Keyring, model_name: str, revision: str) -> None:
        """`keyring` is shared by the model's servers, `revision` is this server's own (10 hex digits)."""
        self._keyring = keyring
        self._name = model_name.encode()
        self._model = hashlib.sha256(self._name).digest()[:4]
        self._revision = bytes.fromhex(revision)
        self._macs = self._make_macs()
        # Counted up over all rows of this process; where it starts keeps processes apart.
        self._nonce = int.from_bytes(os.urandom(_NONCE.size))
        self._second = -1
        self._header = b""
        self._mac_of_header = self._macs[keyring.keys[0]]

    def refresh(self, now: float) -> None:
        """Take in keys that have come or gone, from time to time; `now` in seconds since 1970."""
        if self._keyring.look(now):
            self._macs = self._make_macs()
            self._second = -1

    def _make_macs(self) -> dict[Key, hmac.HMAC]:
        # The model's name goes into the key: a token of another model fails even where the key is shared.
        purpose = b"serin prediction id 1\0" + self._name
        own = {key: hmac.digest(key.secret, purpose, "sha256") for key in self._keyring.keys}
        return {key: hmac.new(secret, digestmod="sha256") for key, secret in own.items()}

    def issue(self, outcomes: Sequence[Outcome], now: float, retry: bool) -> list[str]:
        """One token per outcome; `now` in seconds since 1970."""
        self._begin_second(int(now))
        header, mac_of_header = self._header, self._mac_of_header
        # Rows of one class share one Outcome object; comparing objects by their fields would cost more than the MAC.
        tails: dict[int, bytes] = {}
        tokens = []
        for outcome in outcomes:
            tail = tails.get(id(outcome))
            if tail is None:
                tail = tails[id(outcome)] = _tail(outcome, retry)
            self._nonce = (self._nonce + 1) & 0xFFFF_FFFF_FFFF_FFFF
            rest = _NONCE.pack(self._nonce) + tail
            mac = mac_of_header.copy()
            mac.update(rest)
            token = binascii.b2a_base64(header + rest + mac.digest()[:_TAG_BYTES], newline=False)
            tokens.append(token.translate(_URL_ALPHABET, b"=").decode())
        return tokens

    def _begin_second(self, second: int) -> None:
        """Tokens of one second start alike, and so does the computation of their tags."""
        if second != self._second:
            self.refresh(second)
            self._second = second
            self._header = _HEADER.pack(_FORMAT, self._model, self._revision, second)
            self._mac_of_header = self._macs[self._keyring.signing(second)].copy()
            self._mac_of_header.update(self._header)

    def read(self, token: str) -> Prediction:
        """Check a token and return what it says. Raises TokenRefusedError."""
        content, tag = _split(token)
        form, model, revision, time = _HEADER.unpack_from(content)
        if form != _FORMAT:
            raise TokenRefusedError(Refusal.DAMAGED)
        if model != self._model:
            raise TokenRefusedError(Refusal.OTHER_MODEL)
        if not any(_agrees(mac, content, tag) for mac in self._macs.values()):
            raise TokenRefusedError(Refusal.FORGED)
        nonce = content[_HEADER.size : _HEADER.size + _NONCE.size]
        flags, text = content[_HEADER.size + _NONCE.size], content[_HEADER.size + _NONCE.size + 1 :]
        return Prediction(
            revision=revision.hex(),
            time=time,
            nonce=nonce,
            retry=bool(flags & 1),
            outcome=Outcome(Kind(flags >> 1), text.decode()),
        )


def _agrees(mac: hmac.HMAC, content: bytes, tag: bytes) -> bool:
    mac = mac.copy()
    mac.update(content)
    return hmac.compare_digest(mac.digest()[:_TAG_BYTES], tag)


def _tail(outcome: Outcome, retry: bool) -> bytes:
    return bytes([outcome.kind << 1 | retry]) + outcome.text.encode()


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
