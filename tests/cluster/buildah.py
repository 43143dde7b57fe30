"""Builds ordinary Dockerfiles without Docker: on a base image made from Debian's packages, by buildah."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from .commands import run, run_long
from .images import Build
from .places import cache, locked
from .report import Failure, say

BASE = "localhost/serin-base:bookworm"
_SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
_BASE_DOCKERFILE = 'FROM scratch\nADD base.tar /\nCMD ["/bin/bash"]\n'
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Base images that the Dockerfiles name by these arguments come from a registry, and there is none here.
_BASE_ARGUMENTS = ("BASE", "RUNTIME_BASE")


def build(wanted: Build) -> None:
    """Build an image, or find that the one there is was made from the same files."""
    with locked(_store()):
        _ensure_base()
        recipe = wanted.digest(image_id(BASE))
        if _is_made_from(wanted.tag, recipe):
            say(f"{wanted.tag} is up to date")
            return
        arguments = dict.fromkeys(_BASE_ARGUMENTS, BASE) | wanted.args
        options = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        _bud(f"building {wanted.tag}", wanted.tag, wanted.file, wanted.context, ["--layers", *options, *_mounts()])
        _note(wanted.tag, recipe)


def image_id(tag: str) -> str:
    """The id of the image that a tag names now."""
    found = _image_ids().get(tag)
    if found is None:
        raise Failure(f"there is no image {tag}: build it first")
    return found


def exporter(tag: str) -> list[str]:
    """The command that prints an image as a Docker archive."""
    return [*_command(), "push", "--quiet", tag, f"docker-archive:/dev/stdout:{tag}"]


def _ensure_base() -> None:
    recipe = hashlib.sha256(repr((_SUITE, _PACKAGES, _BASE_DOCKERFILE)).encode()).hexdigest()[:16]
    if _is_made_from(BASE, recipe):
        return
    context = cache() / "base" / recipe
    context.mkdir(parents=True, exist_ok=True)
    tarball = context / "base.tar"
    if not tarball.exists():
        unfinished = context / "unfinished.tar"
        run_long(
            f"making a base image from Debian {_SUITE} packages",
            ["mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, str(unfinished)],
            cache() / "logs" / "mmdebstrap.log",
        )
        unfinished.rename(tarball)
    file = context / "Dockerfile"
    file.write_text(_BASE_DOCKERFILE)
    _bud(f"importing {BASE}", BASE, file, context, [])
    _note(BASE, recipe)


def _image_ids() -> dict[str, str]:
    # The list, because inspecting an image that is not there would go and look for it in a registry.
    lines = _buildah("images", "--no-trunc", "--format={{.Name}}:{{.Tag}} {{.ID}}").splitlines()
    return dict(line.split() for line in lines)


def _is_made_from(tag: str, recipe: str) -> bool:
    """Whether the image of this tag is the one that was noted with this recipe."""
    note = _note_file(tag)
    return note.exists() and note.read_text() == f"{recipe} {_image_ids().get(tag)}"


def _note(tag: str, recipe: str) -> None:
    """Note what an image was made from: beside it, so that the image is the same whatever led to it."""
    note = _note_file(tag)
    note.parent.mkdir(exist_ok=True)
    note.write_text(f"{recipe} {image_id(tag)}")


def _note_file(tag: str) -> Path:
    return _store() / "recipes" / tag.replace("/", "_")


def _mounts() -> list[str]:
    """What RUN steps see of the machine and the image doesn't keep: certificates, pip's settings and its cache."""
    pip_cache = cache() / "pip"
    pip_cache.mkdir(parents=True, exist_ok=True)
    mounts = [f"{pip_cache}:/root/.cache/pip:rw"]
    certificates = Path(os.environ.get("SSL_CERT_FILE") or _CERTIFICATES)
    if certificates.exists():
        mounts.append(f"{certificates}:{_CERTIFICATES}:ro")
    settings = {"cert": str(_CERTIFICATES)}
    for variable, value in os.environ.items():
        if variable.startswith("PIP_") and variable not in ("PIP_CERT", "PIP_CONFIG_FILE", "PIP_CACHE_DIR"):
            settings[variable.removeprefix("PIP_").lower().replace("_", "-")] = value
    for directory in settings.get("find-links", "").split():
        if Path(directory).is_dir():
            mounts.append(f"{directory}:{directory}:ro")
    file = cache() / "pip.conf"
    file.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items())))
    mounts.append(f"{file}:/etc/pip.conf:ro")
    return [f"--volume={mount}" for mount in mounts]


def _bud(what: str, tag: str, file: Path, context: Path, options: Sequence[str]) -> None:
    run_long(
        what,
        [*_command(), "bud", "--isolation=chroot", "--format=docker", "--pull-never",
         f"--tag={tag}", f"--file={file}", *options, str(context)],
        cache() / "logs" / f"build-{tag.replace('/', '-').replace(':', '-')}.log",
    )  # fmt: skip


def _buildah(*words: str) -> str:
    return run([*_command(), *words])


def _command() -> list[str]:
    return ["buildah", f"--root={_store()}/root", f"--runroot={_store()}/run", "--storage-driver=overlay"]


def _store() -> Path:
    return cache() / "buildah"
