"""The command as it is started: quickly, by either name, from a checkout or an installation."""

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from tests.operator.cli.files import drawn, rows, write_csv

from serin_operator.cli.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]


def started(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, with the checkout's code."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


RUN = "import sys; from serin_operator.cli.__main__ import main; sys.exit(main())"


def test_help_names_every_command_and_loads_nothing_large() -> None:
    loads = ["numpy", "yaml", "jsonschema", "rich", "aiohttp", "matplotlib", "kopf"]
    program = (
        "import sys; from serin_operator.cli.__main__ import main\n"
        "try: main(['--help'])\n"
        f"finally: print(sorted(set({loads}) & set(sys.modules)), file=sys.stderr)"
    )
    done = started(program)
    assert all(command in done.stdout for command in COMMANDS)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    assert "--policy FILE" in capsys.readouterr().out


def test_both_entry_points_start_it() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name in ("serin", "kubectl-serin"):
        module, _, function = scripts[name].partition(":")
        assert getattr(import_module(module), function) is main


def test_as_a_plugin_it_is_called_as_kubectl_calls_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/kubectl-serin"])
    assert main(["replay", "nowhere.csv"]) == 1
    assert capsys.readouterr().err.startswith("kubectl serin: nowhere.csv: ")


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "x.csv", rows(drawn(1000)))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator" / "src")}
    command = [sys.executable, "-c", RUN, "replay", str(file), "--margin", "0.02", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_wrong_input_is_exit_code_1_and_wrong_flags_2() -> None:
    assert started(RUN, "replay", "nowhere.csv").returncode == 1
    assert started(RUN, "replay").returncode == 2
    assert started(RUN, "dance").returncode == 2


def test_the_wheel_brings_the_definition_along() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in build["force-include"].items():
        assert (ROOT / source).is_file()
        assert target == f"serin_operator/{Path(source).name}"
