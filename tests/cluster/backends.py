"""The two ways to a cluster, behind one interface."""

import os
from pathlib import Path
from typing import Protocol

from . import binaries, buildah, kind, preflight
from .images import Build
from .local import cluster, containerd
from .local.layout import Layout
from .report import Failure, say
from .transfer import transfer

_VARIABLE = "SERIN_CLUSTER_BACKEND"


class Backend(Protocol):
    """Every method but the first three expects that `require` has passed; those that make things, `check` too."""

    def kubeconfig(self, name: str) -> Path: ...

    def require(self) -> None:
        """Raise a Failure where this back end can't even look at a cluster or end it."""

    def check(self) -> str:
        """Return how clusters are made here, or raise a Failure that says all that the machine lacks.

        Starts and installs nothing.
        """

    def up(self, name: str) -> None: ...

    def down(self, name: str) -> None: ...

    def print_status(self, name: str) -> bool:
        """Print how the cluster is, and return whether it is well."""

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

    def require(self) -> None:
        preflight.require_kind()

    def check(self) -> str:
        preflight.check_kind()
        return f"clusters come from kind, with {kind.NODE_IMAGE.partition('@')[0]}"

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

    def require(self) -> None:
        preflight.require_root()

    def check(self) -> str:
        preflight.check_local()
        state = "are in the cache" if binaries.components_are_built() else "have to be built, which takes many minutes"
        return f"clusters are made of Kubernetes {binaries.pinned('k8s.io/kubernetes')} itself; its programs {state}"

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
        sent = transfer(tag, buildah.exporter(tag), containerd.importer(layout), containerd.digests(layout))
        loaded.write_text(image_id)
        say(f"{tag} is in cluster {name}, {sent / 1e6:.0f} MB of it new there")
