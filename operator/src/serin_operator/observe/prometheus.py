"""The other metrics source: the same raw counters from a Prometheus server, never rate() or increase()."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import aiohttp

from serin_operator.observe.pods import Pod
from serin_operator.observe.samples import STARTED, Point, Reading, Wanted, series_of

# Every label of a model server's own series, which tell them apart; Prometheus adds others, such as job, which do not.
_IDENTITY = (
    *("__name__", "model", "revision", "code", "le", "actual", "predicted", "attempt", "window"),
    *("stable", "answers", "wrong", "by"),
    *("feature", "bin"),
)
_Labels = Set[tuple[str, str]]
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class PrometheusError(Exception):
    """The server could not be asked, or did not answer with what was asked for. The text says which.

    answered: whether there was any answer.
    """

    def __init__(self, text: str, *, answered: bool = True) -> None:
        super().__init__(text)
        self.answered = answered


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus server, or what speaks its API."""

    session: aiohttp.ClientSession
    address: str

    async def instant(self, query: str, at: float | None = None) -> list[tuple[Mapping[str, str], float]]:
        """The labels and values of an instant query, at a time in seconds since 1970. Raises PrometheusError."""
        form = {"query": query} if at is None else {"query": query, "time": f"{at:.3f}"}
        data = await self._ask("POST", "query", data=form)
        try:
            if data["resultType"] != "vector":
                raise PrometheusError(f"it answers with a {data['resultType']}, not with an instant vector")
            return [(dict(entry["metric"]), float(entry["value"][1])) for entry in data["result"]]
        except (LookupError, TypeError, ValueError) as error:
            raise PrometheusError(f"no instant vector: {type(error).__name__} {error}") from error

    async def types(self, name: str) -> set[str]:
        """The types that targets gave a metric, such as counter or gauge; none when the server does not know.

        Not every server that takes queries keeps metadata. Raises PrometheusError.
        """
        try:
            data = await self._ask("GET", "metadata", params={"metric": name})
        except PrometheusError as error:
            if error.answered:
                return set()
            raise
        try:
            return {entry["type"] for entry in data.get(name, ())}
        except (AttributeError, LookupError, TypeError) as error:
            raise PrometheusError(f"no metadata: {type(error).__name__} {error}") from error

    async def _ask(self, method: str, path: str, **request: Any) -> Any:
        url = f"{self.address.rstrip('/')}/api/v1/{path}"
        try:
            async with self.session.request(method, url, timeout=_TIMEOUT, **request) as response:
                text = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PrometheusError(f"{type(error).__name__} {error}".strip(), answered=False) from error
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise PrometheusError(f"HTTP {response.status} and no JSON: is this a Prometheus?") from error
        if not isinstance(answer, dict) or answer.get("status") != "success":
            told = answer.get("error") if isinstance(answer, dict) else None
            raise PrometheusError(told or f"HTTP {response.status}")
        return answer.get("data")


async def read_prometheus(server: Prometheus, namespace: str, pods: Iterable[Pod], wanted: Wanted) -> Reading:
    """One instant query for all counters of these pods. The scrape must keep `namespace` and `pod` as labels."""
    pods = list(pods)
    names = sorted(pod.name for pod in pods)
    if not names:
        return Reading()
    try:
        points, processes = to_points(await server.instant(_selector(namespace, names, wanted)))
    except (PrometheusError, ValueError) as error:
        return Reading(problem=f"Prometheus at {server.address}: {error}")
    read = {process.partition("/")[0] for process in processes}
    missing = [pod.name for pod in pods if pod.serving and pod.name not in read]
    return Reading(points, processes, dict.fromkeys(missing, f"Prometheus at {server.address} has nothing of it"))


def _selector(namespace: str, pods: list[str], wanted: Wanted) -> str:
    families, names = "|".join(wanted.families), "|".join(pods)
    return f'{{__name__=~"{families}",namespace="{namespace}",pod=~"{names}",window=~"|{wanted.window}"}}'


def to_points(result: Iterable[tuple[Mapping[str, str], float]]) -> tuple[list[Point], frozenset[str]]:
    """The points of an instant vector, and the series of the processes in it.

    A counter belongs to the process whose start time was scraped with it, whose labels it bears besides its own.
    Without one it is left out: resets would be unseen. What two jobs scrape appears twice; the later of each counter,
    which is the greater, is taken. Raises ValueError for what no model server counts.
    """
    started: dict[str, list[tuple[_Labels, str]]] = defaultdict(list)
    latest: dict[tuple[str, ...], Point] = {}
    entries = list(result)
    for labels, value in entries:
        if labels.get("__name__") == STARTED:
            pod = _pod(labels)
            started[pod].append((_target(labels), series_of(pod, value)))
    for labels, value in entries:
        name = labels.get("__name__", "")
        series = next((series for target, series in started[_pod(labels)] if target <= labels.items()), None)
        if name == STARTED or series is None:
            continue
        key = (series, *(labels.get(label, "") for label in _IDENTITY))
        if key not in latest or value > latest[key].value:
            latest[key] = Point(series, name, labels, value)
    return list(latest.values()), frozenset(series for found in started.values() for _, series in found)


def _target(labels: Mapping[str, str]) -> _Labels:
    """What all series of one scrape share."""
    return {item for item in labels.items() if item[0] != "__name__"}


def _pod(labels: Mapping[str, str]) -> str:
    if "pod" not in labels:
        raise ValueError(f"a series of {labels.get('__name__', 'no name')} has no label pod")
    return labels["pod"]
