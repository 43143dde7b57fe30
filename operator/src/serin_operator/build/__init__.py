"""Pure: spec and status in, the complete desired manifests out."""
