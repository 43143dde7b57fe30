"""The other metrics source: the same raw counters from a Prometheus server, never rate() or increase()."""

from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from serin_operator.api.spec import Metric
from serin_operator.decide.observed import Snapshot
from serin_operator.observe.pods import Pod
from serin_operator.observe.samples import FAMILIES, STARTED, Point, samples

# What tells a model server's own series apart; Prometheus adds labels such as job, which do not.
_IDENTITY = ("__name__", "model", "revision", "code", "le", "actual", "predicted", "attempt")
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
        points, processes = to_points(result)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
        return Snapshot(pods=names, problem=f"Prometheus at {address}: {type(error).__name__} {error}".strip())
    read = {process.partition("/")[0] for process in processes}
    serving = [pod for pod in pods if pod.serving]
    unread = tuple(pod.name for pod in serving if pod.name not in read)
    seen = {pod.revision for pod in serving if pod.name in read}
    unseen = [arm for arm in arms if arm not in seen]
    problem = f"Prometheus at {address} has no metrics of revision {', '.join(unseen)}" if unseen else None
    return Snapshot(samples(metrics, points), processes, names, unread, problem)


def _selector(namespace: str, pods: list[str]) -> str:
    return f'{{__name__=~"{"|".join(FAMILIES)}",namespace="{namespace}",pod=~"{"|".join(pods)}"}}'


async def _instant(session: aiohttp.ClientSession, address: str, selector: str) -> list[Mapping[str, Any]]:
    url = f"{address.rstrip('/')}/api/v1/query"
    async with session.post(url, data={"query": selector}, timeout=_TIMEOUT) as response:
        answer = await response.json(content_type=None)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        raise ValueError(answer.get("error") if isinstance(answer, dict) else f"HTTP {response.status}")
    result: list[Mapping[str, Any]] = answer["data"]["result"]
    return result


def to_points(result: Iterable[Mapping[str, Any]]) -> tuple[list[Point], frozenset[str]]:
    """The points of an instant vector, and the series of the processes in it.

    A pod without a start time among them is left out: its resets would be unseen. A pod that two jobs scrape
    appears twice; the later of each counter, which is the greater, is taken.
    """
    started: dict[str, float] = {}
    latest: dict[tuple[str, ...], Point] = {}
    entries = list(result)
    for entry in entries:
        if entry["metric"]["__name__"] == STARTED:
            pod = entry["metric"]["pod"]
            started[pod] = max(started.get(pod, 0.0), float(entry["value"][1]))
    for entry in entries:
        labels, value = entry["metric"], float(entry["value"][1])
        if labels["__name__"] == STARTED or labels["pod"] not in started:
            continue
        key = (labels["pod"], *(labels.get(name, "") for name in _IDENTITY))
        series = f"{labels['pod']}/{started[labels['pod']]:.0f}"
        if key not in latest or value > latest[key].value:
            latest[key] = Point(series, labels["__name__"], labels, value)
    return list(latest.values()), frozenset(f"{pod}/{start:.0f}" for pod, start in started.items())
