"""What one client may take of a server: bytes, connections and time."""

from dataclasses import dataclass

# Longer than the hour after which Envoy closes an idle connection by default. The side that sends requests
# must be the one that closes: a request that crosses the server's close is lost.
KEEP_ALIVE_SECONDS = 65 * 60


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, counts and seconds. `head_bytes` is above what Envoy lets through (60 KiB), so Envoy refuses first."""

    body_bytes: int
    head_bytes: int = 64 * 1024
    connections: int = 1000
    upload_bytes: int = 256 * 1024 * 1024  # of bodies that are being read or wait for an answer, together
    pipelined: int = 32  # requests of one connection that wait for their answers before no more are read
    head_seconds: float = 20
    body_seconds: float = 120
    write_seconds: float = 60  # for a client that does not read its answers
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    look_seconds: float = 1  # how often the times above are looked at
