"""Helm and kubectl as the tests use them."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
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

# The plural of the tests' copy of the definition: `kubectl get modeldeployments` goes on meaning the real one.
PLURAL = "modeldeploymentcopies"

Manifest = dict[str, Any]
Schema = dict[str, Any]
# Creates a ModelDeployment by its name and parts of its spec.
Make = Callable[..., Manifest]


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
    """kubectl in one namespace, with a copy of the definition in an API group of the tests' own.

    An operator in the same cluster leaves objects of that group alone.
    """

    namespace: str
    group: str
    user: str = ""

    def __call__(self, *args: str, stdin: str = "") -> Answer:
        impersonate = ["--as", self.user] if self.user else []
        return run(["kubectl", "--namespace", self.namespace, *impersonate, *args], stdin=stdin)

    @property
    def resource(self) -> str:
        """What to `kubectl get` for the tests' ModelDeployments."""
        return f"{PLURAL}.{self.group}"

    def wait_known(self, *resources: str) -> None:
        """Until the kinds of these definitions can be used: they are found a moment after they are established."""
        self("wait", "--for=condition=Established", "crd", *resources, "--timeout=60s").must_succeed()
        deadline = time.monotonic() + 30
        for resource in resources:
            while (answer := self("get", resource)).code != 0 and time.monotonic() < deadline:
                time.sleep(0.2)
            answer.must_succeed()

    def dry_run(self, manifest: Manifest) -> Answer:
        """Whether the API server would create an object, and the object with its defaults."""
        flags = ["--dry-run=server", "-o", "json"]
        return self("create", *flags, "-f", "-", stdin=json.dumps(self._own(manifest)))

    def create(self, manifest: Manifest) -> Answer:
        """Create an object for real."""
        return self("create", "-f", "-", stdin=json.dumps(self._own(manifest)))

    def apply(self, *manifests: Manifest, dry_run: bool = False) -> Answer:
        """Server-side apply."""
        text = yaml.safe_dump_all([self._own(manifest) for manifest in manifests])
        mode = ["--dry-run=server"] if dry_run else []
        flags = ["--server-side", "--force-conflicts", "--field-manager=serin-tests", *mode]
        return self("apply", *flags, "-f", "-", stdin=text)

    def get(self, *args: str) -> Manifest:
        """An object as JSON."""
        found: Manifest = json.loads(self("get", *args, "-o", "json").must_succeed().out)
        return found

    def _own(self, manifest: Manifest) -> Manifest:
        if manifest["kind"] != "ModelDeployment":
            return manifest
        _, version = manifest["apiVersion"].split("/")
        return {**manifest, "apiVersion": f"{self.group}/{version}"}


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (manifest,) = of_kind(manifests, kind)
    return manifest


def named(manifests: Sequence[Manifest], kind: str, name: str) -> Manifest:
    """The one of a kind with this name."""
    return only([manifest for manifest in manifests if manifest["metadata"]["name"] == name], kind)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def walk(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every schema below a path with its own path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(f"{path}.{name}", field)
    if "items" in schema:
        yield from walk(f"{path}[]", schema["items"])
    if "additionalProperties" in schema:
        yield from walk(f"{path}{{}}", schema["additionalProperties"])
