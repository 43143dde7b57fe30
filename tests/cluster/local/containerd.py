"""containerd: its configuration, the pod network, and putting images into it."""

import json
import shutil
from pathlib import Path

from tests.cluster.commands import run

from .layout import POD_RANGE, Layout
from .pause import IMAGE as PAUSE_IMAGE

_CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("ptp", "host-local", "loopback")


def cni_directory() -> Path | None:
    """Where the CNI plugins are: Debian and their own releases differ."""
    return next((d for d in _CNI_DIRECTORIES if all((d / plugin).exists() for plugin in CNI_PLUGINS)), None)


def write_config(layout: Layout) -> Path:
    cni = layout.config / "cni"
    cni.mkdir()
    (cni / "10-serin.conflist").write_text(json.dumps(_pod_network(layout), indent=2))
    # What is on the machine decides about oom_score_adj: a root of restricted capabilities may not lower it, and every
    # pod would fail on the attempt.
    config = layout.config / "containerd.toml"
    config.write_text(f"""\
version = 2
root = "{layout.root}/containerd/root"
state = "{layout.root}/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.root}/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni_directory()}"
  conf_dir = "{cni}"
""")
    return config


def argv(layout: Layout, config: Path) -> list[str]:
    return [shutil.which("containerd") or "containerd", "--config", str(config)]


def import_image(layout: Layout, archive: Path) -> None:
    run([*_ctr(layout), "images", "import", str(archive)])


def importer(layout: Layout) -> list[str]:
    """The command that reads an image from its standard input."""
    return [*_ctr(layout), "images", "import", "-"]


def digests(layout: Layout) -> frozenset[str]:
    """What containerd has of all images: their layers and documents, by digest."""
    return frozenset(run([*_ctr(layout), "content", "ls", "--quiet"]).split())


def _ctr(layout: Layout) -> list[str]:
    return ["ctr", "--address", str(layout.containerd_socket), "--namespace", "k8s.io"]


def _pod_network(layout: Layout) -> dict[str, object]:
    """Point-to-point links, so that pods' traffic to each other is routed and Services' addresses are translated back.

    On a bridge the answer of a pod to its neighbour would go round the translation.
    """
    return {
        "cniVersion": "0.4.0",
        "name": "serin",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(layout.root / "cni-addresses"),
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
