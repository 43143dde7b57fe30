"""Fetching models: as the init container and the resolver do it."""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.model_server.serving import run

from serin_server.failures import FatalError, Reason
from serin_server.fetch import Digest, digest, fetch, web

MODEL = bytes(range(256)) * 5000  # larger than one chunk
SHA256 = hashlib.sha256(MODEL).hexdigest()


class ModelStore(ThreadingHTTPServer):
    """A web server that misbehaves by path. `seen` holds (path, Authorization) of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str | None]] = []
        self.redirects: dict[str, str] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModelStore

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.seen.append((path, self.headers["Authorization"]))
        if path in self.server.redirects:
            self._answer(302, b"moved", location=self.server.redirects[path])
        elif path == "/model":
            self._answer(200, MODEL)
        elif path == "/model.sig":
            self._answer(200, b"a signature")
        elif path == "/private":
            self._answer(200 if self.headers["Authorization"] else 401, MODEL)
        elif path == "/truncated":
            self._answer(200, MODEL[:-1], length=len(MODEL))
            self.close_connection = True
        elif path == "/truncated-chunks":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n5\r\nhel")
            self.close_connection = True
        elif path == "/chunked":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n0\r\n\r\n")
        elif path == "/silent":
            self._answer(200, b"", length=len(MODEL))
            self.rfile.read(1)  # until the client gives up
        else:
            self._answer(int(path.strip("/")), b"no")

    def _answer(self, status: int, body: bytes, length: int | None = None, location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body) if length is None else length))
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def stores() -> Iterator[tuple[ModelStore, ModelStore]]:
    """Two hosts: credentials for one are not for the other. (127.0.0.1 with another port is another host.)"""
    with ExitStack() as stack:
        made = []
        for _ in range(2):
            store = stack.enter_context(ModelStore())
            thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(store.shutdown)
            made.append(store)
        yield made[0], made[1]


@pytest.fixture
def store(stores: tuple[ModelStore, ModelStore]) -> ModelStore:
    return stores[0]


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    """Mounted claims: `models` with a model in a folder, and a secret outside of it."""
    root = tmp_path / "pvc"
    (root / "models" / "v1").mkdir(parents=True)
    (root / "models" / "v1" / "model.joblib").write_bytes(MODEL)
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def read(uri: str, claims: Path = Path("/nonexistent"), max_bytes: int | None = None) -> Digest:
    return digest(uri, max_bytes=max_bytes, claims=claims)


def refusal(uri: str, claims: Path = Path("/nonexistent"), max_bytes: int | None = None) -> FatalError:
    with pytest.raises(FatalError) as failure:
        read(uri, claims, max_bytes)
    return failure.value


def test_a_model_is_fetched_to_its_place(store: ModelStore, tmp_path: Path) -> None:
    output = tmp_path / "model"
    found = fetch(store.url("/model"), SHA256, output, max_bytes=None, claims=tmp_path)
    assert found == Digest(SHA256, len(MODEL))
    assert output.read_bytes() == MODEL
    assert list(tmp_path.iterdir()) == [output]


def test_a_signature_is_fetched_beside_the_model(store: ModelStore, tmp_path: Path) -> None:
    output = tmp_path / "model"
    signature = store.url("/model.sig")
    fetch(store.url("/model"), SHA256, output, signature=signature, max_bytes=None, claims=tmp_path)
    assert (tmp_path / "model.sig").read_bytes() == b"a signature"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/404", Reason.SIGNATURE_MISSING), ("/503", Reason.UNREACHABLE), ("/model", Reason.TOO_LARGE)],
)
def test_without_its_signature_no_model_is_fetched(
    store: ModelStore, tmp_path: Path, path: str, reason: Reason
) -> None:
    with pytest.raises(FatalError, match="the model's signature") as failure:
        fetch(store.url("/model"), SHA256, tmp_path / "m", signature=store.url(path), max_bytes=None, claims=tmp_path)
    assert failure.value.reason is reason
    assert list(tmp_path.iterdir()) == []


def test_credentials_for_the_model_go_to_no_other_server_for_its_signature(
    stores: tuple[ModelStore, ModelStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERIN_FETCH_TOKEN", "t0ken")
    here, there = stores
    for signature in (here.url("/model.sig"), there.url("/model.sig")):
        fetch(here.url("/model"), SHA256, tmp_path / "m", signature=signature, max_bytes=None, claims=tmp_path)
    assert here.seen == [("/model.sig", "Bearer t0ken"), ("/model", "Bearer t0ken"), ("/model", "Bearer t0ken")]
    assert there.seen == [("/model.sig", None)]


def test_wrong_bytes_never_get_to_the_place(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(FatalError) as failure:
        fetch(store.url("/model"), "0" * 64, tmp_path / "model", max_bytes=None, claims=tmp_path)
    assert failure.value.reason is Reason.DIGEST_MISMATCH
    assert SHA256 in failure.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason", "text"),
    [
        ("/404", Reason.NOT_FOUND, "404 Not Found"),
        ("/410", Reason.NOT_FOUND, "410 Gone"),
        ("/401", Reason.DENIED, "401 Unauthorized"),
        ("/403", Reason.DENIED, "secretRef"),
        ("/429", Reason.UNREACHABLE, "429 Too Many Requests"),
        ("/500", Reason.UNREACHABLE, "500 Internal Server Error"),
        ("/503", Reason.UNREACHABLE, "503 Service Unavailable"),
        ("/304", Reason.UNREACHABLE, "304 Not Modified"),
        ("/truncated", Reason.UNREACHABLE, f"broke off after {len(MODEL) - 1} of {len(MODEL)} bytes"),
        ("/truncated-chunks", Reason.UNREACHABLE, "broke off"),
    ],
)
def test_each_failure_of_a_web_server_has_its_reason(store: ModelStore, path: str, reason: Reason, text: str) -> None:
    failure = refusal(store.url(path))
    assert failure.reason is reason
    assert text in failure.message
    assert store.url(path) in failure.message


def test_a_server_that_falls_silent_is_given_up(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT", 0.2)
    failure = refusal(store.url("/silent"))
    assert failure.reason is Reason.UNREACHABLE
    assert "no answer within 0.2 s" in failure.message


@pytest.mark.parametrize(
    ("uri", "text"),
    [("http://127.0.0.1:1/model", "refused"), ("http://no-such-host.invalid/model", "cannot be reached")],
)
def test_no_server_is_unreachable(uri: str, text: str) -> None:
    failure = refusal(uri)
    assert failure.reason is Reason.UNREACHABLE
    assert text in failure.message


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/model", "file:///etc/passwd", "/etc/passwd", "ftp://host/model", "", "http://", "http:///model",
        "http://host:port/model", "http://[::1/model", "model.joblib",
    ],
)  # fmt: skip
def test_other_uris_are_not_supported(uri: str) -> None:
    assert refusal(uri).reason is Reason.UNSUPPORTED_URI


def test_credentials_in_a_uri_are_refused_and_not_shown() -> None:
    failure = refusal("http://user:hunter2@127.0.0.1:1/model?signature=hunter3")
    assert failure.reason is Reason.UNSUPPORTED_URI
    assert "hunter" not in failure.message
    assert "secretRef" in failure.message


def test_queries_are_sent_and_not_shown(store: ModelStore) -> None:
    assert read(store.url("/model?signature=hunter2")).sha256 == SHA256
    assert "hunter2" not in refusal(store.url("/404?signature=hunter2")).message


@pytest.mark.parametrize("to", ["/private", "{other}/private"])
def test_redirects_are_followed_and_credentials_stay_with_their_host(
    stores: tuple[ModelStore, ModelStore], monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    store, other = stores
    monkeypatch.setenv("SERIN_FETCH_TOKEN", "hunter2")
    store.redirects["/moved"] = to.format(other=other.url(""))
    if other.url("") in store.redirects["/moved"]:
        assert refusal(store.url("/moved")).reason is Reason.DENIED
        assert other.seen == [("/private", None)]
    else:
        assert read(store.url("/moved")).sha256 == SHA256
    assert store.seen[0] == ("/moved", "Bearer hunter2")


def test_a_username_and_a_password_are_sent(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERIN_FETCH_USERNAME", "ann")
    monkeypatch.setenv("SERIN_FETCH_PASSWORD", "pässword")
    assert read(store.url("/private")).sha256 == SHA256
    expected = "Basic " + base64.b64encode("ann:pässword".encode()).decode()
    assert store.seen == [("/private", expected)]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("file:///etc/passwd", Reason.UNSUPPORTED_URI),
        ("ftp://127.0.0.1/model", Reason.UNSUPPORTED_URI),
        ("http://user:hunter2@127.0.0.1/model", Reason.UNSUPPORTED_URI),
        ("/moved", Reason.UNREACHABLE),  # for ever
    ],
)
def test_some_redirects_are_not_followed(store: ModelStore, location: str, reason: Reason) -> None:
    store.redirects["/moved"] = location
    failure = refusal(store.url("/moved"))
    assert failure.reason is reason
    assert "hunter2" not in failure.message


@pytest.mark.parametrize("path", ["/model", "/chunked"])
def test_a_size_limit_ends_the_reading(store: ModelStore, path: str) -> None:
    assert refusal(store.url(path), max_bytes=4).reason is Reason.TOO_LARGE


def test_a_claims_file_is_read(claims: Path) -> None:
    assert read("pvc://models/v1/model.joblib", claims) == Digest(SHA256, len(MODEL))


def test_links_inside_a_claim_are_followed(claims: Path) -> None:
    (claims / "models" / "current").symlink_to("v1")
    assert read("pvc://models/current/model.joblib", claims).sha256 == SHA256


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pvc://models/../../secret", Reason.UNSUPPORTED_URI),
        ("pvc://models/v1/../../../secret", Reason.UNSUPPORTED_URI),
        ("pvc://../secret", Reason.UNSUPPORTED_URI),
        ("pvc://models", Reason.UNSUPPORTED_URI),
        ("pvc://models/", Reason.UNSUPPORTED_URI),
        ("pvc:///models/v1/model.joblib", Reason.UNSUPPORTED_URI),
        ("pvc://models/out", Reason.UNSUPPORTED_URI),
        ("pvc://models/out-by-folder/secret", Reason.UNSUPPORTED_URI),
        ("pvc://models/loop", Reason.NOT_FOUND),
        ("pvc://models/v1", Reason.NOT_FOUND),
        ("pvc://models/fifo", Reason.NOT_FOUND),
        ("pvc://models/v2/model.joblib", Reason.NOT_FOUND),
        ("pvc://models/v1/model.joblib/more", Reason.NOT_FOUND),
        ("pvc://other/v1/model.joblib", Reason.NOT_FOUND),
    ],
)
def test_what_is_not_a_file_inside_a_claim_is_refused(claims: Path, path: str, reason: Reason) -> None:
    (claims / "models" / "out").symlink_to(claims.parent / "secret")
    (claims / "models" / "out-by-folder").symlink_to("../..")
    (claims / "models" / "loop").symlink_to("loop")
    os.mkfifo(claims / "models" / "fifo")
    assert refusal(path, claims).reason is reason


def test_a_disk_that_cannot_be_written_is_not_the_sources_fault(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(FatalError) as failure:
        fetch(store.url("/model"), SHA256, tmp_path / "missing" / "model", max_bytes=None, claims=tmp_path)
    assert failure.value.reason is Reason.STORAGE_FAILED


@pytest.mark.process
def test_the_digest_command_prints_and_leaves_what_it_found(store: ModelStore) -> None:
    done = run("digest", "--uri", store.url("/model"))
    assert (done.code, done.termination) == (0, {"sha256": SHA256, "size": len(MODEL)})
    assert json.loads(done.stdout) == done.termination


@pytest.mark.process
def test_the_fetch_command_ends_with_its_reasons_exit_code(store: ModelStore, tmp_path: Path) -> None:
    output = tmp_path / "model"
    done = run("fetch", "--uri", store.url("/403"), "--sha256", SHA256, "--output", output, SERIN_FETCH_TOKEN="t0k")
    assert done.code == 12
    assert done.termination is not None
    assert done.termination["reason"] == "Denied"
    assert json.loads(done.stderr.splitlines()[-1]) == done.termination
    assert "t0k" not in done.stderr
    assert not output.exists()
    assert run("fetch", "--uri", store.url("/model"), "--sha256", SHA256.upper(), "--output", output).code == 0
    assert output.read_bytes() == MODEL


@pytest.mark.process
def test_a_digest_that_is_none_is_a_usage_error(tmp_path: Path) -> None:
    done = run("fetch", "--uri", "http://host/model", "--sha256", "abc", "--output", tmp_path / "model")
    assert done.code == 2
    assert "64 hex digits" in done.stderr
