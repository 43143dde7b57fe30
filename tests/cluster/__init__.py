"""A Kubernetes cluster for the tests and the demo, on any machine: `python3 -m tests.cluster up`."""

import sys

# Here, because the other modules don't even load with an older one.
if sys.version_info < (3, 11):  # noqa: UP036 (it is for whoever runs this with the Python that the machine has)
    sys.exit("error: Serin needs Python 3.11 or newer; this is " + sys.version.split()[0])
