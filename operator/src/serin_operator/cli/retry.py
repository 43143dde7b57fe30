"""`serin retry`: gives a revision that was turned down another try."""

import argparse

from serin_operator.api import ANNOTATION_RETRY
from serin_operator.cli import asking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serin retry`."""
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Sets the annotation and says what follows."""
    asking.ask(arguments, ANNOTATION_RETRY)
    print(f"{arguments.name} is asked for another try. See: kubectl get mdep {arguments.name} -o wide")
