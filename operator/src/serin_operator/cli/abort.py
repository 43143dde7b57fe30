"""`serin abort`: turns the canary of the rollout under way down."""

import argparse

from serin_operator.api import ANNOTATION_ABORT
from serin_operator.cli import asking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `serin abort`."""
    asking.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Sets the annotation and says what follows."""
    asking.ask(arguments, ANNOTATION_ABORT)
    print(f"{arguments.name} is asked to roll back. `serin retry {arguments.name}` tries the same revision again.")
