"""`serin` and, as a kubectl plugin, `kubectl serin`. Exit codes: 0 done, 1 wrong input, 2 wrong flags.

Only the command that is asked for is imported, so that `--help` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from serin_operator.cli.errors import InputError

COMMANDS = {
    "plan": "how long a rollout needs at your traffic, or what it can see in the time you have",
    "replay": "what a policy would have decided on recorded counters, scrape by scrape",
    "simulate": "how often a policy decides wrongly, and how soon it decides, under given effects",
    "promote": "let the rollout under way wait no longer at this step, or promote it at once (--full)",
    "abort": "roll the rollout under way back",
    "retry": "give a revision that was turned down another try",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    plugin = os.path.basename(sys.argv[0]).startswith("kubectl")
    parser = argparse.ArgumentParser(
        prog="kubectl serin" if plugin else "serin",
        description="Plan, replay and simulate Serin's rollouts with the operator's own code, and steer them.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        if name == wanted:
            module = import_module(f"serin_operator.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _version() -> str:
    try:
        return version("serin-operator")
    except PackageNotFoundError:
        return "not installed; run from a checkout"


if __name__ == "__main__":
    sys.exit(main())
