"""What there is to say about image builds, whichever program carries them out."""

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .places import REPOSITORY
from .report import Failure

# Every image of ours that the end-to-end tests and the demo use, by the Dockerfile that it is built from.
DOCKERFILES = {
    "operator": "operator/Dockerfile",
    "model-server": "model-server/Dockerfile",
    "router": "router/Dockerfile",
    "demo": "demo/Dockerfile",
    "prometheus": "tests/e2e/prometheus/Dockerfile",
}


@dataclass(frozen=True)
class Build:
    """One image to build."""

    tag: str
    file: Path
    context: Path
    args: dict[str, str] = field(default_factory=dict)

    def digest(self, base: str) -> str:
        """A hash of everything that the build reads: while it stays the same, so would the image.

        `base` is the id of the image that it starts from. Raises a Failure where a COPY names no file.
        """
        digest = hashlib.sha256(repr((base, sorted(self.args.items()))).encode())
        ignored = self.context / ".dockerignore"
        digest.update(self.file.read_bytes() + (ignored.read_bytes() if ignored.exists() else b""))
        for source in copied(self.file.read_text()):
            for path in _files(self.context, source):
                kind = f"link to {path.readlink()}" if path.is_symlink() else f"mode {path.stat().st_mode:o}"
                digest.update(f"\0{path.relative_to(self.context)}\0{kind}\0".encode())
                if not path.is_symlink():
                    digest.update(path.read_bytes())
        return digest.hexdigest()


def ours(only: Collection[str] = ()) -> list[Build]:
    """The builds of the images of ours, or of some of them, tagged localhost/serin/NAME:dev."""
    if unknown := set(only) - DOCKERFILES.keys():
        raise Failure(f"no such image of ours: {', '.join(sorted(unknown))}; there are {', '.join(DOCKERFILES)}")
    return [
        Build(f"localhost/serin/{name}:dev", REPOSITORY / file, REPOSITORY)
        for name, file in DOCKERFILES.items()
        if not only or name in only
    ]


def copied(dockerfile: str) -> list[str]:
    """The sources that a Dockerfile's COPY and ADD instructions read from the context, in order."""
    sources: list[str] = []
    for instruction in re.sub(r"\\[ \t]*\n([ \t]*#.*\n)*", " ", dockerfile).splitlines():
        name, *words = instruction.split() or [""]
        if name.upper() not in ("COPY", "ADD") or any(word.startswith("--from=") for word in words):
            continue
        operands = [word for word in words if not word.startswith("--")]
        if operands[0].startswith(("[", "<<")):
            raise Failure(f"only the plain form of {name} is understood, without brackets or here-documents: {words}")
        sources += operands[:-1]
    return sources


def _files(context: Path, source: str) -> Iterator[Path]:
    """The files of the context that one source of a COPY stands for, in a fixed order."""
    pattern = os.path.normpath(source.lstrip("/"))
    found = [context] if pattern == "." else sorted(context.glob(pattern))
    if not found:
        raise Failure(f"COPY {source}: there is no such file in {context}")
    for path in found:
        if path.is_symlink() or not path.is_dir():
            yield path
            continue
        for directory, subdirectories, names in os.walk(path):
            # .dockerignore keeps bytecode out of the images. Links to directories come as subdirectories.
            links = [name for name in subdirectories if (Path(directory) / name).is_symlink()]
            subdirectories[:] = sorted(set(subdirectories) - {"__pycache__", *links})
            yield from (Path(directory) / name for name in sorted([*names, *links]))
