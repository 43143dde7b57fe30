"""Carries what the stable revision's servers tell of requests that were copied, to the canary's servers.

They find the pairs and count them; the operator reads their counters as it reads all others. So nothing depends on what
is carried: it may come twice, late or not at all, and a courier that dies only costs pairs. Every one of the canary's
servers gets everything, because only one of them knows the other half of a pair. That there is nothing new is told as
well, with the label window: pairs that are old enough are counted when no more labels of theirs can come.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping

import aiohttp

from serin_operator.observe.pods import Pod

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_PORT = 8080
_MOST_BATCHES = 4  # of one server in one pass; what is left waits for the next
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, ValueError)

# Per pod, the place from which on its server has not told yet.
Places = Mapping[str, str]


async def carry(
    session: aiohttp.ClientSession,
    model: str,
    pods: Iterable[Pod],
    arms: tuple[str, str],
    window: float,
    places: Places,
) -> Places:
    """Asks every server of the stable revision, side by side. One that cannot be asked is asked the next time.

    arms: the revisions, canary and stable. window: `analysis.label_window`, in seconds.
    """
    canary, stable = arms
    servers = [pod for pod in pods if pod.component == "server" and pod.serving]
    hearers = [pod for pod in servers if pod.revision == canary]
    tellers = [pod for pod in servers if pod.revision == stable]
    if not hearers:
        return places
    found = await asyncio.gather(
        *(_carry_of(session, model, teller, hearers, window, places.get(teller.name, "")) for teller in tellers)
    )
    return dict(zip((teller.name for teller in tellers), found, strict=True))


async def _carry_of(
    session: aiohttp.ClientSession, model: str, teller: Pod, hearers: Collection[Pod], window: float, place: str
) -> str:
    """The place after what was carried. A server that hears nothing now will not hear it later."""
    for _ in range(_MOST_BATCHES):
        try:
            sealed, following, more = await _ask(session, model, teller, place)
        except _NO_ANSWER:
            return place
        batch = b"%d\n%s" % (window, sealed)
        await asyncio.gather(*(_tell(session, model, hearer, batch) for hearer in hearers), return_exceptions=True)
        place = following
        if not more:
            return place
    return place


async def _ask(session: aiohttp.ClientSession, model: str, pod: Pod, place: str) -> tuple[bytes, str, bool]:
    """A batch without its first line, the place of the next one, and whether there is one already."""
    url = f"http://{pod.ip}:{_PORT}/v2/models/{model}/answers/new"
    async with session.post(url, data=place.encode(), timeout=_TIMEOUT) as answer:
        answer.raise_for_status()
        batch = await answer.read()
    first, _, sealed = batch.partition(b"\n")
    following, more = first.decode().split(" ")
    return sealed, following, more == "1"


async def _tell(session: aiohttp.ClientSession, model: str, pod: Pod, batch: bytes) -> None:
    url = f"http://{pod.ip}:{_PORT}/v2/models/{model}/answers"
    async with session.post(url, data=batch, timeout=_TIMEOUT) as answer:
        answer.raise_for_status()
