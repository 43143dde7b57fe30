"""What the suite measures on its way, and the ledger of all client requests."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from demo.environment import REPOSITORY

FILE = REPOSITORY / "build" / "e2e-figures.json"


@dataclass
class Figures:
    """Filled by the tests. Times are seconds, `operator_memory` bytes, `traffic` each driver's last counts.

    verdict_to_silence: per rollback, when the last request was sent that the canary answered, after the verdict.
    harm: per rollback, the canary's wrong answers beyond those that the stable revision would have given.
    """

    apply_to_serving: list[float] = field(default_factory=list)
    verdict_to_silence: dict[str, float] = field(default_factory=dict)
    harm: dict[str, float] = field(default_factory=dict)
    calls_per_rollout: dict[str, dict[str, int]] = field(default_factory=dict)
    operator_memory: dict[str, float] = field(default_factory=dict)
    seconds_per_rollout: dict[str, float] = field(default_factory=dict)
    split: dict[str, str] = field(default_factory=dict)
    traffic: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Client requests, all drivers together."""
        return sum(counts["sent"] for counts in self.traffic.values())

    @property
    def failed(self) -> int:
        """Those of them that got no good answer."""
        return sum(counts["failed"] for counts in self.traffic.values())

    def write(self) -> None:
        """Keep everything as JSON."""
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def table(self) -> list[str]:
        """Lines for people."""
        rows = [("client requests", f"{self.requests}"), ("of them failed", f"{self.failed}")]
        rows += [
            (
                f"  {name}",
                f"{c['sent']} sent, {c['failed']} failed, {c['late']} skipped, p50 {c['p50']} ms, p99 {c['p99']} ms",
            )
            for name, c in self.traffic.items()
        ]
        if self.apply_to_serving:
            rows.append(("apply to serving", _seconds(self.apply_to_serving)))
        if self.verdict_to_silence:
            rows.append(("verdict to zero canary traffic", _seconds(list(self.verdict_to_silence.values()))))
            rows += [(f"  {name}", f"{value:.2f} s") for name, value in self.verdict_to_silence.items()]
        rows += [(f"requests harmed, {name}", f"{value:.0f}") for name, value in self.harm.items()]
        rows += [(f"apply to verdict, {name}", f"{value:.1f} s") for name, value in self.seconds_per_rollout.items()]
        rows += [(f"split, {name}", text) for name, text in self.split.items()]
        for name, calls in self.calls_per_rollout.items():
            kinds = ", ".join(f"{count} {kind}" for kind, count in calls.items())
            rows.append((f"operator's API calls, {name}", f"{sum(calls.values())}: {kinds}"))
        rows += [
            (f"operator's memory, {name}", f"{value / 2**20:.0f} MiB") for name, value in self.operator_memory.items()
        ]
        width = max(len(name) for name, _ in rows)
        return [f"{name:{width}}  {value}" for name, value in rows]


def _seconds(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f} s, worst {max(values):.2f} s, of {len(values)}"
