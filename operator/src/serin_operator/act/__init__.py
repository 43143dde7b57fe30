"""I/O out: write the status, apply manifests, tell people."""
