"""The command line of the cluster for everyone: `python3 -m tests.cluster --help`."""
import sys
from .local import cluster
from .report import Failure
from . import preflight
try:
    preflight.check_local(); preflight.install_for_cluster()
    if sys.argv[1]=="status":
        for s in cluster.status(sys.argv[2]): print(s)
    else:
        getattr(cluster, sys.argv[1])(sys.argv[2])
except Failure as f:
    sys.exit(f"error: {f}")
