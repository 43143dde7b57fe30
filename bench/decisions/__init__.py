"""How well rules decide about a canary, simulated: `python -m bench.decisions`."""
