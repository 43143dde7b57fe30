"""What a run of the demo amounts to, computed from the status history and the traffic's own counts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """One rollout's end. `seconds` run from the start of the rollout to the decision."""

    version: str
    decision: str
    reason: str
    seconds: float
    canary_trials: int


@dataclass(frozen=True)
class Summary:
    """The closing figures. `extra_wrong`: wrong answers beyond those that the stable model would have given."""

    sent: int
    failed: int
    late: int
    labels: int
    p99: float | None
    harmful_answers: int
    harmful_wrong: int
    extra_wrong: float
    seconds_to_last_harmful_answer: float
    verdicts: tuple[Verdict, ...]

    def lines(self) -> list[str]:
        """The summary for people."""
        late = f" ({self.late:,} more were due and not sent: the driver was too slow)" if self.late else ""
        lines = [
            f"requests sent      {self.sent:,}{late}",
            f"requests failed    {self.failed:,}",
            f"labels taken in    {self.labels:,}",
            f"p99 latency        {'-' if self.p99 is None else f'{self.p99:.0f} ms'}",
            f"harmful model      gave {self.harmful_answers:,} answers, {self.harmful_wrong:,} of them wrong;"
            f" the stable one would have had about {max(0.0, self.harmful_wrong - self.extra_wrong):.0f} wrong",
            f"                   its last answer came {self.seconds_to_last_harmful_answer:+.1f} s from the verdict",
        ]
        for verdict in self.verdicts:
            lines.append(
                f"{verdict.version:18} {verdict.decision} ({verdict.reason}) after {verdict.seconds:.0f} s"
                f" and {verdict.canary_trials:,} labelled answers"
            )
        return lines


def verdict(history: Sequence[Mapping[str, Any]], revision: str, version: str) -> Verdict | None:
    """The end of this revision's rollout in a status history (newest first); None while it goes on."""
    ends = {"Promoted": "toRevision", "RolledBack": "fromRevision"}
    for record in history:
        decision = record["decision"]
        if decision in ends and record.get(ends[decision]) == revision:
            started = next(
                earlier
                for earlier in history
                if earlier["decision"] == "Started" and earlier.get("toRevision") == revision
            )
            trials = [m["canary"]["trials"] for m in record.get("metrics", []) if m["name"] == "accuracy"]
            seconds = _epoch(record["time"]) - _epoch(started["time"])
            return Verdict(version, decision, record["reason"], seconds, sum(trials))
    return None


def decided_at(history: Sequence[Mapping[str, Any]], decision: str) -> float:
    """When the newest such decision was taken, in seconds since 1970. Raises StopIteration without one."""
    return _epoch(next(record["time"] for record in history if record["decision"] == decision))


def summarise(
    stats: Mapping[str, Any], verdicts: Sequence[Verdict], stable: str, harmful: str, rolled_back_at: float
) -> Summary:
    """Put the figures together; `stable` and `harmful` are revisions, `stats` is the traffic pod's."""
    nobody = {"n": 0, "wrong": 0, "last_seen": 0}
    by_revision = stats["by_revision"]
    bad, good = by_revision.get(harmful, nobody), by_revision.get(stable, nobody)
    expected = bad["n"] * good["wrong"] / good["n"] if good["n"] else 0.0
    return Summary(
        sent=stats["sent"],
        failed=stats["failed"],
        late=stats["late"],
        labels=stats["feedback"]["accepted"],
        p99=stats["p99"],
        harmful_answers=bad["n"],
        harmful_wrong=bad["wrong"],
        extra_wrong=bad["wrong"] - expected,
        seconds_to_last_harmful_answer=bad["last_seen"] / 1000 - rolled_back_at,
        verdicts=tuple(verdicts),
    )


def _epoch(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
