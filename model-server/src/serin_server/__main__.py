"""Entry point of `python -m serin_server` and of the console script `serin-server`."""

import sys

from serin_server.cli import run


def main() -> int:
    """Run the command line of this process and return its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
