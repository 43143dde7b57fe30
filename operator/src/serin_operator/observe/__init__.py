"""I/O in: the watch cache, pods, routers and metrics sources, gathered into one `Observed`."""
