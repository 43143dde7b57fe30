"""The payload log on the command line. It imports nothing that is slow: every command reads these options."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serin_server.payload_log.settings import PayloadLogSettings

_MIB = 1024 * 1024


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options to `serve`."""
    command.add_argument(
        "--payload-log",
        type=Path,
        metavar="DIR",
        help="write predictions and labels to files here, for retraining (default: none)",
    )
    command.add_argument(
        "--payload-log-sample",
        default=1.0,
        type=_share,
        metavar="S",
        help="share of the predictions that are written, 1 for all (default: %(default)s)",
    )
    features = command.add_mutually_exclusive_group()
    features.add_argument(
        "--payload-log-include",
        action="append",
        metavar="NAME",
        help="write this feature and no others; can be repeated (default: all are written)",
    )
    features.add_argument(
        "--payload-log-exclude",
        action="append",
        metavar="NAME",
        help="write all features but this; can be repeated",
    )
    features.add_argument("--payload-log-no-inputs", action="store_true", help="write no feature, only predictions")
    command.add_argument(
        "--payload-log-max-mib",
        default=1024,
        type=_mebibytes,
        metavar="N",
        help="MiB that all files may have together; the oldest make room (default: %(default)s)",
    )


def settings_of(options: argparse.Namespace) -> "PayloadLogSettings | None":
    """What the options say; None when nothing is to be written."""
    from serin_server.payload_log.settings import PayloadLogSettings

    if options.payload_log is None:
        return None
    include = [] if options.payload_log_no_inputs else options.payload_log_include
    exclude = options.payload_log_exclude
    return PayloadLogSettings(
        directory=options.payload_log,
        sample=options.payload_log_sample,
        include=None if include is None else tuple(include),
        exclude=None if exclude is None else tuple(exclude),
        max_bytes=options.payload_log_max_mib * _MIB,
    )


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return share


def _mebibytes(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number above zero")
    return int(text)
