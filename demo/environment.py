"""A cluster with Serin in it: the glue between the demo, the end-to-end tests and `tests.cluster`.

Nothing here knows what is behind the kubeconfig. Every function says what it does, because some take minutes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
RELEASE = "serin"
SERIN_NAMESPACE = "serin-system"
OPERATORS = "app.kubernetes.io/component=operator"  # the label of its pods
TAG = "dev"
IMAGES = ("operator", "model-server", "router", "demo")
Manifest = dict[str, Any]


class CommandError(Exception):
    """A program that was needed did not do its part; the text has the end of what it said."""


@dataclass(frozen=True)
class Cluster:
    """Where kubectl and helm talk to."""

    kubeconfig: str
    bin_dir: str

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl or helm and return its output. Raises CommandError."""
        path = f"{self.bin_dir}{os.pathsep}{os.environ.get('PATH', '')}"
        return _run(argv, {"KUBECONFIG": self.kubeconfig, "PATH": path}, stdin, timeout)

    def kubectl(self, *argv: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Run kubectl and return its output. Raises CommandError."""
        return self.run("kubectl", *argv, stdin=stdin, timeout=timeout)

    def apply(self, manifests: Sequence[Manifest]) -> None:
        """Apply manifests server-side, as one list."""
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=items)

    def get(self, kind: str, name: str, namespace: str) -> Manifest:
        """Read one object. Raises CommandError when it is not there."""
        found: Manifest = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        return found

    def pod_get(self, namespace: str, pod: str, port: int, path: str) -> Any:
        """GET a pod's HTTP path through the API server, and decode its JSON."""
        return json.loads(self.kubectl("get", "--raw", _proxy(namespace, pod, port, path)))

    def pod_post(self, namespace: str, pod: str, port: int, path: str, body: object) -> Any:
        """POST JSON to a pod's HTTP path through the API server, and decode its JSON."""
        url = _proxy(namespace, pod, port, path)
        return json.loads(self.kubectl("create", "--raw", url, "-f", "-", stdin=json.dumps(body)))


def _proxy(namespace: str, pod: str, port: int, path: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}"


def image(name: str) -> str:
    """The reference of one of the project's images."""
    return f"localhost/serin/{name}:{TAG}"


def ensure_cluster(name: str = "serin") -> tuple[Cluster, bool]:
    """Find the cluster running or start it. Returns it, and whether this call started it."""
    was_up = _cluster_is_well(name)
    if not was_up:
        _cluster_command("up", "--name", name)
    kubeconfig = _cluster_output("status", "--kubeconfig", "--name", name)
    return Cluster(kubeconfig, _cluster_output("bin-dir")), not was_up


def remove_cluster(name: str = "serin") -> None:
    """End the cluster and everything in it."""
    _cluster_command("down", "--name", name)


def build_and_load_images(name: str = "serin") -> None:
    """Build the images from this checkout, those that changed, and put them into the cluster."""
    _cluster_command("images", "--name", name, *IMAGES)


def serin_is_installed(cluster: Cluster) -> bool:
    """Whether the Helm release is there, in whatever state."""
    listed = cluster.run("helm", "list", "--all", "--short", "--namespace", SERIN_NAMESPACE)
    return RELEASE in listed.split()


def install_serin(cluster: Cluster, values: Mapping[str, str] | None = None, switches: Sequence[str] = ()) -> None:
    """Install or upgrade Serin from this checkout's chart and images, and wait until it runs.

    `values` are further Helm values, as `--set-string` takes them; `switches` are values to set to true.
    """
    settings = {
        f"images.{key}.{part}": value
        for key, name in (("operator", "operator"), ("server", "model-server"), ("router", "router"))
        for part, value in (("repository", f"localhost/serin/{name}"), ("tag", TAG))
    }
    # The tag stays the same while the image changes, so the pod has to be replaced in any case.
    settings["podAnnotations.serin\\.dev/installed"] = str(time.time_ns())
    settings |= values or {}
    chart = str(REPOSITORY / "charts" / "serin")
    options = [word for key, value in settings.items() for word in ("--set-string", f"{key}={value}")]
    options += [word for key in switches for word in ("--set", f"{key}=true")]
    command = ("helm", "upgrade", "--install", RELEASE, chart, "--namespace", SERIN_NAMESPACE)
    cluster.run(*command, "--create-namespace", "--wait", "--timeout", "3m", *options, timeout=240)


def uninstall_serin(cluster: Cluster) -> None:
    """Remove the release and its namespace; the definition of ModelDeployments stays, as the chart has it."""
    cluster.run("helm", "uninstall", RELEASE, "--namespace", SERIN_NAMESPACE, "--wait", timeout=240)
    remove_namespace(cluster, SERIN_NAMESPACE)


def remove_namespace(cluster: Cluster, namespace: str) -> None:
    """Delete a namespace, if it is there, and wait until it is gone."""
    cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s", timeout=200)


def _cluster_is_well(name: str) -> bool:
    command = _cluster_cli("status", "--name", name)
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def _cluster_output(*words: str) -> str:
    return _run(_cluster_cli(*words), {}, None, 60).strip()


def _cluster_command(*words: str) -> None:
    """Run a command of the cluster's that tells by itself how far it is."""
    if subprocess.run(_cluster_cli(*words), cwd=REPOSITORY, check=False).returncode != 0:
        raise CommandError(f"`python -m tests.cluster {' '.join(words)}` failed; what it said is above")


def _cluster_cli(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.cluster", *words]


def _run(argv: Sequence[str], env: Mapping[str, str], stdin: str | None, timeout: float) -> str:
    command = " ".join(argv[:5])
    try:
        done = subprocess.run(
            argv,
            cwd=REPOSITORY,
            env={**os.environ, **env},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{command} …` did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise CommandError(f"`{command} …` failed with exit code {done.returncode}:\n{said}")
    return done.stdout
