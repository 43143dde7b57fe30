"""The default metrics source: Serin reads the model servers' /metrics itself."""

import asyncio
from collections.abc import Iterable

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from serin_operator.api.spec import Metric
from serin_operator.decide.observed import Snapshot
from serin_operator.observe.pods import Pod
from serin_operator.observe.samples import FAMILIES, STARTED, Point, samples

_TIMEOUT = aiohttp.ClientTimeout(total=2)
_PORT = 8080


async def scrape(
    session: aiohttp.ClientSession, pods: Iterable[Pod], metrics: Iterable[Metric], arms: Iterable[str]
) -> Snapshot:
    """Reads every serving model server pod once, side by side. An arm without any readable pod is a problem."""
    pods = [pod for pod in pods if pod.component == "server"]
    serving = [pod for pod in pods if pod.serving]
    answers = await asyncio.gather(*(_read(session, pod) for pod in serving), return_exceptions=True)
    points: list[Point] = []
    processes: set[str] = set()
    unread: dict[str, str] = {}
    for pod, answer in zip(serving, answers, strict=True):
        if isinstance(answer, (aiohttp.ClientError, TimeoutError, ValueError)):
            unread[pod.name] = f"{type(answer).__name__} {answer}".strip()
        elif isinstance(answer, BaseException):
            raise answer
        else:
            process, found = answer
            processes.add(process)
            points += found
    read = {pod.revision for pod in serving if pod.name not in unread}
    unseen = [arm for arm in arms if arm not in read]
    problem = None
    if unseen:
        why = "; ".join(f"{name}: {reason}" for name, reason in unread.items()) or "no pod of it serves"
        problem = f"no metrics of revision {', '.join(unseen)} ({why})"
    return Snapshot(
        samples=samples(metrics, points),
        processes=frozenset(processes),
        pods=frozenset(pod.name for pod in pods),
        unread=tuple(unread),
        problem=problem,
    )


async def _read(session: aiohttp.ClientSession, pod: Pod) -> tuple[str, list[Point]]:
    async with session.get(f"http://{pod.ip}:{_PORT}/metrics", timeout=_TIMEOUT) as response:
        response.raise_for_status()
        text = await response.text()
    return parse(pod.name, text)


def parse(pod: str, text: str) -> tuple[str, list[Point]]:
    """The process's series and the samples that evidence reads.

    Raises ValueError when the text is no exposition, or the process does not tell its start time.
    """
    lines = [line for line in text.splitlines() if line.startswith(FAMILIES)]
    found = [
        sample
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
        if sample.name in FAMILIES
    ]
    started = next((sample.value for sample in found if sample.name == STARTED), None)
    if started is None:
        raise ValueError(f"{pod} exposes no {STARTED}")
    series = f"{pod}/{started:.0f}"
    points = [Point(series, sample.name, sample.labels, sample.value) for sample in found if sample.name != STARTED]
    return series, points
