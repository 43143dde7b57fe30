"""Models behind http(s)."""

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from string import punctuation
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from serin_server import __version__
from serin_server.failures import FatalError, Reason
from serin_server.fetch.source import CHUNK_BYTES, Source

# Seconds without a byte, for connecting and for each read. The time for all of it is the operator's
# readyTimeout.
TIMEOUT = 30.0
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Credentials:
    """The value of an Authorization header."""

    authorization: str = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Credentials | None":
        """Read SERIN_FETCH_TOKEN, or SERIN_FETCH_USERNAME with SERIN_FETCH_PASSWORD; the token wins."""
        token = environment.get("SERIN_FETCH_TOKEN", "").strip()
        if token:
            return cls(f"Bearer {token}")
        username = environment.get("SERIN_FETCH_USERNAME", "")
        if username:
            pair = f"{username}:{environment.get('SERIN_FETCH_PASSWORD', '')}"
            return cls("Basic " + base64.b64encode(pair.encode()).decode())
        return None


@contextmanager
def open_web(uri: str, credentials: Credentials | None) -> Iterator[Source]:
    """Open an http(s) URI, following redirects. Raises FatalError; its text has no query."""
    first = _parse(uri)
    with _open_last_hop(first, credentials) as response:
        declared = response.headers.get("Content-Length")
        size = int(declared) if declared and declared.isdecimal() else None
        yield Source(_shown(first), size, _chunks(response, _shown(first), size))


def same_server(one: str, other: str) -> bool:
    """Whether credentials for the first URI may go to the second, which both may be of any kind."""
    try:
        return _same_host(_parse(one), _parse(other))
    except FatalError:  # told by whoever opens it
        return False


def _open_last_hop(first: SplitResult, credentials: Credentials | None) -> http.client.HTTPResponse:
    url = first
    for _ in range(MAX_REDIRECTS + 1):
        try:
            return _get(url, credentials if _same_host(first, url) else None)
        except urllib.error.HTTPError as error:
            with error:
                location = error.headers.get("Location")
                if error.code not in _REDIRECTS or not location:
                    raise _failure_of_status(error.code, url) from None
        url = _redirected(url, location)
    raise FatalError(Reason.UNREACHABLE, f"{_shown(first)} redirects more than {MAX_REDIRECTS} times")


def _get(url: SplitResult, credentials: Credentials | None) -> http.client.HTTPResponse:
    request = urllib.request.Request(  # noqa: S310 - the scheme is checked in _parse
        quote(url.geturl(), safe=punctuation),
        headers={"Accept-Encoding": "identity", "User-Agent": f"serin/{__version__}"},
    )
    if credentials:
        request.add_unredirected_header("Authorization", credentials.authorization)
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise FatalError(Reason.UNREACHABLE, f"{_shown(url)} cannot be reached: {_cause(cause)}") from None
    return response


def _opener() -> urllib.request.OpenerDirector:
    """HTTP(S) through the environment's proxies, and nothing else: no file:, no ftp:, no unseen redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _chunks(response: http.client.HTTPResponse, name: str, size: int | None) -> Iterator[bytes]:
    received = 0
    try:
        while chunk := response.read(CHUNK_BYTES):
            received += len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise FatalError(Reason.UNREACHABLE, f"{name} broke off after {received} bytes: {_cause(error)}") from None
    # http.client ends a short body like a complete one.
    if size is not None and received != size:
        raise FatalError(Reason.UNREACHABLE, f"{name} broke off after {received} of {size} bytes")


def _parse(uri: str) -> SplitResult:
    try:
        url = urlsplit(uri)
        usable = url.scheme in _DEFAULT_PORTS and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise FatalError(Reason.UNSUPPORTED_URI, "the URI is not a valid http(s) URL")
    if "@" in url.netloc:
        raise FatalError(
            Reason.UNSUPPORTED_URI, f"{_shown(url)} carries credentials in the URI: put them into secretRef"
        )
    return url


def _redirected(url: SplitResult, location: str) -> SplitResult:
    try:
        target = _parse(urljoin(url.geturl(), location))
    except FatalError as failure:
        raise FatalError(failure.reason, f"{_shown(url)} redirects wrongly: {failure.message}") from None
    if url.scheme == "https" and target.scheme == "http":
        raise FatalError(Reason.UNSUPPORTED_URI, f"{_shown(url)} redirects from https to http, which is not followed")
    return target


def _same_host(first: SplitResult, url: SplitResult) -> bool:
    """Whether credentials for `first` may go to `url`: the same server, or its TLS on the usual ports."""
    if url.hostname != first.hostname:
        return False
    ports = (_port(first), _port(url))
    return (first.scheme == url.scheme and ports[0] == ports[1]) or (
        first.scheme == "http" and url.scheme == "https" and ports == (80, 443)
    )


def _port(url: SplitResult) -> int:
    return url.port or _DEFAULT_PORTS[url.scheme]


def _shown(url: SplitResult) -> str:
    """The URL as messages show it: without user info, query (which may be a signature) and fragment."""
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{host}{url.path}" + ("?…" if url.query else "")


def _cause(error: object) -> str:
    """A short cause. Only the text of OS errors is shown: other libraries' texts may quote the URL."""
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return type(error).__name__


def _failure_of_status(status: int, url: SplitResult) -> FatalError:
    text = f"{_shown(url)} answered {status} {http.client.responses.get(status, '')}".rstrip()
    if status in (401, 403):
        return FatalError(Reason.DENIED, f"{text}: check the credentials in secretRef")
    if status in (404, 410):
        return FatalError(Reason.NOT_FOUND, text)
    return FatalError(Reason.UNREACHABLE, text)
