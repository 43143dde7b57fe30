"""The command line `serin`: plan a rollout, replay recorded counters, simulate a policy. It decides nothing itself."""
