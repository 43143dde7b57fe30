"""The default metrics source: Serin reads the model servers' /metrics itself."""

import asyncio
from collections.abc import Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from serin_operator.observe.pods import Pod
from serin_operator.observe.samples import STARTED, Point, Reading, Wanted, series_of

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_PORT = 8080


async def scrape(session: aiohttp.ClientSession, pods: Iterable[Pod], wanted: Wanted) -> Reading:
    """Reads every one of these serving pods once, side by side."""
    pods = list(pods)
    answers = await asyncio.gather(*(_read(session, pod, wanted) for pod in pods), return_exceptions=True)
    points: list[Point] = []
    processes: set[str] = set()
    unread: dict[str, str] = {}
    for pod, answer in zip(pods, answers, strict=True):
        if isinstance(answer, (aiohttp.ClientError, TimeoutError, ValueError)):
            unread[pod.name] = f"{type(answer).__name__} {answer}".strip()
        elif isinstance(answer, BaseException):
            raise answer
        else:
            process, found = answer
            processes.add(process)
            points += found
    return Reading(points, frozenset(processes), unread)


async def _read(session: aiohttp.ClientSession, pod: Pod, wanted: Wanted) -> tuple[str, list[Point]]:
    async with session.get(f"http://{pod.ip}:{_PORT}/metrics", timeout=_TIMEOUT) as response:
        response.raise_for_status()
        text = await response.text()
    return parse(pod.name, text, wanted)


def parse(pod: str, text: str, wanted: Wanted) -> tuple[str, list[Point]]:
    """The process's series and the samples that evidence reads.

    Raises ValueError when the text is no exposition, or the process does not tell its start time.
    """
    # A server may expose thousands of series, most of them of other windows; the parser is slow.
    window = f'window="{wanted.window}"'
    lines = [
        line
        for line in text.splitlines()
        if line.startswith(wanted.families) and (window in line or 'window="' not in line)
    ]
    found = [
        sample
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
        if sample.name in wanted.families
    ]
    started = next((sample.value for sample in found if sample.name == STARTED), None)
    if started is None:
        raise ValueError(f"{pod} exposes no {STARTED}")
    series = series_of(pod, started)
    points = [Point(series, sample.name, sample.labels, sample.value) for sample in found if sample.name != STARTED]
    return series, points
