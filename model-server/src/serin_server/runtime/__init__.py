"""The model in memory: loading it, describing it, and computing predictions off the event loop."""
