"""Whose requests are counted together: the metrics' label `attempt`."""

from enum import StrEnum

TESTER_HEADER = "x-serin-tester"
COUNT_HEADER = "x-envoy-attempt-count"


class Attempt(StrEnum):
    """What the router says of a request. Evidence about a revision is made of the first attempts only."""

    FIRST = "first"
    RETRY = "retry"  # another revision, or this one, failed to answer it before
    TESTER = "tester"  # from somebody who asked for the candidate, at any weight


def attempt_of(count: str | bytes, tester: bool) -> Attempt:
    """From the router's headers: `count` is Envoy's number of the attempt, a tester's request is one at any attempt."""
    if tester:
        return Attempt.TESTER
    return Attempt.FIRST if count in ("0", "1", b"0", b"1") else Attempt.RETRY
