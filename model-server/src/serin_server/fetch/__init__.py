"""Gets a model's bytes from where the user keeps them, and says which bytes they are."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from serin_server.failures import FatalError, Reason
from serin_server.fetch.claims import open_claim
from serin_server.fetch.source import Source
from serin_server.fetch.web import Credentials, open_web, same_server

# As much as the server reads of one.
_MOST_SIGNATURE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Digest:
    """What was read: SHA-256 in lower-case hex, size in bytes."""

    sha256: str
    size: int


def digest(uri: str, *, max_bytes: int | None, claims: Path) -> Digest:
    """Read all of `uri` and return its digest. Raises FatalError."""
    with _open(uri, claims) as source:
        return _read(source, max_bytes, lambda _chunk: None)


def fetch(
    uri: str, sha256: str, output: Path, *, signature: str | None = None, max_bytes: int | None, claims: Path
) -> Digest:
    """Copy `uri` to `output`, which appears only when complete and with the digest expected.

    The URI `signature`, if any, goes to `output` with `.sig` after its name; who loads the model checks it.
    Raises FatalError. One attempt: the kubelet restarts an init container that failed, with its own back-off.
    """
    if signature is not None:
        _fetch_signature(signature, uri, output.with_name(output.name + ".sig"), claims)
    partial = output.with_name(output.name + ".partial")
    with _open(uri, claims) as source:
        try:
            with _storage(partial), partial.open("wb") as file:
                found = _read(source, max_bytes, file.write)
            if found.sha256 != sha256:
                raise FatalError(
                    Reason.DIGEST_MISMATCH,
                    f"{source.name} holds {found.size} bytes with SHA-256 {found.sha256}, expected {sha256}",
                )
            with _storage(output):
                os.replace(partial, output)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return found


def _fetch_signature(uri: str, model_uri: str, output: Path, claims: Path) -> None:
    try:
        # The credentials are for the model's server.
        with _open(uri, claims, anonymous=not same_server(model_uri, uri)) as source:
            parts: list[bytes] = []
            _read(source, _MOST_SIGNATURE_BYTES, parts.append)
    except FatalError as failure:
        reason = Reason.SIGNATURE_MISSING if failure.reason is Reason.NOT_FOUND else failure.reason
        raise FatalError(reason, f"the model's signature: {failure.message}") from failure
    with _storage(output):
        output.write_bytes(b"".join(parts))


def _open(uri: str, claims: Path, *, anonymous: bool = False) -> AbstractContextManager[Source]:
    scheme, separator, rest = uri.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return open_web(uri, None if anonymous else Credentials.from_environment(os.environ))
    if separator and scheme.lower() == "pvc":
        return open_claim(rest, claims)
    shown = f"{scheme}://" if separator else "a URI without a scheme"
    raise FatalError(Reason.UNSUPPORTED_URI, f"{shown} is not supported: use http(s)://… or pvc://<claim>/<path>")


def _read(source: Source, max_bytes: int | None, write: Callable[[bytes], object]) -> Digest:
    _check_size(source, source.size or 0, max_bytes)
    sha256 = hashlib.sha256()
    size = 0
    for chunk in source.chunks:
        size += len(chunk)
        _check_size(source, size, max_bytes)
        sha256.update(chunk)
        write(chunk)
    return Digest(sha256.hexdigest(), size)


def _check_size(source: Source, size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise FatalError(Reason.TOO_LARGE, f"{source.name} is larger than the limit of {max_bytes} bytes")


@contextlib.contextmanager
def _storage(path: Path) -> Iterator[None]:
    """Tell a disk that fails apart from a source that fails (sources raise FatalError, never OSError)."""
    try:
        yield
    except OSError as error:
        raise FatalError(Reason.STORAGE_FAILED, f"cannot write {path}: {error.strerror}") from error
