"""The command line: `fetch` and `digest` get a model's bytes, `check` and `profile` look, `serve` answers with them."""

import argparse
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from serin_server import __version__, logs
from serin_server.failures import FatalError, Reason, guarded, write_termination_log
from serin_server.payload_log import options as payload_log

if TYPE_CHECKING:
    from serin_server.runtime.signature import SignatureCheck

log = logging.getLogger(__name__)

# Read by OpenMP and the BLAS libraries when they are first loaded, so set before anything imports numpy. One
# thread each: a pod's CPU share is counted in requests side by side, and threads that wait for each other
# only add latency.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


# The revision of a model that no operator named.
_NO_REVISION = "0" * 10


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit code: 0, or the code of the failure that was reported."""
    options = _parser().parse_args(arguments)
    logs.configure()
    _exit_on_sigterm()
    return guarded(lambda: int(options.command(options)))


def _exit_on_sigterm() -> None:
    """A container's first process ignores SIGTERM without a handler. `serve` puts draining in its place."""
    signal.signal(signal.SIGTERM, lambda _signal, _frame: os._exit(128 + signal.SIGTERM))


def _fetch(options: argparse.Namespace) -> int:
    from serin_server.fetch import fetch

    digest = fetch(
        options.uri,
        options.sha256,
        options.output,
        signature=options.signature_uri,
        max_bytes=options.max_bytes,
        claims=options.claims_root,
    )
    log.info("model fetched", extra={"fields": {"sha256": digest.sha256, "size": digest.size}})
    return 0


def _digest(options: argparse.Namespace) -> int:
    from serin_server.fetch import digest

    found = digest(options.uri, max_bytes=options.max_bytes, claims=options.claims_root)
    line = json.dumps({"sha256": found.sha256, "size": found.size})
    print(line, flush=True)
    write_termination_log(line)
    return 0


def _check(options: argparse.Namespace) -> int:
    from serin_server.check.command import check
    from serin_server.runtime.formats import Format

    format_ = Format(options.format) if options.format else Format.of(options.model)
    found = check(options.model, format_, tuple(options.trusted_type), _signature_check(options))
    print(json.dumps(found, indent=2, ensure_ascii=False), flush=True)
    return 0 if found["safe"] else Reason.UNTRUSTED_TYPES.exit_code


def _profile(options: argparse.Namespace) -> int:
    from serin_server.drift.command import profile
    from serin_server.runtime.formats import Format

    told = profile(
        options.data,
        model=options.model,
        format_=Format(options.format) if options.format else None,
        trusted_types=tuple(options.trusted_type),
        predictions=options.predictions,
        ignore=options.ignore,
        bins=options.bins,
        output=options.output,
    )
    print(json.dumps(told, indent=2, ensure_ascii=False), flush=True)
    return 0


def _serve(options: argparse.Namespace) -> int:
    path = options.model_path or options.model
    if path is None or (options.model_path and options.model):
        raise FatalError(Reason.INVALID_CONFIGURATION, "name one model file: serve FILE, or --model-path FILE")
    if options.model_path and None in (options.model_name, options.revision, options.sha256, options.key_path):
        # A pod with a forgotten option must not serve unchecked bytes, or sign with a key of its own.
        raise FatalError(
            Reason.INVALID_CONFIGURATION, "--model-path needs --model-name, --revision, --sha256 and --key-path"
        )
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    from serin_server.runtime.acceleration import Accelerate
    from serin_server.runtime.formats import Format
    from serin_server.serve import Settings, serve

    beside = path.with_name(path.name + ".profile.json")
    return serve(
        Settings(
            profile=options.profile or (beside if options.model and beside.exists() else None),
            format=Format(options.format) if options.format else Format.of(path),
            trusted_types=tuple(options.trusted_type),
            signature=_signature_check(options),
            accelerate=Accelerate(options.accelerate),
            model_name=options.model_name or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-.") or "model",
            model_version=options.model_version,
            revision=options.revision or _NO_REVISION,
            model_path=path,
            sha256=options.sha256,
            key_path=options.key_path,
            host=options.host,
            port=options.port,
            grpc_port=options.grpc_port,
            drain_seconds=options.drain_seconds,
            max_body_bytes=options.max_body_bytes,
            max_in_flight=options.max_in_flight,
            processes=options.processes,
            max_connections=options.max_connections,
            max_upload_bytes=options.max_upload_bytes,
            access_log_sample=options.access_log_sample,
            payload_log=payload_log.settings_of(options),
        )
    )


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
    fetch.add_argument(
        "--signature-uri", metavar="URI", help="where the model's signature is; it goes to PATH with .sig after it"
    )
    fetch.set_defaults(command=_fetch)

    digest = commands.add_parser("digest", help="read a model and print its SHA-256 and size", description=_SOURCE_HELP)
    _add_source(digest)
    digest.set_defaults(command=_digest)

    check = commands.add_parser(
        "check",
        help="say what a model file is, without loading it",
        description="Prints one JSON object: format, digest, versions, what the file asks for beyond what is known to "
        "be safe, and the protocol's metadata. The exit code is 25 when it asks for such things.",
    )
    check.add_argument("model", type=Path, metavar="FILE", help="the model file")
    _add_reading(check)
    _add_signature(check)
    check.set_defaults(command=_check)

    profile = commands.add_parser(
        "profile",
        help="say how training data is distributed, so that drift can be told",
        description="Reads CSV, .npy, .npz or Parquet, and writes as JSON how many rows each bin of each feature has. "
        "No row is in it: the bins' edges lie between quantiles, ranges are rounded, rare categories are not named.",
    )
    profile.add_argument("data", type=Path, metavar="DATA", help="the training data, one row an example")
    profile.add_argument(
        "--model", type=Path, metavar="FILE", help="the model: it gives features, order and predictions"
    )
    profile.add_argument("--predictions", metavar="COLUMN", help="a column that holds what the model predicts")
    profile.add_argument(
        "--ignore", action="append", default=[], metavar="COLUMN", help="no feature, such as the label; can be repeated"
    )
    profile.add_argument(
        "--bins", default=10, type=_bins, metavar="N", help="bins or named categories a feature (default: %(default)s)"
    )
    profile.add_argument(
        "-o", "--output", type=Path, metavar="PATH", help="where it goes (default: beside the model, FILE.profile.json)"
    )
    _add_reading(profile)
    profile.set_defaults(command=_profile)

    serve = commands.add_parser("serve", help="load a model and answer requests")
    serve.add_argument("model", nargs="?", type=Path, metavar="FILE", help="a file of your own; the rest has defaults")
    serve.add_argument("--model-name", metavar="M", help="name in the URLs and metrics (default: the file's)")
    serve.add_argument(
        "--model-version", default="1", metavar="V", help="version that responses carry (default: %(default)s)"
    )
    serve.add_argument("--revision", type=_revision, metavar="R", help="Serin's revision, 10 hex digits")
    serve.add_argument("--model-path", type=Path, metavar="PATH", help="file that `fetch` wrote")
    serve.add_argument("--sha256", type=_sha256, metavar="HEX", help="digest the file must have")
    serve.add_argument(
        "--key-path",
        type=Path,
        metavar="PATH",
        help="key that authenticates prediction ids (default: a random one, and ids end with the process)",
    )
    _add_reading(serve)
    serve.add_argument(
        "--profile",
        type=Path,
        metavar="PATH",
        help="reference profile that `profile` wrote (default: FILE.profile.json, if it is beside a FILE of your own)",
    )
    _add_signature(serve)
    serve.add_argument(
        "--accelerate",
        choices=["Auto", "Never"],
        default="Auto",
        help="whether scikit-learn models become ONNX where that is equal and faster (default: %(default)s)",
    )
    serve.add_argument("--host", default=None, help="address to listen on (default: all, IPv4 and IPv6)")
    serve.add_argument("--port", default=8080, type=int, help="port to listen on, 0 for any (default: %(default)s)")
    serve.add_argument(
        "--grpc-port",
        default=8081,
        type=_grpc_port,
        metavar="PORT",
        help="port to listen on for gRPC, 0 for any, `off` for none (default: %(default)s)",
    )
    serve.add_argument(
        "--processes",
        default=1,
        type=_count_to(16),
        metavar="N",
        help="processes that serve one port, for as many CPUs, from 1 to 16 (default: %(default)s)",
    )
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
    payload_log.add_options(serve)
    serve.add_argument(
        "--max-connections",
        default=1000,
        type=_positive(int),
        metavar="N",
        help="connections that may be open; more are answered 503 and closed (default: %(default)s)",
    )
    serve.add_argument(
        "--max-upload-bytes",
        type=_positive(int),
        metavar="N",
        help="bytes of all bodies that are read or wait for answers; more are answered 503 "
        "(default: a quarter of the memory that is free, at most 256 MiB)",
    )
    serve.add_argument(
        "--access-log-sample",
        default=0.0,
        type=_share,
        metavar="SHARE",
        help="share of the requests that the log tells of, from 0 to 1 (default: %(default)s)",
    )
    serve.set_defaults(command=_serve)
    return parser


_SOURCE_HELP = (
    "Reads http(s)://… or pvc://<claim>/<path>. Credentials for http(s) come from SERIN_FETCH_TOKEN, or "
    "SERIN_FETCH_USERNAME and SERIN_FETCH_PASSWORD."
)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format",
        choices=["joblib", "skops", "onnx"],
        help="how the file is read (default: by its name, .skops or .onnx, else joblib)",
    )
    command.add_argument(
        "--trusted-type",
        action="append",
        default=[],
        metavar="MODULE.NAME",
        help="a type that a skops file may load beside those known to be safe; can be repeated",
    )


def _add_signature(command: argparse.ArgumentParser) -> None:
    command.add_argument("--signature", type=Path, metavar="FILE", help="a signature that must vouch for the model")
    command.add_argument(
        "--public-key", type=_pem, metavar="PEM", help="the key that must have made it: a file, or its text"
    )
    command.add_argument(
        "--certificate-chain",
        type=_pem,
        metavar="PEM",
        help="certificates that its signer's must lead to: a file, or its text",
    )


def _signature_check(options: argparse.Namespace) -> "SignatureCheck | None":
    from serin_server.runtime.signature import SignatureCheck

    trusted = [options.public_key, options.certificate_chain]
    if options.signature is None and trusted == [None, None]:
        return None
    if options.signature is None or trusted.count(None) != 1:
        # A key without a signature, or neither key nor certificates, would check nothing.
        raise FatalError(
            Reason.INVALID_CONFIGURATION, "a check needs --signature and one of --public-key and --certificate-chain"
        )
    return SignatureCheck(options.signature, options.public_key, options.certificate_chain)


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


def _bins(text: str) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= 50:
        raise argparse.ArgumentTypeError("must be from 2 to 50")
    return int(text)


def _pem(text: str) -> str:
    """The text of a PEM file, or the text itself, so that a pod needs no file for what is no secret."""
    if text.startswith("-----BEGIN "):
        return text
    try:
        return Path(text).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read as PEM: {error}") from error


def _grpc_port(text: str) -> int | None:
    if text == "off":
        return None
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be a port's number, or `off`")
    return int(text)


def _revision(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{10}", text):
        raise argparse.ArgumentTypeError("a revision is 10 lower-case hex digits")
    return text


def _count_to(most: int) -> Callable[[str], int]:
    """An argparse type: a whole number from 1 on."""

    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}")
        return int(text)

    return number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return share


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
