"""The port of the gRPC server: kept for the processes that listen on it, and closed to new connections early."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from serin_server.failures import FatalError, Reason


@dataclass(frozen=True)
class Port:
    """A port that no other program can take while `_kept` is open.

    gRPC binds by itself. It gets to share the port: with this socket, which never listens, and among several processes,
    to which the kernel deals connections.
    """

    host: str
    number: int
    _kept: socket.socket

    @property
    def address(self) -> str:
        """As gRPC takes it."""
        return f"[{self.host}]:{self.number}" if ":" in self.host else f"{self.host}:{self.number}"


def reserve(host: str | None, number: int) -> Port:
    """Take a port (0: any that is free) of `host`, or of all addresses. Raises FatalError when it is in use."""
    host = host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104 - a server for a cluster
    try:
        # Sharing would also succeed with a server that has nothing to do with this one, so first without it.
        with _bound(host, number, shared=False) as alone:
            number = alone.getsockname()[1]
        return Port(host, number, _bound(host, number, shared=True))
    except OSError as error:
        raise FatalError(
            Reason.INVALID_CONFIGURATION,
            f"cannot listen on port {number} for gRPC: {error.strerror}; --grpc-port names another, or `off`",
        ) from error


def _bound(host: str, number: int, *, shared: bool) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        bound.bind((host, number))
    except OSError:
        bound.close()
        raise
    return bound


def refuse_connections(number: int) -> None:
    """Let this process take no new connections on a port; those that are there go on.

    gRPC can only stop as a whole, and then cancels calls that arrive meanwhile. So its listening socket is found among
    the process's files; shutting it down does to the kernel what closing it would do. Where there is no /proc (not
    Linux), connections are taken until the end.
    """
    files = Path("/proc/self/fd")
    if not files.exists():
        return
    for name in os.listdir(files):
        try:
            file = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # not a socket, or closed by now
            continue
        with file:
            if (
                file.family in (socket.AF_INET, socket.AF_INET6)
                and file.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and file.getsockname()[1] == number
            ):
                file.shutdown(socket.SHUT_RD)
