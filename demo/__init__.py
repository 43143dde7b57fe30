"""The story of a better and of a harmful model, on a real cluster: `python -m demo`."""
