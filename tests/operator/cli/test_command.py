"""The command as it is started: quickly, by either name, from a checkout or an installation."""

import os
import re
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


ASKING = ("promote", "abort", "retry")
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
    assert ("--namespace" if command in ASKING else "--policy FILE") in capsys.readouterr().out


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


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that writes its arguments down, and fails if the file `refusal` is there."""
    program = tmp_path / "kubectl"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/called\n"
        f"if [ -e {tmp_path}/refusal ]; then echo 'Error from server (NotFound)' >&2; exit 1; fi\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "annotation"),
    [
        (["promote", "iris"], r"serin\.dev/promote=\d{13}"),
        (["promote", "iris", "--full"], r"serin\.dev/promote=full-\d{13}"),
        (["promote", "iris", "--full", "--revision", "5176af88bf"], r"serin\.dev/promote=full:5176af88bf-\d{13}"),
        (["abort", "iris"], r"serin\.dev/abort=\d{13}"),
        (["retry", "iris"], r"serin\.dev/retry=\d{13}"),
    ],
)
def test_it_asks_by_an_annotation(
    arguments: list[str], annotation: str, kubectl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "-n", "shop"]) == 0
    *called, mark, namespace = (kubectl / "called").read_text().splitlines()
    assert called == ["annotate", "modeldeployments.serin.dev", "iris", "--overwrite"]
    assert re.fullmatch(annotation, mark)
    assert namespace == "--namespace=shop"
    assert "iris" in capsys.readouterr().out


def test_a_revision_is_named_for_all_or_nothing(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "iris", "--revision", "5176af88bf"]) == 1
    assert "--revision is for --full" in capsys.readouterr().err
    assert main(["promote", "iris", "--full", "--revision", ""]) == 1
    assert "--revision is empty" in capsys.readouterr().err
    assert not (kubectl / "called").exists()


def test_what_kubectl_refuses_is_told(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "refusal").touch()
    assert main(["promote", "iris"]) == 1
    assert capsys.readouterr().err == "serin: kubectl: Error from server (NotFound)\n"


def test_without_kubectl_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["abort", "iris"]) == 1
    assert "kubectl is not on the PATH" in capsys.readouterr().err
