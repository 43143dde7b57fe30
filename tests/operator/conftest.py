"""The table of what became of every fault."""

from typing import Any

_HEAD = ("fault", "times", "requests", "failed", "seconds", "outcome", "decisions")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each fault, whichever process of pytest's ran it."""
    rows, seeds = [_HEAD], set()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            found = dict(report.user_properties)
            if "times" in found and report.when == "call":
                fault = report.nodeid.partition("[")[2].rstrip("]")
                counts = (str(found["times"]), str(found.get("requests")), str(found.get("failed")))
                decisions = ", ".join(found.get("decisions", []))
                rows.append((fault, *counts, f"{report.duration:.0f}", outcome, decisions))
                seeds.add(found["seed"])
    if seeds:
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        terminalreporter.section("faults")
        for seed in sorted(seeds):
            terminalreporter.write_line(f"SERIN_CHAOS_SEED={seed} strikes at the same moments again")
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            terminalreporter.write_line("  ".join(cells).rstrip())
