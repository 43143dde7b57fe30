"""`serin promote`: ends the wait of the rollout under way, or all of it."""

import argparse

from serin_operator.api import ANNOTATION_PROMOTE
from serin_operator.cli import asking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serin promote`."""
    asking.add_arguments(parser)
    text = "promote at once, without the evidence that it takes; evidence of harm still rolls back"
    parser.add_argument("--full", action="store_true", help=text)


def run(arguments: argparse.Namespace) -> None:
    """Sets the annotation and says what follows."""
    asking.ask(arguments, ANNOTATION_PROMOTE, "full-" if arguments.full else "")
    what = "to be promoted at once" if arguments.full else "not to wait any longer at this step"
    print(f"{arguments.name} is asked {what}. See: kubectl get mdep {arguments.name} -o wide")
