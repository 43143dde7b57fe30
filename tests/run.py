"""pytest with the cluster: `python -m tests.run [pytest's arguments]`.

The cluster is the one that `python -m tests.cluster up` makes under the name in $CLUSTER (default: serin), unless
$SERIN_E2E_KUBECONFIG is the path of another's kubeconfig or SERIN_USE_CURRENT_CLUSTER=1 asks for the one that kubectl
talks to now. With those, kubectl and helm are the ones on PATH.
"""

import os
import sys
from pathlib import Path

from tests.cluster import backends
from tests.cluster.report import Failure


def main() -> None:
    """Become pytest; exit with 1 and one line where there is no cluster."""
    try:
        settings = environment()
    except Failure as failure:
        sys.exit(f"error: {failure}")
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]], {**os.environ, **settings})


def environment() -> dict[str, str]:
    """What the tests find the cluster and its tools by, over the environment that there is."""
    if other := os.environ.get("SERIN_E2E_KUBECONFIG"):
        return {"KUBECONFIG": other}
    if os.environ.get("SERIN_USE_CURRENT_CLUSTER") == "1":
        return {"KUBECONFIG": os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")}
    backend = backends.choose()
    name = os.environ.get("CLUSTER") or "serin"
    kubeconfig = backend.kubeconfig(name)
    if not kubeconfig.exists():
        raise Failure(f"cluster {name} is not up: `make cluster-up CLUSTER={name}` first")
    backend.require()
    tools = backend.tools()
    return {
        "KUBECONFIG": str(kubeconfig),
        "SERIN_HELM": os.environ.get("SERIN_HELM") or str(tools / "helm"),
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


if __name__ == "__main__":
    main()
