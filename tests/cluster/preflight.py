"""What a machine must have before anything is started, all of it checked first and told in one go."""

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from . import binaries, golang
from .commands import run, run_long, succeeds
from .local import cgroups, containerd
from .local.layout import clusters
from .places import cache, user
from .report import Failure

_GIB = 2**30
# A cold build leaves about 5 GiB of sources and compiled packages; images and pods need the rest.
_DISK_COLD, _DISK_WARM = 9 * _GIB, 3 * _GIB
_MEMORY = 3 * _GIB

# Debian's package for each program. A program that is there already serves, whoever packaged it.
_FOR_CLUSTER = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
}
_FOR_IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
# What the packages of the base image are verified with; Debian has it, its derivatives don't always.
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The memory that the control groups leave to this process where it runs in a container, version 2 and 1.
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def docker_is_reachable() -> bool:
    return succeeds(["docker", "info"])


def root_on_linux() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


def require_root() -> None:
    if not root_on_linux():
        raise Failure(
            "a cluster needs a Docker engine that `docker info` reaches, or root on Linux;"
            f" there is no such engine, and this is {user()} on {sys.platform}"
        )


def require_kind() -> None:
    if shutil.which("kind") is None:
        raise Failure(
            "there is a Docker engine but no `kind`: install it (https://kind.sigs.k8s.io),"
            " or set SERIN_CLUSTER_BACKEND=local to do without, as root on Linux"
        )
    if not docker_is_reachable():
        raise Failure("kind needs a Docker engine, and `docker info` reaches none")


def check_kind() -> None:
    """Raise one Failure that names everything that is missing for kind."""
    require_kind()
    memory = int(run(["docker", "info", "--format={{.MemTotal}}"]))
    _raise_if_any([*_python(), *_tools(), *_disk([cache()], _DISK_WARM), *_too_little_memory(memory)])


def check_local() -> None:
    """Raise one Failure that names everything the local back end lacks and can't install by itself."""
    require_root()
    needed = _DISK_WARM if binaries.components_are_built() else _DISK_COLD
    _raise_if_any(
        [*_python(), *_go(), *_packages(), *_disk([cache(), Path("/var/lib")], needed), *_memory(), *_kernel()]
    )


def _raise_if_any(troubles: Sequence[str]) -> None:
    if troubles:
        raise Failure("this machine can't run a cluster: " + "; ".join(troubles))


def install_for_cluster() -> None:
    _install(_missing_for_cluster())


def install_for_images() -> None:
    _install(_missing_for_images())


def _missing_for_cluster() -> set[str]:
    packages = {package for program, package in _FOR_CLUSTER.items() if shutil.which(program) is None}
    return packages if containerd.cni_directory() else packages | {"containernetworking-plugins"}


def _missing_for_images() -> set[str]:
    packages = {package for program, package in _FOR_IMAGES.items() if shutil.which(program) is None}
    return packages if _KEYRING.exists() else packages | {"debian-archive-keyring"}


def _python() -> list[str]:
    # Debian has venv, without which there is no virtual environment, in a package of its own.
    if importlib.util.find_spec("ensurepip") is None:
        return ["this Python has no venv module (on Debian: apt-get install python3-venv)"]
    return []


def _go() -> list[str]:
    trouble = None if binaries.components_are_built() else golang.trouble()
    return [trouble] if trouble else []


def _tools() -> list[str]:
    missing = [name for name in ("kubectl", "helm") if shutil.which(name) is None]
    trouble = golang.trouble() if missing else None
    return [f"no {' and no '.join(missing)}, and to build them {trouble}"] if trouble else []


def _packages() -> list[str]:
    missing = sorted(_missing_for_cluster() | _missing_for_images())
    if missing and shutil.which("apt-get") is None:
        return [f"there is no apt-get, as on Debian, to install what is missing: {', '.join(missing)}"]
    return []


def _disk(paths: Sequence[Path], needed: int) -> list[str]:
    troubles = []
    for path in paths:
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            troubles.append(f"{path} has {free / _GIB:.1f} GiB free, need {needed / _GIB:.0f}")
    return troubles


def _memory() -> list[str]:
    if clusters():
        return []  # it has been found enough, and is in use now
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert available, "every Linux since 3.14 says so"
    limits = [file.read_text().strip() for file in _MEMORY_LIMITS if file.exists()]
    return _too_little_memory(min([int(available[1]) * 1024, *(int(limit) for limit in limits if limit.isdigit())]))


def _too_little_memory(there: int) -> list[str]:
    return [f"{there / _GIB:.1f} GiB of memory available, need {_MEMORY / _GIB:.0f}"] if there < _MEMORY else []


def _kernel() -> list[str]:
    troubles = []
    if "overlay" not in Path("/proc/filesystems").read_text() and not succeeds(["modprobe", "overlay"]):
        troubles.append("the kernel has no overlay file system")
    if not cgroups.hierarchies():
        troubles.append("no cgroups are mounted")
    if not succeeds(["unshare", "--net", "--mount", "true"]):
        troubles.append("namespaces can't be made (`unshare --net --mount true` fails)")
    return troubles


def _install(packages: set[str]) -> None:
    if not packages:
        return
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    log = cache() / "logs" / "apt.log"
    run_long("updating the list of Debian packages", ["apt-get", "update"], log, env=env)
    # Debian asks this file whether a package may start its service. The cluster starts its own containerd.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        run_long(
            f"installing {', '.join(sorted(packages))}",
            ["apt-get", "install", "--yes", "--no-install-recommends", *sorted(packages)],
            log,
            env=env,
        )
    finally:
        if ours:
            policy.unlink()
