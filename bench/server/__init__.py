"""Benchmark of the model server, beside its peers and the floor."""
