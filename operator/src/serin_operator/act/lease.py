"""Which of several operators acts: the holder of a Lease, and only while its own clock says that nobody else can be.

Two guards keep an operator that was paused or cut off from acting beside its successor. Its own clock: whoever holds
the Lease acts for `ACT_SECONDS` after it sent the last renewal that came through, and nobody takes a Lease that changed
within `LEASE_SECONDS`, however long the answers took. And the API server: whoever takes over leaves its mark on every
object first (`Status.operator`, `ANNOTATION_OPERATOR`), so that a write which was prepared before fails on its version.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client import Gauge

from serin_operator.act.client import ApiError, Client
from serin_operator.api.status import rfc3339
from serin_operator.settings import Candidacy

LEASE_SECONDS = 10
ACT_SECONDS = 8.0
RENEW_SECONDS = 2.0
LOOK_SECONDS = 1.0
CALL_SECONDS = 5.0  # an API server that takes two seconds for a call does not end anybody's term
_KIND = "Lease"
_LOGGER = logging.getLogger("serin.lease")
_LEADING = Gauge("serin_operator_leading", "1 while this operator acts, 0 while it stands by")


def seconds_awake_or_not() -> float:
    """A clock that also runs while the machine is suspended, and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Election:
    """Competes for the Lease until it is cancelled. `seconds_left` is what every write asks for.

    identity: of this very process. A pod's container is only started again when its last process is dead.
    """

    client: Client
    candidacy: Candidacy
    clock: Callable[[], float] = seconds_awake_or_not
    identity: str = ""
    _lease: Mapping[str, Any] | None = None  # as last seen
    _seen_at: float | None = None  # when it first looked like this; None before there ever was one
    _doubtful: bool = True  # whether it may have changed since, by this operator's own hand
    _acts_until: float = field(default=float("-inf"))
    _trouble: str = ""

    def __post_init__(self) -> None:
        self.identity = self.identity or f"{self.candidacy.pod}_{secrets.token_hex(4)}"

    def seconds_left(self) -> float:
        """How long this operator may go on to act; negative when it may not."""
        return self._acts_until - self.clock()

    @property
    def holder(self) -> str:
        """Who has the Lease, as far as this operator knows; empty when nobody has."""
        return _holder(self._lease) if self._lease else ""

    async def run(self, lead: Callable[[], None], rest: Callable[[], Awaitable[None]]) -> None:
        """Calls `lead` when it may act, and `rest` when it no longer may, in turns."""
        acts = False
        while True:
            began = self.clock()
            await self._try(CALL_SECONDS if not acts else min(CALL_SECONDS, self.seconds_left()))
            left = self.seconds_left()
            if left > 0 and not acts:
                _LOGGER.info("%s leads", self.identity)
                _LEADING.set(1)
                lead()
            elif left <= 0 and acts:
                _LOGGER.warning("%s leads no longer", self.identity)
                _LEADING.set(0)
                await rest()
            acts = left > 0
            pace = RENEW_SECONDS if acts and not self._trouble else LOOK_SECONDS
            pause = began + pace - self.clock()
            await asyncio.sleep(max(0.0, min(pause, self.seconds_left()) if acts else pause))

    async def resign(self) -> None:
        """Gives the Lease back, so that nobody has to wait for its end. Nothing may be written from here on."""
        holds = self._lease is not None and self.holder == self.identity and self.seconds_left() > 0
        self._acts_until = float("-inf")
        _LEADING.set(0)
        if not holds:
            return
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self.client.replace(self._body(None))
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            _LOGGER.warning("the Lease was not given back: %s %s", type(error).__name__, error)

    async def _try(self, seconds: float) -> None:
        """One attempt to hold the Lease, or to go on holding it."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._attempt()
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            self._doubtful = True
            trouble = f"{type(error).__name__} {error}"
            _LOGGER.log(logging.WARNING if trouble != self._trouble else logging.DEBUG, "the Lease: %s", trouble)
            self._trouble = trouble
        else:
            self._trouble = ""

    async def _attempt(self) -> None:
        if self._doubtful or self.holder != self.identity:
            self._see(await self.client.read(_KIND, self.candidacy.namespace, self.candidacy.lease))
            if not self._may_take():
                self._acts_until = float("-inf")
                return
        sent = self.clock()
        body = self._body(self.identity)
        self._see(await (self.client.replace(body) if self._lease else self.client.create(body)))
        self._acts_until = sent + ACT_SECONDS

    def _see(self, lease: Mapping[str, Any] | None) -> None:
        if _version(lease) != _version(self._lease):
            self._seen_at = self.clock()
        self._lease, self._doubtful = lease, False

    def _may_take(self) -> bool:
        """Nobody has it, this process has it, a process has it that is surely dead, or one that has let it expire.

        Whoever had one that was deleted may not know that yet.
        """
        if self._seen_at is None:
            return True
        if self._lease and self.holder in ("", self.identity):
            return True
        if self.holder.rpartition("_")[0] == self.candidacy.pod:
            return True
        seconds: float = (
            self._lease["spec"].get("leaseDurationSeconds", LEASE_SECONDS) if self._lease else LEASE_SECONDS
        )
        return self.clock() - self._seen_at >= seconds

    def _body(self, holder: str | None) -> dict[str, Any]:
        """The Lease in the hands of `holder`, at the version that was seen."""
        now = rfc3339(time.time())
        metadata = {"namespace": self.candidacy.namespace, "name": self.candidacy.lease}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now, "acquireTime": now}
        if self._lease:
            before = self._lease["spec"]
            metadata["resourceVersion"] = _version(self._lease)
            changes = holder is not None and holder != self.holder
            spec["leaseTransitions"] = before.get("leaseTransitions", 0) + changes
            if not changes and "acquireTime" in before:
                spec["acquireTime"] = before["acquireTime"]
        return {"apiVersion": "coordination.k8s.io/v1", "kind": _KIND, "metadata": metadata, "spec": spec}


def _holder(lease: Mapping[str, Any]) -> str:
    return str(lease["spec"].get("holderIdentity") or "")


def _version(lease: Mapping[str, Any] | None) -> str:
    return str(lease["metadata"]["resourceVersion"]) if lease else ""
