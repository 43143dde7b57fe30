"""W3C Trace Context: what a request's `traceparent` says. https://www.w3.org/TR/trace-context/

The server is a leaf: it calls nobody, so `tracestate`, which is for those that would be called, goes nowhere. The trace
is told in the log, and in the answer's `traceresponse` (Level 2 of the standard), for clients whose request was traced
on its way.
"""

import random
import re
from dataclasses import dataclass

# A version after 00 may have more fields; its first four are read as those of 00.
_TRACEPARENT = re.compile(
    rb"[ \t]*(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace that a request is part of, and in it the spans of the caller and the server: lower-case hex digits."""

    trace_id: str
    parent_id: str
    span_id: str
    sampled: bool

    @property
    def response(self) -> bytes:
        """The value of `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}".encode()


def parse_traceparent(value: bytes) -> Trace | None:
    """The trace, with a new span for the server; None when the header is not valid: then it is as good as absent."""
    found = _TRACEPARENT.fullmatch(value.rstrip(b" \t"))
    if found is None or (found[1] == b"00" and found[5] is not None):
        return None
    span = random.getrandbits(64) or 1  # no secret: it need only differ from others
    return Trace(found[2].decode(), found[3].decode(), f"{span:016x}", bool(int(found[4], 16) & 1))
