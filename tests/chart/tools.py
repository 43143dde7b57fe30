"""Helm and kubectl as the tests use them."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "serin"
CRD = ROOT / "crds" / "modeldeployments.serin.dev.yaml"
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))

# What a template sees where no cluster tells: the oldest version that the chart takes.
KUBERNETES = "1.29.0"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    def must_succeed(self) -> "Answer":
        assert self.code == 0, f"exit code {self.code}: {self.err or self.out}"
        return self


def run(argv: Sequence[str], stdin: str = "", env: dict[str, str] | None = None) -> Answer:
    """Run a command for at most two minutes."""
    done = subprocess.run(
        argv,
        input=stdin,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Helm:
    """The helm binary, for commands that need no cluster."""

    binary: str

    def __call__(self, *args: str) -> Answer:
        # Templates must not depend on the cluster that happens to be there.
        return run([self.binary, *args], env={"KUBECONFIG": os.devnull})

    def template(self, *args: str, release: str = "serin", namespace: str = "serin-system") -> list[Manifest]:
        """The rendered manifests."""
        flags = ["--namespace", namespace, "--kube-version", KUBERNETES]
        answer = self("template", release, str(CHART), *flags, *args).must_succeed()
        return [document for document in yaml.safe_load_all(answer.out) if document]


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str
    user: str = ""

    def __call__(self, *args: str, stdin: str = "") -> Answer:
        impersonate = ["--as", self.user] if self.user else []
        return run(["kubectl", "--namespace", self.namespace, *impersonate, *args], stdin=stdin)

    def dry_run(self, manifest: Manifest, *args: str) -> Answer:
        """Whether the API server would create an object, and the object with its defaults."""
        return self("create", "--dry-run=server", "-o", "json", *args, "-f", "-", stdin=json.dumps(manifest))

    def apply(self, *manifests: Manifest, dry_run: bool = False) -> Answer:
        """Server-side apply."""
        text = yaml.safe_dump_all(manifests)
        mode = ["--dry-run=server"] if dry_run else []
        flags = ["--server-side", "--force-conflicts", "--field-manager=serin-tests", *mode]
        return self("apply", *flags, "-f", "-", stdin=text)

    def get(self, *args: str) -> Manifest:
        """An object as JSON."""
        found: Manifest = json.loads(self("get", *args, "-o", "json").must_succeed().out)
        return found


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (manifest,) = of_kind(manifests, kind)
    return manifest


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())
