"""The other metrics source: the same raw counters from a Prometheus server, never rate() or increase()."""

from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from serin_operator.api.spec import Metric
from serin_operator.decide.observed import Snapshot
from serin_operator.observe.pods import Pod
from serin_operator.observe.samples import FAMILIES, STARTED, Point, samples

_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def query(
    session: aiohttp.ClientSession,
    address: str,
    namespace: str,
    pods: Iterable[Pod],
    metrics: Iterable[Metric],
    arms: Iterable[str],
) -> Snapshot:
    """One instant query for all counters of the pods. The scrape must keep `namespace` and `pod` as labels."""
    pods = [pod for pod in pods if pod.component == "server"]
    names = frozenset(pod.name for pod in pods)
    if not names:
        return Snapshot(problem="no model server pod exists")
    try:
        result = await _instant(session, address, _selector(namespace, sorted(names)))
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        return Snapshot(pods=names, problem=f"Prometheus at {address}: {type(error).__name__} {error}".strip())
    points = to_points(result)
    read = {point.series.partition("/")[0] for point in points}
    serving = [pod for pod in pods if pod.serving]
    unread = tuple(pod.name for pod in serving if pod.name not in read)
    seen = {pod.revision for pod in serving if pod.name in read}
    unseen = [arm for arm in arms if arm not in seen]
    problem = f"Prometheus at {address} has no metrics of revision {', '.join(unseen)}" if unseen else None
    return Snapshot(samples(metrics, points), names, unread, problem)


def _selector(namespace: str, pods: list[str]) -> str:
    return f'{{__name__=~"{"|".join(FAMILIES)}",namespace="{namespace}",pod=~"{"|".join(pods)}"}}'


async def _instant(session: aiohttp.ClientSession, address: str, selector: str) -> list[Mapping[str, Any]]:
    url = f"{address.rstrip('/')}/api/v1/query"
    async with session.post(url, data={"query": selector}, timeout=_TIMEOUT) as response:
        answer = await response.json(content_type=None)
    if answer.get("status") != "success":
        raise ValueError(answer.get("error", f"HTTP {response.status}"))
    result: list[Mapping[str, Any]] = answer["data"]["result"]
    return result


def to_points(result: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The points of an instant vector. A pod without a start time among them is left out: its resets are unseen."""
    started = {
        entry["metric"]["pod"]: float(entry["value"][1]) for entry in result if entry["metric"]["__name__"] == STARTED
    }
    return [
        Point(
            series=f"{pod}/{started[pod]:.0f}",
            name=entry["metric"]["__name__"],
            labels=entry["metric"],
            value=float(entry["value"][1]),
        )
        for entry in result
        if entry["metric"]["__name__"] != STARTED and (pod := entry["metric"]["pod"]) in started
    ]
