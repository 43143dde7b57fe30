"""What decides whether an image is built again, and how one travels into containerd."""

import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
from tests.cluster.images import DOCKERFILES, Build, copied, ours
from tests.cluster.places import REPOSITORY
from tests.cluster.report import Failure
from tests.cluster.transfer import transfer

DOCKERFILE = """\
FROM base AS build
COPY requirements.txt /tmp/
COPY --chmod=0755 app \\
  # two things at once
  extra/*.py /opt/
FROM base
copy --from=build /opt /opt
"""


@pytest.fixture
def build(tmp_path: Path) -> Build:
    for name in ("requirements.txt", "app/main.py", "app/__pycache__/main.pyc", "extra/one.py", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return Build("localhost/test:1", tmp_path / "Dockerfile", tmp_path)


def test_sources_are_those_that_come_from_the_context() -> None:
    assert copied(DOCKERFILE) == ["requirements.txt", "app", "extra/*.py"]


def test_every_copy_in_our_dockerfiles_is_understood_and_names_files() -> None:
    assert [len(build.digest("base")) for build in ours()] == [64] * len(DOCKERFILES)
    assert copied((REPOSITORY / DOCKERFILES["router"]).read_text()) == ["requirements/router.txt", "router/drain"]


@pytest.mark.parametrize("unread", ["README", "app/__pycache__/main.pyc"])
def test_what_the_build_does_not_read_does_not_count(build: Build, unread: str) -> None:
    before = build.digest("base")
    (build.context / unread).write_text("changed")
    os.utime(build.context / "app" / "main.py", (1, 1))
    assert build.digest("base") == before


@pytest.mark.parametrize("read", ["Dockerfile", "requirements.txt", "app/main.py", "extra/one.py", "extra/two.py"])
def test_what_the_build_reads_counts(build: Build, read: str) -> None:
    before = build.digest("base")
    with (build.context / read).open("a") as file:
        file.write("# changed")
    assert build.digest("base") != before


def test_modes_arguments_and_the_base_count(build: Build) -> None:
    before = build.digest("base")
    assert build.digest("newer base") != before
    assert Build(build.tag, build.file, build.context, {"A": "1"}).digest("base") != before
    (build.context / "app" / "main.py").chmod(0o700)
    assert build.digest("base") != before


def test_a_source_that_is_not_there_is_told(build: Build) -> None:
    (build.context / "requirements.txt").unlink()
    with pytest.raises(Failure, match=r"COPY requirements.txt: there is no such file"):
        build.digest("base")


@pytest.mark.parametrize("form", ['COPY ["a", "b"]', "COPY <<EOF /a"])
def test_a_form_that_is_not_understood_is_told(form: str) -> None:
    with pytest.raises(Failure, match="plain form"):
        copied(form)


def archive(path: Path, *layers: bytes) -> list[str]:
    """Write a Docker archive, as `docker save` and buildah do, and return the digests of its layers."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    manifest = [{"Config": "c.json", "RepoTags": ["x"], "Layers": [f"{digest}.tar" for digest in digests]}]
    files = {f"{digest}.tar": layer for digest, layer in zip(digests, layers, strict=True)}
    files |= {"c.json": b"{}", "0/layer": b"for older readers", "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return [f"sha256:{digest}" for digest in digests]


def test_layers_that_are_there_are_named_but_not_sent(tmp_path: Path) -> None:
    shared, own = archive(tmp_path / "in.tar", b"shared" * 1000, b"own")
    keep = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1], 'wb'))"
    importer = [sys.executable, "-c", keep, str(tmp_path / "out.tar")]
    assert transfer("localhost/x:1", ["cat", str(tmp_path / "in.tar")], importer, {shared}) == len(b"own")

    with tarfile.open(tmp_path / "out.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(content).hexdigest() == name.rpartition("/")[2] for name, content in blobs.items())
    (entry,) = json.loads(files["index.json"])["manifests"]
    assert entry["annotations"] == {"io.containerd.image.name": "localhost/x:1"}
    manifest = json.loads(blobs[f"blobs/{entry['digest'].replace(':', '/')}"])
    assert [(layer["digest"], layer["size"]) for layer in manifest["layers"]] == [(shared, 6000), (own, 3)]
    assert blobs[f"blobs/{own.replace(':', '/')}"] == b"own"
    assert f"blobs/{shared.replace(':', '/')}" not in blobs


@pytest.mark.parametrize(
    ("exporter", "importer"),
    [(["sh", "-c", "echo no such image >&2; exit 3"], ["cat"]), (None, ["sh", "-c", "echo no space >&2; exit 4"])],
)
def test_what_either_side_said_is_told(tmp_path: Path, exporter: list[str] | None, importer: list[str]) -> None:
    archive(tmp_path / "in.tar", os.urandom(2**20))
    with pytest.raises(Failure, match=r"localhost/x:1 can't be loaded(.|\n)*no s"):
        transfer("localhost/x:1", exporter or ["cat", str(tmp_path / "in.tar")], importer, frozenset())
