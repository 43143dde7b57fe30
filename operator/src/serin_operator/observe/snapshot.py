"""One look at everything that is counted: model servers, restarts, custom metrics."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import aiohttp

from serin_operator.api.spec import Analysis, MetricType
from serin_operator.decide.keys import metric_key
from serin_operator.decide.observed import Snapshot
from serin_operator.observe.cache import Place
from serin_operator.observe.custom import SERIES, CustomReading, read_custom
from serin_operator.observe.pods import Pod, restarts
from serin_operator.observe.prometheus import Prometheus, read_prometheus
from serin_operator.observe.samples import samples, wanted
from serin_operator.observe.scrape import scrape


async def look(
    session: aiohttp.ClientSession,
    address: str | None,
    place: Place,
    pods: Iterable[Pod],
    analysis: Analysis,
    arms: Collection[str],
    now: float,
    *,
    shadow: bool = False,
) -> Snapshot:
    """Reads what the analysis needs of each arm, from the Prometheus at `address` or else from the pods.

    An arm without any readable pod is a problem: nothing can be compared. A single pod or a custom metric that can
    not be read is `unread`, and everything else counts.
    """
    servers = [pod for pod in pods if pod.component == "server"]
    serving = [pod for pod in servers if pod.serving]
    names = frozenset(pod.name for pod in servers)
    prometheus = Prometheus(session, address) if address else None
    needed = wanted(analysis.metrics, analysis.label_window, shadow=shadow)
    if prometheus is None:
        reading = await scrape(session, serving, needed)
    else:
        reading = await read_prometheus(prometheus, place[0], servers, needed)
    problem = reading.problem or _unseen(serving, reading.unread, arms)
    if problem:
        return Snapshot(pods=names, unread=tuple(reading.unread), problem=problem)
    metrics = [metric for metric in analysis.metrics if metric.type is MetricType.CUSTOM]
    if prometheus is None:
        custom = CustomReading(unread={metric.name: _NO_PROMETHEUS for metric in metrics})
    else:
        custom = await read_custom(prometheus, place, metrics, arms, now)
    found = dict(samples(analysis.metrics, reading.points, analysis.label_window))
    for metric in analysis.metrics:
        if metric.type is MetricType.RESTARTS:
            found[metric_key(metric, analysis.label_window)] = restarts(servers, now)
        elif metric.name in custom.samples:
            found[metric_key(metric, analysis.label_window)] = custom.samples[metric.name]
    return Snapshot(
        samples=found,
        processes=reading.processes,
        pods=names | ({SERIES} if custom.unread else set()),
        unread=(*reading.unread, *(f"custom metric {name} ({why})" for name, why in custom.unread.items())),
        unclocked=custom.series,
    )


_NO_PROMETHEUS = "it needs a Prometheus: set spec.analysis.prometheus.address or the chart's prometheus.address"


def _unseen(serving: Sequence[Pod], unread: Mapping[str, str], arms: Iterable[str]) -> str | None:
    """What is wrong when an arm has no pod that was read."""
    read = {pod.revision for pod in serving if pod.name not in unread}
    unseen = [arm for arm in arms if arm not in read]
    if not unseen:
        return None
    why = "; ".join(f"{name}: {reason}" for name, reason in unread.items()) or "no pod of it serves"
    return f"no metrics of revision {', '.join(unseen)} ({why})"
