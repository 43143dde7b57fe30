"""The pages show what the commands on them print."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = runpy.run_path(str(DOCS / "generate_command_line.py"))


@pytest.mark.parametrize("page", GENERATOR["PAGES"], ids=lambda page: page.name)
def test_outputs_are_what_the_commands_print(page: Path) -> None:
    assert page.read_text() == GENERATOR["page_with_outputs"](page), "run docs/generate_command_line.py"
