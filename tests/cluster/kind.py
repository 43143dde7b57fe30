"""The back end for machines with Docker: kind, and images that Docker builds."""

from collections.abc import Sequence
from pathlib import Path

from .commands import run, run_long, succeeds
from .images import Build
from .places import cache
from .report import say

# The default of kind v0.30.0, which its release pins to this digest (kind's pkg/apis/config/defaults/image.go).
NODE_IMAGE = "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
_CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
"""


def kubeconfig(name: str) -> Path:
    return cache() / "kind" / f"{name}.kubeconfig"


def up(name: str) -> None:
    if is_healthy(name):
        say(f"cluster {name} is up already: {kubeconfig(name)}")
        return
    if _exists(name):
        say(f"cluster {name} is not well; making it anew")
        down(name)
    directory = kubeconfig(name).parent
    directory.mkdir(parents=True, exist_ok=True)
    _forget(name)
    config = directory / f"{name}.yaml"
    config.write_text(_CONFIG)
    run_long(
        f"making kind cluster {name}",
        ["kind", "create", "cluster", f"--name={name}", f"--image={NODE_IMAGE}", f"--config={config}",
         f"--kubeconfig={kubeconfig(name)}", "--wait=180s"],
        cache() / "logs" / f"kind-{name}.log",
    )  # fmt: skip
    say(f"cluster {name} is up: {kubeconfig(name)}")


def down(name: str) -> None:
    run(["kind", "delete", "cluster", f"--name={name}", f"--kubeconfig={kubeconfig(name)}"])
    _forget(name)
    say(f"cluster {name} is down")


def is_healthy(name: str) -> bool:
    """Whether the cluster is there and its node, asked of Docker and of the API server in it, is well."""
    node = f"{name}-control-plane"
    ready = ["kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "wait", "node", "--all", "--for=condition=Ready",
             "--timeout=5s"]  # fmt: skip
    return kubeconfig(name).exists() and _exists(name) and succeeds(["docker", "exec", node, *ready], timeout=20)


def build_image(wanted: Build) -> None:
    """Build with Docker, on the Dockerfile's own base images; Docker's cache knows what is unchanged."""
    arguments = [f"--build-arg={key}={value}" for key, value in wanted.args.items()]
    command: Sequence[str] = ["docker", "build", f"--tag={wanted.tag}", f"--file={wanted.file}", *arguments]
    run_long(
        f"building {wanted.tag}",
        [*command, str(wanted.context)],
        cache() / "logs" / f"build-{wanted.tag.replace('/', '-').replace(':', '-')}.log",
        # With an attestation, `docker save` names a manifest that it leaves out, and containerd refuses the archive
        # (kubernetes-sigs/kind issue 3795).
        env={"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
    )


def load_image(name: str, tag: str) -> None:
    """Put an image into the cluster, unless it has been. Noted here: kind can't always tell (its issue 4236)."""
    image_id = run(["docker", "image", "inspect", "--format={{.Id}}", tag])
    loaded = kubeconfig(name).with_name(f"{name}.{tag.replace('/', '_')}.id")
    if loaded.exists() and loaded.read_text() == image_id:
        say(f"{tag} is in cluster {name} already")
        return
    run(["kind", "load", "docker-image", tag, f"--name={name}"])
    loaded.write_text(image_id)
    say(f"{tag} is in cluster {name}")


def _forget(name: str) -> None:
    """Remove what is kept of a cluster."""
    for file in kubeconfig(name).parent.glob(f"{name}.*"):
        file.unlink()


def _exists(name: str) -> bool:
    return name in run(["kind", "get", "clusters"]).split()
