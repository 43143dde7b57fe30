"""A local cluster as its users see it: it comes up, runs a strict pod, comes back from a crash, leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.backends import Local, choose
from tests.cluster.local import cgroups, pause
from tests.cluster.local.cluster import leftovers
from tests.cluster.local.layout import Layout
from tests.cluster.places import REPOSITORY
from tests.cluster.report import Failure

NAME = f"lifecycle-{os.getpid()}"
LAYOUT = Layout(NAME)

# What Pod Security "restricted" asks for, with the pause image, because every cluster has it.
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "strict"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "pause",
                "image": pause.IMAGE,
                "imagePullPolicy": "Never",
                "resources": {"limits": {"memory": "32Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
            }
        ],
    },
}


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call the command line as a person does; captured, so it would hang if a daemon held on to its output."""
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def kubectl(*words: str, stdin: str = "") -> str:
    tools = command("bin-dir").stdout.strip()
    done = subprocess.run(
        [f"{tools}/kubectl", f"--kubeconfig={LAYOUT.kubeconfig}", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def name() -> Iterator[str]:
    if not isinstance(choose(), Local):
        pytest.skip("this machine's clusters come from kind")
    yield NAME
    assert command("down", "--name", NAME).returncode == 0


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_life_of_a_second_cluster(name: str) -> None:
    started = command("up", "--name", name)
    assert started.returncode == 0, started.stderr
    kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted")
    kubectl("apply", "-f", "-", stdin=json.dumps(POD))
    kubectl("wait", "pod/strict", "--for=condition=Ready", "--timeout=50s")
    assert "is up already" in command("up", "--name", name).stderr

    for file in LAYOUT.pids.iterdir():
        os.kill(int(file.read_text()), signal.SIGKILL)
    assert command("status", "--name", name).returncode == 1
    restarted = command("up", "--name", name)
    assert restarted.returncode == 0, restarted.stderr
    assert kubectl("get", "pods", "--output=name") == "", "the new cluster knows nothing of the old one"

    assert command("down", "--name", name).returncode == 0
    assert leftovers(LAYOUT) == []
    assert command("status", "--name", name).returncode == 1


@pytest.mark.parametrize("unfit", ["", "-a", "a_b", "../x", "a" * 31])
def test_names_that_could_lead_elsewhere_are_refused(unfit: str) -> None:
    with pytest.raises(Failure, match="can't name a cluster"):
        Layout(unfit)


def test_cgroups_of_both_versions_are_found() -> None:
    mountinfo = (
        "30 25 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw\n"
        "31 30 0:27 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
        "32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert cgroups.hierarchies(mountinfo) == [
        cgroups.Hierarchy(Path("/sys/fs/cgroup/memory"), 1),
        cgroups.Hierarchy(Path("/sys/fs/cgroup/unified"), 2),
    ]
