"""Builds ordinary Dockerfiles without Docker: on a base image made from Debian's packages, by buildah."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from .commands import run, run_long
from .images import Build
from .places import cache, locked
from .report import say

BASE = "localhost/serin-base:bookworm"
_SUITE = "bookworm"
_PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
_BASE_DOCKERFILE = 'FROM scratch\nADD base.tar /\nCMD ["/bin/bash"]\n'
_RECIPE_LABEL = "dev.serin.recipe"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Base images that the Dockerfiles name by these arguments come from a registry, and there is none here.
_BASE_ARGUMENTS = ("BASE", "RUNTIME_BASE")


def build(wanted: Build) -> None:
    """Build an image, or find that the one there is was made from the same files."""
    with locked(_store()):
        _ensure_base()
        recipe = f"{wanted.digest()}-{_base_recipe()}"
        if _recipe_of(wanted.tag) == recipe:
            say(f"{wanted.tag} is up to date")
            return
        arguments = dict.fromkeys(_BASE_ARGUMENTS, BASE) | wanted.args
        _bud(
            f"building {wanted.tag}",
            wanted.tag,
            wanted.file,
            wanted.context,
            [
                "--layers",
                f"--label={_RECIPE_LABEL}={recipe}",
                *(f"--build-arg={name}={value}" for name, value in arguments.items()),
                *_mounts(),
            ],
        )


def image_id(tag: str) -> str:
    return _buildah("inspect", "--type=image", "--format={{.FromImageID}}", tag).strip()


def export(tag: str, archive: Path) -> None:
    """Write an image as an archive that containerd imports under the same tag."""
    archive.unlink(missing_ok=True)
    _buildah("push", tag, f"docker-archive:{archive}:{tag}")


def _ensure_base() -> None:
    recipe = _base_recipe()
    if _recipe_of(BASE) == recipe:
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
    _bud(f"importing {BASE}", BASE, file, context, [f"--label={_RECIPE_LABEL}={recipe}"])


def _base_recipe() -> str:
    return hashlib.sha256(repr((_SUITE, _PACKAGES, _BASE_DOCKERFILE)).encode()).hexdigest()[:16]


def _recipe_of(tag: str) -> str | None:
    """What the image of this tag was made from, or None if there is no such image."""
    # Asked of the list, because inspecting an image that is not there would go and look for it in a registry.
    if tag not in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
        return None
    template = f'--format={{{{index .Docker.Config.Labels "{_RECIPE_LABEL}"}}}}'
    return _buildah("inspect", "--type=image", template, tag).strip()


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
