"""What a machine must have before anything is started, all of it checked first and told in one go."""

import os
import re
import shutil
import sys
from pathlib import Path

from . import binaries
from .commands import run, run_long, succeeds
from .local import cgroups, containerd
from .places import cache, user
from .report import Failure

_GO = (1, 24)
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


def docker_is_reachable() -> bool:
    return succeeds(["docker", "info"])


def root_on_linux() -> bool:
    return sys.platform == "linux" and os.geteuid() == 0


def check_backend() -> None:
    """Neither back end fits: say so."""
    if not root_on_linux():
        raise Failure(
            "a cluster needs a Docker engine that `docker info` reaches, or root on Linux;"
            f" there is no such engine, and this is {user()} on {sys.platform}"
        )


def check_kind() -> None:
    if shutil.which("kind") is None:
        raise Failure(
            "there is a Docker engine but no `kind`: install it (`go install sigs.k8s.io/kind@latest`),"
            " or set SERIN_CLUSTER_BACKEND=local to do without, as root on Linux"
        )


def check_local() -> None:
    """Raise one Failure that names everything the local back end lacks and can't install by itself."""
    check_backend()
    troubles = [*_go(), *_packages(), *_disk(), *_memory(), *_kernel()]
    if troubles:
        raise Failure("this machine can't run a cluster: " + "; ".join(troubles))


def install_for_cluster() -> None:
    packages = {package for program, package in _FOR_CLUSTER.items() if shutil.which(program) is None}
    if containerd.cni_directory() is None:
        packages.add("containernetworking-plugins")
    _install(packages)


def install_for_images() -> None:
    _install({package for program, package in _FOR_IMAGES.items() if shutil.which(program) is None})


def _go() -> list[str]:
    if shutil.which("go") is None:
        return [f"there is no Go toolchain (need {_GO[0]}.{_GO[1]} or newer)"]
    version = run(["go", "env", "GOVERSION"], cwd=Path("/")).strip()
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < _GO:
        return [f"Go is {version}, need {_GO[0]}.{_GO[1]} or newer"]
    return []


def _packages() -> list[str]:
    missing = [program for program in _FOR_CLUSTER if shutil.which(program) is None]
    if missing and shutil.which("apt-get") is None:
        return [f"no apt-get to install what is missing: {', '.join(missing)}"]
    return []


def _disk() -> list[str]:
    needed = _DISK_WARM if shutil.which("go") and binaries.components_are_built() else _DISK_COLD
    troubles = []
    for path in (cache(), Path("/var/lib")):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            troubles.append(f"{path} has {free / _GIB:.1f} GiB free, need {needed / _GIB:.0f}")
    return troubles


def _memory() -> list[str]:
    available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    if available and int(available[1]) * 1024 < _MEMORY:
        return [f"{int(available[1]) / 2**20:.1f} GiB of memory available, need {_MEMORY / _GIB:.0f}"]
    return []


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
