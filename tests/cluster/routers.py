"""Programs and definitions of other projects' routers, from pinned Go modules: for the tests that need them alone.

Built and fetched once per set of versions, into the cache; nothing of them is in the repository.
"""

import hashlib
import json
import os
import platform
import shutil
from pathlib import Path

from . import golang
from .commands import run, run_long
from .places import cache, locked

_HERE = Path(__file__).parent
_CONTOUR = "github.com/projectcontour/contour"
_FLAGS = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}


def contour() -> Path:
    """A directory with `contour`, a gateway's controller, and its definitions in gateway.yaml and contour.yaml."""
    sources = _HERE / "contour"
    directory = _place("contour", sources)
    with locked(directory.parent):
        if not directory.is_dir():
            unfinished = directory.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            run_long(
                "building Contour, which takes minutes the first time",
                [golang.command(), "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", f"{unfinished}/",
                 f"{_CONTOUR}/cmd/contour"],
                cache() / "logs" / "contour.log",
                cwd=sources,
                env=_FLAGS,
            )  # fmt: skip
            examples = _module(_CONTOUR, sources) / "examples"
            shutil.copyfile(examples / "gateway" / "00-crds.yaml", unfinished / "gateway.yaml")
            shutil.copyfile(examples / "contour" / "01-crds.yaml", unfinished / "contour.yaml")
            unfinished.rename(directory)
    return directory


def gateway_api() -> list[Path]:
    """Files with the definitions of the Gateway API's kinds, of the version that Contour knows."""
    standard = _module("sigs.k8s.io/gateway-api", _HERE / "contour") / "config" / "crd" / "standard"
    return sorted(standard.glob("*.yaml"))


def istio() -> Path:
    """A file with the definitions of Istio's kinds."""
    return _module("istio.io/api", _HERE / "istio") / "kubernetes" / "customresourcedefinitions.gen.yaml"


def _module(name: str, sources: Path) -> Path:
    """The directory of a module of a go.mod, downloaded if need be and checked against its go.sum."""
    told = run(
        [golang.command(), "mod", "download", "-json", name], cwd=sources, env=_FLAGS | {"PATH": os.environ["PATH"]}
    )
    return Path(json.loads(told)["Dir"])


def _place(kind: str, sources: Path) -> Path:
    digest = hashlib.sha256(f"{platform.machine()} {_FLAGS}".encode())
    for name in ("go.mod", "go.sum"):
        digest.update((sources / name).read_bytes())
    return cache() / kind / digest.hexdigest()[:16]
