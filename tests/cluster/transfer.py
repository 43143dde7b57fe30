"""Carries an image from buildah into containerd, as one stream and without the layers that containerd has.

What buildah writes is a Docker archive, which has to be whole. It becomes an OCI layout (image-spec,
image-layout.md), whose blobs may be missing where the reader has them already.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence, Set
from typing import IO

from .report import Failure, indent

_OCI = "application/vnd.oci.image"


def transfer(tag: str, exporter: Sequence[str], importer: Sequence[str], present: Set[str]) -> int:
    """Pipe the Docker archive that `exporter` prints into `importer`, and return how many bytes of layers that took.

    `present` holds the digests that the importer's side has ("sha256:…"). Raises a Failure with what both said.
    """
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(exporter, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as source,
        subprocess.Popen(importer, stdin=subprocess.PIPE, stdout=said, stderr=said) as target,
    ):
        assert source.stdout and target.stdin, "both were asked for"
        sent, trouble = 0, ""
        try:
            sent = _convert(tag, source.stdout, target.stdin, present)
            target.stdin.close()
            while source.stdout.read(2**16):
                pass  # what follows an archive's end; left unread, it would make the exporter fail
        except (tarfile.TarError, BrokenPipeError) as error:
            trouble = f"{error}\n"  # one of the two has ended early, and has said why
            source.kill()
            target.kill()
        source.wait()
        target.wait()
        if trouble or source.returncode or target.returncode:
            said.seek(0)
            raise Failure(f"{tag} can't be loaded: {trouble}{indent(said.read().splitlines()[-15:])}")
    return sent


def _convert(tag: str, source: IO[bytes], target: IO[bytes], present: Set[str]) -> int:
    sizes, documents, sent = {}, {}, 0
    with tarfile.open(fileobj=source, mode="r|") as archive, tarfile.open(fileobj=target, mode="w|") as layout:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is None or "/" in member.name:
                continue  # what older readers need
            if member.name.endswith(".tar"):
                digest = f"sha256:{member.name.removesuffix('.tar')}"
                sizes[member.name] = member.size
                if digest not in present:
                    _add(layout, _blob(digest), member.size, content)
                    sent += member.size
            else:
                documents[member.name] = content.read()
        _finish(tag, layout, sizes, documents)
    return sent


def _finish(tag: str, layout: tarfile.TarFile, sizes: dict[str, int], documents: dict[str, bytes]) -> None:
    """Write what names the layers: the configuration, the manifest and the index."""
    (image,) = json.loads(documents["manifest.json"])
    config = documents[image["Config"]]
    media_type = f"{_OCI}.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _add_document(layout, f"{_OCI}.config.v1+json", config),
        "layers": [
            {
                "mediaType": f"{_OCI}.layer.v1.tar",
                "digest": f"sha256:{layer.removesuffix('.tar')}",
                "size": sizes[layer],
            }
            for layer in image["Layers"]
        ],
    }
    entry = _add_document(layout, media_type, json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": tag}
    for name, document in (
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ("index.json", {"schemaVersion": 2, "manifests": [entry]}),
    ):
        content = json.dumps(document).encode()
        _add(layout, name, len(content), io.BytesIO(content))


def _add_document(layout: tarfile.TarFile, media_type: str, content: bytes) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _add(layout, _blob(digest), len(content), io.BytesIO(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(layout: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    layout.addfile(member, content)
