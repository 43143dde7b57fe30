"""`serin promote`: ends the wait of the rollout under way, or all of it."""

import argparse

from serin_operator.api import ANNOTATION_PROMOTE
from serin_operator.cli import asking
from serin_operator.cli.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serin promote`."""
    asking.add_arguments(parser)
    text = "promote at once, without the evidence that it takes; evidence of harm still rolls back"
    parser.add_argument("--full", action="store_true", help=text)
    text = "with --full: the revision to promote, if it is still the one under way (status.canary.revision)"
    parser.add_argument("--revision", metavar="REVISION", help=text)


def run(arguments: argparse.Namespace) -> None:
    """Sets the annotation and says what follows."""
    if arguments.revision is not None and not arguments.full:
        raise InputError("--revision is for --full: without it, the evidence decides of whatever is under way")
    if arguments.revision == "":  # as of a script that found no canary
        raise InputError("--revision is empty: name one, or leave the flag out to promote whatever is under way")
    named = f":{arguments.revision}" if arguments.revision else ""
    asking.ask(arguments, ANNOTATION_PROMOTE, f"full{named}-" if arguments.full else "")
    what = "to be promoted at once" if arguments.full else "not to wait any longer at this step"
    print(f"{arguments.name} is asked {what}. See: kubectl get mdep {arguments.name} -o wide")
