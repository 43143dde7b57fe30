"""The keys of prediction ids, which can be changed while the servers run.

They lie beside each other in one directory, as the kubelet mounts a Secret: the first is the file `key`, and each later
one is `key-` with the seconds since 1970 at which it was made. All of them verify. The newest signs, but only
SETTLE_SECONDS after it was made: by then every server of the model has read it, so none refuses what another signed.
"""

import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serin_server.failures import FatalError, Reason

log = logging.getLogger(__name__)

SHORTEST_KEY = 16  # bytes
# The kubelet brings a changed Secret into a pod within about two minutes; clocks may differ as well.
SETTLE_SECONDS = 600
LOOK_SECONDS = 10
# A forged id is tried with each key, so their number is what bounds its cost.
MOST_KEYS = 8

_SUFFIX = re.compile(r"-([0-9]{10})")


@dataclass(frozen=True, slots=True)
class Key:
    """A secret, and when it was made in seconds since 1970 (0: the first)."""

    made: int
    secret: bytes


class Keyring:
    """The keys that lie at a path. Not safe to use from several threads."""

    def __init__(self, keys: Sequence[Key], path: Path | None = None) -> None:
        """`keys`, newest first; with a `path` they are read again from there."""
        self.keys = tuple(keys)
        self._path = path
        self._looked = 0.0
        self._told = ""

    @classmethod
    def at(cls, path: Path | None) -> "Keyring":
        """The keys at `path`, or without one a random key that ends with the process. Raises FatalError."""
        if path is None:
            return cls.of(secrets.token_bytes(2 * SHORTEST_KEY))
        return cls(_read(path), path)

    @classmethod
    def of(cls, secret: bytes) -> "Keyring":
        """One key that stays."""
        return cls([Key(0, secret)])

    def look(self, now: float) -> None:
        """Read the keys again, every LOOK_SECONDS; `now` in seconds since 1970.

        Where they cannot be read, those that were there go on, and the log says why.
        """
        if self._path is None or abs(now - self._looked) < LOOK_SECONDS:  # the clock may go back
            return
        self._looked = now
        try:
            keys = _read(self._path)
        except FatalError as error:
            self._tell(error.message)
            return
        self._told = ""
        if keys != self.keys:
            self.keys = keys
            log.info("the keys of prediction ids have changed", extra={"fields": {"made": [key.made for key in keys]}})

    def signing(self, now: float) -> Key:
        """The key that signs at `now`: the newest that all servers have, or where none is old enough the oldest."""
        return next((key for key in self.keys if key.made + SETTLE_SECONDS <= now), self.keys[-1])

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            log.error("the keys of prediction ids stay as they are", extra={"fields": {"problem": problem}})


def _read(path: Path) -> tuple[Key, ...]:
    """The MOST_KEYS newest keys at `path`, newest first."""
    try:
        files = {0: path} if path.exists() else {}
        for file in path.parent.iterdir():
            suffix = _SUFFIX.fullmatch(file.name.removeprefix(path.name)) if file.name.startswith(path.name) else None
            if suffix:
                files[int(suffix[1])] = file
        keys = tuple(Key(made, files[made].read_bytes()) for made in sorted(files, reverse=True)[:MOST_KEYS])
    except OSError as error:
        raise _invalid(f"the key {path} cannot be read: {error.strerror}") from error
    if not keys:
        raise _invalid(f"the key {path} cannot be read: there is no such file")
    for key in keys:
        if len(key.secret) < SHORTEST_KEY:
            raise _invalid(f"the key {files[key.made]} has {len(key.secret)} bytes, at least {SHORTEST_KEY} are needed")
    return keys


def _invalid(message: str) -> FatalError:
    return FatalError(Reason.INVALID_CONFIGURATION, message)
