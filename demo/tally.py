"""What the traffic driver counts. No I/O, no clock."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Error texts may hold addresses and times: past this many kinds the rest is counted together.
MOST_KINDS = 40


@dataclass
class RevisionTally:
    """Answers of one revision; times are milliseconds since 1970.

    `last_sent` is when the newest of the requests that it answered was sent: a slow revision still answers what
    was sent to it long ago.
    """

    n: int = 0
    wrong: int = 0
    first_seen: int = 0
    last_seen: int = 0
    last_sent: int = 0


@dataclass
class FeedbackTally:
    """Labels: `posted` left here; `accepted`, `duplicates`, `refused` are the server's words; `failed` were lost.

    `dropped`: never posted, because too many waited.
    """

    posted: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    failed: int = 0
    dropped: int = 0


@dataclass
class Tally:
    """Everything since the start.

    `late`: requests that were due but not sent, because too many were in flight or the driver itself stood
    still. They are no failures of the service, and hiding them would make an overload look like calm.
    """

    sent: int = 0
    ok: int = 0
    failed: int = 0
    late: int = 0
    revisions: dict[str, RevisionTally] = field(default_factory=dict)
    feedback: FeedbackTally = field(default_factory=FeedbackTally)
    errors: Counter[str] = field(default_factory=Counter)
    latencies: Counter[float] = field(default_factory=Counter)
    recent: Counter[float] = field(default_factory=Counter)

    def answered(self, revision: str, right: bool, seconds: float, now_ms: int) -> None:
        """Count a well-formed answer."""
        self.ok += 1
        one = self.revisions.setdefault(revision, RevisionTally(first_seen=now_ms))
        one.n += 1
        one.wrong += not right
        one.last_seen = now_ms
        one.last_sent = max(one.last_sent, now_ms - round(seconds * 1000))
        self._took(seconds)

    def not_answered(self, kind: str, seconds: float) -> None:
        """Count a request that failed: an error status, a broken connection, a malformed answer."""
        self.failed += 1
        self.errors[kind if kind in self.errors or len(self.errors) < MOST_KINDS else "other"] += 1
        self._took(seconds)

    def _took(self, seconds: float) -> None:
        milliseconds = round(seconds * 1000, 1)
        self.latencies[milliseconds] += 1
        self.recent[milliseconds] += 1

    def cumulative(self) -> dict[str, Any]:
        """The counts since the start, p50 and p99 in milliseconds over all of it."""
        return self._counts(self.latencies)

    def interval(self) -> dict[str, Any]:
        """The counts since the start, p50 and p99 since the last call."""
        counts = self._counts(self.recent)
        self.recent = Counter()
        return counts

    def _counts(self, latencies: Mapping[float, int]) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.failed,
            "late": self.late,
            "by_revision": {name: vars(one).copy() for name, one in self.revisions.items()},
            "feedback": vars(self.feedback).copy(),
            "errors": dict(self.errors),
            "p50": percentile(latencies, 0.50),
            "p99": percentile(latencies, 0.99),
        }


def percentile(values: Mapping[float, int], share: float) -> float | None:
    """The smallest value that at least `share` of all are not above (nearest rank); None without values.

    `values` maps each value to how often it occurred.
    """
    total = sum(values.values())
    seen = 0
    for value in sorted(values):
        seen += values[value]
        if seen >= share * total:
            return value
    return None
