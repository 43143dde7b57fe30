"""What there is to say about an image build, whichever program carries it out."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Build:
    """One call of `build-image`."""

    tag: str
    file: Path
    context: Path
    args: dict[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """A hash of everything that the build reads: while it stays the same, so would the image."""
        digest = hashlib.sha256(repr((self.tag, sorted(self.args.items()))).encode())
        digest.update(self.file.read_bytes())
        for path in _files(self.context):
            kind = f"link to {path.readlink()}" if path.is_symlink() else f"mode {path.stat().st_mode:o}"
            digest.update(f"\0{path.relative_to(self.context)}\0{kind}\0".encode())
            if not path.is_symlink():
                digest.update(path.read_bytes())
        return digest.hexdigest()


def _files(context: Path) -> Iterator[Path]:
    """The files of a build context in a fixed order, without those that git ignores."""
    listed = subprocess.run(
        ["git", "-C", str(context), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [context / name for name in sorted(listed.stdout.split("\0")) if name]
        yield from (path for path in paths if path.is_symlink() or path.is_file())
        return
    for directory, subdirectories, names in os.walk(context):
        subdirectories.sort()
        yield from (Path(directory) / name for name in sorted(names))
