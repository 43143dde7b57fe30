"""Serin's operator: observe → decide → build → act, once per ModelDeployment and pass."""
