"""The two ways to a cluster, behind one interface."""

import os
from pathlib import Path
from typing import Protocol

from . import binaries, buildah, kind, preflight
from .images import Build
from .local import cluster, containerd
from .local.layout import Layout
from .report import Failure, say

_VARIABLE = "SERIN_CLUSTER_BACKEND"


class Backend(Protocol):
    """Every method but `check` expects that `check` has passed."""

    def check(self) -> None:
        """Raise a Failure that says what this machine lacks; start and install nothing."""

    def up(self, name: str) -> None: ...

    def down(self, name: str) -> None: ...

    def print_status(self, name: str) -> bool:
        """Print how the cluster is, and return whether it is well."""

    def kubeconfig(self, name: str) -> Path: ...

    def tools(self) -> Path:
        """A directory with kubectl and helm."""

    def build_image(self, wanted: Build) -> None: ...

    def load_image(self, name: str, tag: str) -> None: ...


def choose() -> Backend:
    """Docker's if its engine answers, else the local one; `$SERIN_CLUSTER_BACKEND` decides otherwise."""
    wanted = os.environ.get(_VARIABLE, "")
    if wanted not in ("", "kind", "local"):
        raise Failure(f"{_VARIABLE} is {wanted!r}; it can be kind or local")
    if wanted == "kind" or (not wanted and preflight.docker_is_reachable()):
        return Kind()
    return Local()


class Kind:
    """Kubernetes in Docker."""

    def check(self) -> None:
        preflight.check_kind()

    def up(self, name: str) -> None:
        kind.up(name)

    def down(self, name: str) -> None:
        kind.down(name)

    def print_status(self, name: str) -> bool:
        well = kind.is_healthy(name)
        print(f"kind cluster {name}: {'well' if well else 'not running, or not well'}")
        print(f"kubeconfig: {kind.kubeconfig(name)}")
        return well

    def kubeconfig(self, name: str) -> Path:
        return kind.kubeconfig(name)

    def tools(self) -> Path:
        return binaries.tools()

    def build_image(self, wanted: Build) -> None:
        kind.build_image(wanted)

    def load_image(self, name: str, tag: str) -> None:
        kind.load_image(name, tag)


class Local:
    """Real components in namespaces of their own."""

    def check(self) -> None:
        preflight.check_local()

    def up(self, name: str) -> None:
        preflight.install_for_cluster()
        cluster.up(name)

    def down(self, name: str) -> None:
        cluster.down(name)

    def print_status(self, name: str) -> bool:
        states = cluster.status(name)
        if not states:
            print(f"cluster {name} is not running")
            return False
        for state in states:
            print(f"{state.name:24} {state.pid or '-':>8}  {state.trouble or 'well'}")
        print(f"kubeconfig: {self.kubeconfig(name)}")
        return not any(state.trouble for state in states)

    def kubeconfig(self, name: str) -> Path:
        return Layout(name).kubeconfig

    def tools(self) -> Path:
        return binaries.pinned_tools()

    def build_image(self, wanted: Build) -> None:
        preflight.install_for_images()
        buildah.build(wanted)

    def load_image(self, name: str, tag: str) -> None:
        layout = Layout(name)
        if not layout.kubeconfig.exists():
            raise Failure(f"cluster {name} is not up, so {tag} can't be loaded")
        image_id = buildah.image_id(tag)
        loaded = layout.images / f"{tag.replace('/', '_')}.id"
        if loaded.exists() and loaded.read_text() == image_id:
            say(f"{tag} is in cluster {name} already")
            return
        archive = layout.images / "loading.tar"
        buildah.export(tag, archive)
        containerd.import_image(layout, archive)
        archive.unlink()
        loaded.write_text(image_id)
        say(f"{tag} is in cluster {name}")
