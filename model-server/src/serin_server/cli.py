"""The command line: `fetch` and `digest` get a model's bytes, `serve` answers requests with them."""

import argparse
import json
import logging
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from serin_server import __version__, logs
from serin_server.failures import FatalError, Reason, report, write_termination_log

log = logging.getLogger(__name__)

# Read by OpenMP and the BLAS libraries when they are first loaded, so set before anything imports numpy. One
# thread each: a pod's CPU share is counted in requests side by side, and threads that wait for each other
# only add latency.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code: 0, or the code of the failure that was reported."""
    options = _parser().parse_args(arguments)
    logs.configure()
    _exit_on_sigterm()
    try:
        return int(options.command(options))
    except FatalError as failure:
        report(failure)
        return failure.reason.exit_code
    except Exception as error:
        log.exception("unexpected failure")
        report(FatalError(Reason.INTERNAL_ERROR, f"{type(error).__name__}: {error}"))
        return Reason.INTERNAL_ERROR.exit_code


def _exit_on_sigterm() -> None:
    """A container's first process ignores SIGTERM without a handler. `serve` puts draining in its place."""
    signal.signal(signal.SIGTERM, lambda _signal, _frame: os._exit(128 + signal.SIGTERM))


def _fetch(options: argparse.Namespace) -> int:
    from serin_server.fetch import fetch

    digest = fetch(options.uri, options.sha256, options.output, max_bytes=options.max_bytes, claims=options.claims_root)
    log.info("model fetched", extra={"fields": {"sha256": digest.sha256, "size": digest.size}})
    return 0


def _digest(options: argparse.Namespace) -> int:
    from serin_server.fetch import digest

    found = digest(options.uri, max_bytes=options.max_bytes, claims=options.claims_root)
    line = json.dumps({"sha256": found.sha256, "size": found.size})
    print(line, flush=True)
    write_termination_log(line)
    return 0


def _serve(options: argparse.Namespace) -> int:
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    from serin_server.serve import Settings, serve

    serve(
        Settings(
            model_name=options.model_name,
            model_version=options.model_version,
            revision=options.revision,
            model_path=options.model_path,
            sha256=options.sha256,
            key_path=options.key_path,
            host=options.host,
            port=options.port,
            drain_seconds=options.drain_seconds,
            max_body_bytes=options.max_body_bytes,
            max_in_flight=options.max_in_flight,
        )
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serin-server",
        description="Fetch a model, or serve it over the Open Inference Protocol V2.",
        epilog="A failure is one JSON line {reason, message} on stderr and in $SERIN_TERMINATION_LOG.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="copy a model to a file and check its SHA-256", description=_SOURCE_HELP)
    _add_source(fetch)
    fetch.add_argument("--sha256", required=True, type=_sha256, metavar="HEX", help="digest the bytes must have")
    fetch.add_argument("--output", required=True, type=Path, metavar="PATH", help="where the model goes")
    fetch.set_defaults(command=_fetch)

    digest = commands.add_parser("digest", help="read a model and print its SHA-256 and size", description=_SOURCE_HELP)
    _add_source(digest)
    digest.set_defaults(command=_digest)

    serve = commands.add_parser("serve", help="load a model and answer requests")
    serve.add_argument("--model-name", required=True, metavar="M", help="name in the URLs and metrics")
    serve.add_argument("--model-version", required=True, metavar="V", help="version that responses carry")
    serve.add_argument("--revision", required=True, type=_revision, metavar="R", help="Serin's revision, 10 hex digits")
    serve.add_argument("--model-path", required=True, type=Path, metavar="PATH", help="file that `fetch` wrote")
    serve.add_argument("--sha256", required=True, type=_sha256, metavar="HEX", help="digest the file must have")
    serve.add_argument(
        "--key-path", required=True, type=Path, metavar="PATH", help="key that authenticates prediction ids"
    )
    serve.add_argument("--host", default=None, help="address to listen on (default: all, IPv4 and IPv6)")
    serve.add_argument("--port", default=8080, type=int, help="port to listen on, 0 for any (default: %(default)s)")
    serve.add_argument(
        "--drain-seconds",
        default=15.0,
        type=_positive(float),
        metavar="S",
        help="how long requests are still taken after SIGTERM (default: %(default)s)",
    )
    serve.add_argument(
        "--max-body-bytes",
        default=8 * 1024 * 1024,
        type=_positive(int),
        metavar="N",
        help="larger request bodies are answered 413 (default: %(default)s)",
    )
    serve.add_argument(
        "--max-in-flight",
        default=128,
        type=_positive(int),
        metavar="N",
        help="predictions that may run or wait; more are answered 503 (default: %(default)s)",
    )
    serve.set_defaults(command=_serve)
    return parser


_SOURCE_HELP = (
    "Reads http(s)://… or pvc://<claim>/<path>. Credentials for http(s) come from SERIN_FETCH_TOKEN, or "
    "SERIN_FETCH_USERNAME and SERIN_FETCH_PASSWORD."
)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("--uri", required=True, help="where the model is")
    command.add_argument(
        "--max-bytes",
        type=_positive(int),
        metavar="N",
        help="fail when the model is larger (default: no limit)",
    )
    command.add_argument(
        "--claims-root",
        default=Path("/pvc"),
        type=Path,
        metavar="DIR",
        help="directory under which claims are mounted by name (default: %(default)s)",
    )


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("a SHA-256 is 64 hex digits")
    return text.lower()


def _revision(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{10}", text):
        raise argparse.ArgumentTypeError("a revision is 10 lower-case hex digits")
    return text


class _positive:  # noqa: N801 - reads as a function where it is used
    """An argparse type: a number of the given kind above zero."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def __call__(self, text: str) -> float:
        try:
            number = self._kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
        if not number > 0:
            raise argparse.ArgumentTypeError("must be above zero")
        return number
