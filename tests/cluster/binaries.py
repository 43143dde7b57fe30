"""Builds the cluster's programs from pinned Go modules, once per set of versions."""

import hashlib
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from . import golang
from .commands import run_long
from .places import cache, locked
from .report import say

SOURCES = Path(__file__).parent / "components"
NAMES_OF_ONE_BINARY = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
)
_COMPONENTS = (".", "./coredns", "./forward", "./pause", "helm.sh/helm/v3/cmd/helm")
_FLAGS = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
_TOOLS = ("k8s.io/kubernetes/cmd/kubectl", "helm.sh/helm/v3/cmd/helm")


def pinned(module: str) -> str:
    """The version of a module in our go.mod, which is the only place that states it."""
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{module} is not in go.mod"
    return found[1]


def components() -> Path:
    """Return a directory with every program of the local cluster, building it if need be."""
    return _built("components", _COMPONENTS)


def components_are_built() -> bool:
    return _directory("components").is_dir()


def tools() -> Path:
    """Return a directory with kubectl and helm, and nothing else, for clusters whose other programs come in images.

    Those on PATH serve; what is missing is built.
    """
    present = {name: shutil.which(name) for name in ("kubectl", "helm")}
    if not all(present.values()):
        return _built("tools", _TOOLS)
    return _linked(cache() / "tools" / "from-path", {name: Path(path) for name, path in present.items() if path})


def pinned_tools() -> Path:
    """Return a directory with kubectl and helm as the local cluster built them."""
    built = components()
    return _linked(built / "tools", {name: built / name for name in ("kubectl", "helm")})


def _linked(directory: Path, targets: dict[str, Path]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, target in targets.items():
        link = directory / name
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return directory


def _built(kind: str, packages: Sequence[str]) -> Path:
    directory = _directory(kind)
    if directory.is_dir():
        return directory
    with locked(directory.parent):
        if not directory.is_dir():  # another command may have built it while this one waited
            _build(directory, packages)
    return directory


def _directory(kind: str) -> Path:
    return cache() / kind / _key()


def _key() -> str:
    """What the programs depend on: the pins, our own sources, the flags and the processor. Any Go will do."""
    digest = hashlib.sha256(f"{platform.machine()} {_FLAGS} {_stamps()}".encode())
    for source in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(f"{source.relative_to(SOURCES)}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _build(directory: Path, packages: Sequence[str]) -> None:
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    say("the first build of these versions takes many minutes; the result is kept")
    run_long(
        f"building Kubernetes {pinned('k8s.io/kubernetes')} from source",
        [
            golang.command(),
            "build",
            "-v",
            "-trimpath",
            "-ldflags",
            f"-s -w {_stamps()}",
            "-o",
            f"{unfinished}/",
            *packages,
        ],
        cache() / "logs" / f"go-build-{directory.parent.name}.log",
        cwd=SOURCES,
        env=_FLAGS,
        account=_packages_compiled,
    )
    if (unfinished / "components").exists():
        _linked(unfinished, dict.fromkeys(NAMES_OF_ONE_BINARY, Path("components")))
    unfinished.rename(directory)


def _packages_compiled(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return f"{len(lines)} packages done, the last {lines[-1] if lines else 'not begun'}"


def _stamps() -> str:
    """Linker flags that make the programs say their versions, as release builds do."""
    version = pinned("k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    stamps = {"helm.sh/helm/v3/internal/version.version": pinned("helm.sh/helm/v3")}
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        stamps |= {
            f"{package}.gitVersion": version,
            f"{package}.gitMajor": major,
            f"{package}.gitMinor": minor,
            f"{package}.gitTreeState": "clean",
        }
    return " ".join(f"-X {name}={value}" for name, value in stamps.items())
