"""The shape of the repository that imports rely on."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_operator_is_no_package() -> None:
    assert (ROOT / "operator" / "src" / "serin_operator").is_dir()
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "operator" / "src" / "__init__.py").exists()


def test_the_standard_librarys_operator_is_found_from_the_root() -> None:
    program = "import operator; print(operator.__file__); assert operator.add(1, 2) == 3"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "operator")


def test_the_core_can_be_imported_without_a_cluster_client() -> None:
    program = (
        "import sys; sys.path.insert(0, 'operator/src')\n"
        "import serin_operator.decide.rollout, serin_operator.build.manifests\n"
        "assert not {'kopf', 'kubernetes', 'aiohttp'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
