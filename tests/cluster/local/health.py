"""Asking the components whether they are well, and waiting until they are."""

import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from tests.cluster.report import Failure, tail

from .processes import Daemon

# What a component that is not yet there, or not yet well, makes a check raise.
NOT_YET = (OSError, HTTPException)


def ok(url: str) -> None:
    """Raise unless the URL answers with success. Whose certificate it shows doesn't matter here."""
    context = ssl._create_unverified_context()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=2):
        pass


def accepts(path: Path) -> None:
    """Raise unless something accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(path))


def await_check(daemon: Daemon, check: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a check passes; say whose log to read when its process ends or time runs out first."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            check()
        except NOT_YET as error:
            trouble = str(error)
        else:
            return
        if daemon.pid is None:
            raise Failure(f"{daemon.name} ended while starting; the end of {daemon.log}:\n{tail(daemon.log)}")
        if time.monotonic() > deadline:
            ending = f"the end of {daemon.log}:\n{tail(daemon.log)}"
            raise Failure(f"{daemon.name} is not well after {seconds:.0f} s ({trouble}); {ending}")
        time.sleep(0.1)
