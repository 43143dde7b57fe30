"""The back end for machines without Docker: real Kubernetes components in namespaces of their own."""
