"""Runs the commands that the pages show and writes what they print below them.

    .venv/bin/python docs/generate_command_line.py

A block that begins with `$ serin …` is such a command, with `>` before lines that continue it. It runs in the
repository's root.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "docs" / "command-line.md", ROOT / "README.md")

_BLOCK = re.compile(
    r"^(?P<indent> +)\$ (?P<command>serin .*\n(?:(?P=indent)> .*\n)*)(?:(?P=indent).*\n|\n(?=\n*(?P=indent)))*",
    re.MULTILINE,
)
_SERIN = f'serin() {{ "{sys.executable}" -m serin_operator.cli "$@"; }}\n'


def page_with_outputs(page: Path) -> str:
    """The page, with the output of each command as it is now."""
    return _BLOCK.sub(_with_output, page.read_text())


def _with_output(block: re.Match[str]) -> str:
    indent, command = block["indent"], block["command"]
    output = _output(command.replace(f"{indent}> ", "")).strip("\n")
    shown = "".join(f"{indent}{line}\n" if line else "\n" for line in output.splitlines())
    return f"{indent}$ {command}{shown}"


def _output(command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src"), "COLUMNS": "112"}
    script = ["bash", "-o", "pipefail", "-c", _SERIN + command]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def main() -> None:
    """Writes both pages."""
    for page in PAGES:
        page.write_text(page_with_outputs(page))


if __name__ == "__main__":
    main()
