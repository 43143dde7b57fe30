"""A Kubernetes cluster for the tests and the demo, on any machine: `python3 -m tests.cluster up`."""
