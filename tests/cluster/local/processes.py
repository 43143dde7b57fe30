"""Starting the components as daemons that outlive this command, each in the cluster's cgroup."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .cgroups import CgroupTree
from .layout import Layout

# Joins the cgroups before it becomes the component, so that no child of the component can be outside them.
_JOIN = 'for file in $1; do echo $$ >"$file" || exit 1; done; shift; exec "$@"'


@dataclass(frozen=True)
class Daemon:
    """One component's process, known to later commands by the file with its process id."""

    layout: Layout
    name: str

    @property
    def log(self) -> Path:
        return self.layout.logs / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The process id while the process lives, else None."""
        file = self.layout.pids / self.name
        if not file.exists():
            return None
        pid = int(file.read_text())
        return pid if CgroupTree(self.layout.name).holds(pid) and not _is_zombie(pid) else None

    def start(self, argv: Sequence[str], *, pass_fds: Sequence[int] = ()) -> None:
        tree = CgroupTree(self.layout.name)
        entrances = " ".join(str(file) for file in tree.entrances())
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                ["sh", "-c", _JOIN, "join", entrances, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                # A proxy that the caller's environment names can't be reached, and nothing has to be.
                env={key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")},
                start_new_session=True,
                pass_fds=tuple(pass_fds),
            )
        _started.append(process)
        while not tree.holds(process.pid) and process.poll() is None:
            time.sleep(0.002)  # the shell is about to join; from then on the process counts as the component
        (self.layout.pids / self.name).write_text(str(process.pid))


# Kept so that Python doesn't warn of children that still run when their handle is collected: they are meant to.
_started: list["subprocess.Popen[bytes]"] = []


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
