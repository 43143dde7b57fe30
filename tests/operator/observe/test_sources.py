"""Counters from model servers and from Prometheus: what is read, and what can not be seen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from tests.operator.observe.http import answering, pod

from serin_operator.api.spec import Analysis, Metric, MetricType
from serin_operator.decide.evidence import Counts
from serin_operator.decide.observed import Snapshot
from serin_operator.observe.pods import Pod
from serin_operator.observe.prometheus import to_points
from serin_operator.observe.samples import samples, wanted
from serin_operator.observe.scrape import parse
from serin_operator.observe.snapshot import look

ERRORS = Metric("errors", MetricType.ERRORS, 0.01)
LATENCY = Metric("latency", MetricType.LATENCY, 0.05, slower_than=0.25)
ACCURACY = Metric("accuracy", MetricType.ACCURACY, 0.02)
RESTARTS = Metric("restarts", MetricType.RESTARTS, 0.02)
ALL = (ERRORS, LATENCY, ACCURACY)
CANARY, STABLE = "b" * 10, "a" * 10
NOW = 1_750_000_100.5

EXPOSITION = """\
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.75000000047e+09
# HELP serin_requests_total Inference requests.
# TYPE serin_requests_total counter
serin_requests_total{attempt="first",code="200",model="iris",revision="REV"} 970.0
serin_requests_total{attempt="first",code="503",model="iris",revision="REV"} 20.0
serin_requests_total{attempt="first",code="499",model="iris",revision="REV"} 7.0
serin_requests_total{attempt="first",code="422",model="iris",revision="REV"} 3.0
serin_requests_total{attempt="retry",code="200",model="iris",revision="REV"} 5000.0
# TYPE serin_requests_created gauge
serin_requests_created{attempt="first",code="200",model="iris",revision="REV"} 1.750000001e+09
# TYPE serin_request_duration_seconds histogram
serin_request_duration_seconds_bucket{attempt="first",le="0.2",model="iris",revision="REV"} 800.0
serin_request_duration_seconds_bucket{attempt="first",le="0.25",model="iris",revision="REV"} 900.0
serin_request_duration_seconds_bucket{attempt="first",le="1.0",model="iris",revision="REV"} 990.0
serin_request_duration_seconds_bucket{attempt="first",le="+Inf",model="iris",revision="REV"} 1000.0
serin_request_duration_seconds_count{attempt="first",model="iris",revision="REV"} 1000.0
serin_request_duration_seconds_sum{attempt="first",model="iris",revision="REV"} 87.5
serin_request_duration_seconds_bucket{attempt="retry",le="+Inf",model="iris",revision="REV"} 5000.0
# TYPE serin_feedback_total counter
serin_feedback_total{actual="0",attempt="first",model="iris",predicted="0",revision="REV"} 90.0
serin_feedback_total{actual="0",attempt="first",model="iris",predicted="1",revision="REV"} 10.0
serin_feedback_total{actual="1",attempt="retry",model="iris",predicted="0",revision="REV"} 50.0
serin_feedback_total{actual="1",attempt="first",model="iris",predicted="1",revision="OTHER"} 4.0
serin_feedback_settled_total{actual="0",attempt="first",model="iris",predicted="1",revision="REV",window="60"} 8.0
serin_feedback_settled_total{actual="0",attempt="first",model="iris",predicted="1",revision="REV",window="600"} 6.0
serin_predictions_settled_total{attempt="first",model="iris",revision="REV",window="60"} 900.0
serin_feedback_refused_total{model="iris",reason="expired"} 3.0
python_info{implementation="CPython"} 1.0
"""
SERIES = "pod-0/1750000000"


def exposition(revision: str, text: str = EXPOSITION) -> str:
    return text.replace("REV", revision).replace("OTHER", STABLE if revision == CANARY else CANARY)


async def seen(
    session: aiohttp.ClientSession,
    pods: Sequence[Pod],
    *,
    address: str | None = None,
    metrics: Sequence[Metric] = (ERRORS,),
    window: float = 0,
    arms: Sequence[str] = (CANARY, STABLE),
) -> Snapshot:
    """A look at these pods."""
    analysis = Analysis(30, 0.05, 0.05, None, window, 0, 0, tuple(metrics))
    return await look(session, address, ("shop", "iris"), pods, analysis, arms, NOW)


def test_an_exposition_is_reduced_to_failures_and_trials() -> None:
    process, points = parse("pod-0", exposition(CANARY), wanted(ALL, 0))
    assert process == SERIES
    assert samples(ALL, points, 0) == {
        "requests": {CANARY: {SERIES: Counts(0, 1000)}},
        "errors": {CANARY: {SERIES: Counts(30, 1000)}},
        "latency@0.25": {CANARY: {SERIES: Counts(100, 1000)}},
        # A pod also counts labels of predictions that the other revision made.
        "accuracy@0": {CANARY: {SERIES: Counts(10, 100)}, STABLE: {SERIES: Counts(0, 4)}},
    }


def test_only_the_series_that_are_needed_are_parsed() -> None:
    broken = EXPOSITION.replace('window="600"} 6.0', 'window="600"} x').replace("87.5", "x")
    _, points = parse("pod-0", broken, wanted([ACCURACY], 60))
    assert {(point.name, point.value) for point in points if "window" in point.labels} == {
        ("serin_feedback_settled_total", 8.0),
        ("serin_predictions_settled_total", 900.0),
    }
    with pytest.raises(ValueError, match="x"):
        parse("pod-0", broken, wanted([ACCURACY], 600))


def test_a_class_that_looks_like_a_window_is_read() -> None:
    cell = 'serin_feedback_settled_total{actual="window=\\"600\\"",predicted="",revision="r",window="60"} 1.0\n'
    _, points = parse("pod-0", "process_start_time_seconds 1.75e+09\n" + cell, wanted([ACCURACY], 60))
    assert [point.labels["actual"] for point in points] == ['window="600"']
    assert parse("pod-0", "process_start_time_seconds 1.75e+09\n" + cell, wanted([ACCURACY], 600))[1] == []


def test_a_process_that_has_counted_nothing_is_still_a_process() -> None:
    text = 'process_start_time_seconds 1.75e+09\nserin_requests_total{attempt="first",code="200",revision="r"} 0.0\n'
    process, points = parse("pod-0", text, wanted([ERRORS], 0))
    assert process == SERIES
    assert samples([ERRORS], points, 0)["errors"] == {"r": {SERIES: Counts(0, 0)}}


def test_another_start_is_another_series() -> None:
    later = exposition(CANARY).replace("1.75000000047e+09", "1.75000009e+09")
    assert parse("pod-0", later, wanted([ERRORS], 0))[0] == "pod-0/1750000090"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not metrics</html>",
        "process_start_time_seconds\n",
        "process_start_time_seconds soon\n",
        *(f"process_start_time_seconds {never}\n" for never in ("NaN", "+Inf", "-1", "0")),
        'serin_requests_total{code="200"} 1\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200" 1\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200",revision="r"} NaN\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200",revision="r"} +Inf\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200",revision="r"} -1\n',
    ],
)
def test_what_is_no_exposition_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        parse("pod-0", text, wanted([ERRORS], 0))


# --- scraping


def servers() -> list[Any]:
    return [pod("s-0", "127.0.0.2", revision=STABLE), pod("c-0", "127.0.0.3", revision=CANARY)]


async def test_every_serving_pod_is_read(port: int, session: aiohttp.ClientSession) -> None:
    pods = [
        *servers(),
        pod("c-1", "127.0.0.4", revision=CANARY, ready=False),
        pod("router", "127.0.0.5", component="router"),
    ]
    async with (
        answering("127.0.0.2", port, exposition(STABLE)) as asked,
        answering("127.0.0.3", port, exposition(CANARY)),
    ):
        found = await seen(session, pods)
    assert asked == ["GET /metrics"]
    assert (found.problem, found.unread) == (None, ())
    assert found.pods == {"s-0", "c-0", "c-1"}
    assert found.processes == {"s-0/1750000000", "c-0/1750000000"}
    assert found.samples["errors"] == {
        STABLE: {"s-0/1750000000": Counts(30, 1000)},
        CANARY: {"c-0/1750000000": Counts(30, 1000)},
    }


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(None, 200, id="hangs"),
        pytest.param("no", 500, id="500"),
        pytest.param("no", 404, id="404"),
        pytest.param("<html>", 200, id="garbage"),
        pytest.param(EXPOSITION.replace("970.0", "NaN"), 200, id="not a number"),
    ],
)
async def test_an_arm_that_can_not_be_read_is_a_problem(
    answer: Any, status: int, port: int, session: aiohttp.ClientSession
) -> None:
    async with (
        answering("127.0.0.2", port, exposition(STABLE)),
        answering("127.0.0.3", port, answer, status=status),
    ):
        found = await seen(session, servers())
    assert found.problem and found.problem.startswith(f"no metrics of revision {CANARY} (c-0: ")
    assert found.unread == ("c-0",)


async def test_one_pod_of_an_arm_that_can_not_be_read_is_named(port: int, session: aiohttp.ClientSession) -> None:
    pods = [*servers(), pod("c-1", "127.0.0.4", revision=CANARY)]
    async with (
        answering("127.0.0.2", port, exposition(STABLE)),
        answering("127.0.0.3", port, exposition(CANARY)),
    ):
        found = await seen(session, pods)
    assert (found.problem, found.unread) == (None, ("c-1",))


async def test_an_arm_without_a_serving_pod_is_a_problem(port: int, session: aiohttp.ClientSession) -> None:
    async with answering("127.0.0.2", port, exposition(STABLE)):
        found = await seen(session, servers()[:1])
    assert found.problem == f"no metrics of revision {CANARY} (no pod of it serves)"


# --- Prometheus


def entry(name: str, value: str, **labels: str) -> dict[str, Any]:
    return {"metric": {"__name__": name, "namespace": "shop", **labels}, "value": [1_750_000_100.5, value]}


def vector(name: str, revision: str, job: str = "pods") -> list[dict[str, Any]]:
    common = {"pod": name, "revision": revision, "attempt": "first", "job": job, "model": "iris"}
    return [
        entry("process_start_time_seconds", "1750000000.47", pod=name, job=job),
        entry("serin_requests_total", "970", code="200", **common),
        entry("serin_requests_total", "30", code="503", **common),
    ]


def success(result: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def instant(*entries: dict[str, Any]) -> list[tuple[dict[str, str], float]]:
    """What the client makes of an answer."""
    return [(entry["metric"], float(entry["value"][1])) for entry in entries]


def test_an_instant_vector_becomes_the_same_counts() -> None:
    points, processes = to_points(instant(*vector("s-0", STABLE), *vector("c-0", CANARY)))
    assert processes == {"s-0/1750000000", "c-0/1750000000"}
    assert samples([ERRORS], points, 0)["errors"][CANARY] == {"c-0/1750000000": Counts(30, 1000)}


def test_a_pod_that_two_jobs_scrape_counts_once() -> None:
    points, processes = to_points(instant(*vector("c-0", CANARY), *vector("c-0", CANARY, job="again")))
    assert processes == {"c-0/1750000000"}
    assert samples([ERRORS], points, 0)["errors"] == {CANARY: {"c-0/1750000000": Counts(30, 1000)}}


@pytest.mark.parametrize("late", ["pods", "again"])
def test_what_one_job_has_of_the_process_before_does_not_count_for_the_new_one(late: str) -> None:
    """As where two replicas of Prometheus are asked as one, and each has scraped at its own moment."""
    [early] = {"pods", "again"} - {late}
    start, good, bad = vector("c-0", CANARY, job=early)
    anew = [{**start, "value": [0, "1750000080.2"]}, {**good, "value": [0, "7"]}, {**bad, "value": [0, "1"]}]
    points, processes = to_points(instant(*vector("c-0", CANARY, job=late), *anew))
    counts = {"c-0/1750000000": Counts(30, 1000), "c-0/1750000080": Counts(1, 8)}
    assert samples([ERRORS], points, 0)["errors"] == {CANARY: counts}
    assert processes == counts.keys()


def test_counters_may_have_labels_that_the_start_time_of_their_process_has_not() -> None:
    start, *counters = vector("c-0", CANARY)
    more = [{**each, "metric": {**each["metric"], "method": "POST"}} for each in counters]
    points, _ = to_points(instant(start, *more))
    assert samples([ERRORS], points, 0)["errors"] == {CANARY: {"c-0/1750000000": Counts(30, 1000)}}


def test_counters_of_a_job_that_keeps_no_start_time_are_left_out() -> None:
    """Another job's may be that of a sidecar, which does not start anew when the server does."""
    start, *counters = vector("c-0", CANARY)
    elsewhere = {**start, "metric": {**start["metric"], "job": "sidecars"}}
    assert to_points(instant(elsewhere, *counters))[0] == []


def test_series_of_one_cell_in_two_windows_are_two() -> None:
    start = vector("c-0", CANARY)[0]
    cell = {"pod": "c-0", "job": "pods", "revision": CANARY, "actual": "a", "predicted": "a"}
    name = "serin_feedback_settled_total"
    points, _ = to_points(instant(start, entry(name, "5", window="60", **cell), entry(name, "3", window="300", **cell)))
    assert samples([ACCURACY], points, 300)["accuracy@300"] == {CANARY: {"c-0/1750000000": Counts(0, 3)}}


@pytest.mark.parametrize("never", ["NaN", "+Inf", "0"])
def test_a_start_time_that_is_none_spoils_the_answer(never: str) -> None:
    start, *others = vector("c-0", CANARY)
    with pytest.raises(ValueError, match="process_start_time_seconds of c-0"):
        to_points(instant({**start, "value": [0, never]}, *others))


def test_a_pod_without_a_start_time_is_left_out() -> None:
    points, processes = to_points(instant(*vector("c-0", CANARY)[1:]))
    assert (points, processes) == ([], frozenset())


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-3"])
def test_values_that_no_counter_has_are_errors(value: str) -> None:
    series = vector("c-0", CANARY)
    series[1]["value"][1] = value
    with pytest.raises(ValueError, match="counter"):
        to_points(instant(*series))


async def test_prometheus_is_asked_once_for_all_pods(port: int, session: aiohttp.ClientSession) -> None:
    pods = [*servers(), pod("router", "127.0.0.5", component="router")]
    answer = success([*vector("s-0", STABLE), *vector("c-0", CANARY)])
    async with answering("127.0.0.9", port, answer) as asked:
        found = await seen(session, pods, address=f"http://127.0.0.9:{port}/", metrics=ALL, window=300)
    (request,) = asked
    assert request.startswith("POST /api/v1/query query={__name__=~")
    assert 'namespace="shop",pod=~"c-0|s-0",window=~"|300"}' in request
    assert "rate(" not in request
    assert (found.problem, found.unread) == (None, ())
    assert found.pods == {"s-0", "c-0"}
    assert found.samples["errors"].keys() == {CANARY, STABLE}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(None, 200, id="hangs"),
        pytest.param("bad gateway", 502, id="502"),
        pytest.param({"status": "error", "errorType": "execution", "error": "query timed out"}, 503, id="error"),
        pytest.param([], 200, id="a list"),
        pytest.param({}, 200, id="nothing"),
        pytest.param({"status": "success", "data": None}, 200, id="no data"),
        pytest.param(success(["garbage"]), 200, id="garbage"),
        pytest.param(success([{"metric": {}}]), 200, id="no name"),
        pytest.param(success([entry("serin_requests_total", "NaN", pod="c-0")]), 200, id="not a number"),
        pytest.param(success([]), 200, id="knows nothing of the pods"),
    ],
)
async def test_a_prometheus_that_does_not_tell_is_a_problem(
    answer: Any, status: int, port: int, session: aiohttp.ClientSession
) -> None:
    async with answering("127.0.0.9", port, answer, status=status):
        found = await seen(session, servers(), address=f"http://127.0.0.9:{port}")
    assert found.problem and f"Prometheus at http://127.0.0.9:{port}" in found.problem
    assert found.pods == {"s-0", "c-0"}


async def test_prometheus_that_knows_one_arm_only_is_a_problem(port: int, session: aiohttp.ClientSession) -> None:
    async with answering("127.0.0.9", port, success(vector("s-0", STABLE))):
        found = await seen(session, servers(), address=f"http://127.0.0.9:{port}")
    assert found.problem == (
        f"no metrics of revision {CANARY} (c-0: Prometheus at http://127.0.0.9:{port} has nothing of it)"
    )
    assert found.unread == ("c-0",)


async def test_a_pod_that_is_not_ready_counts_when_prometheus_knows_it(
    port: int, session: aiohttp.ClientSession
) -> None:
    pods = [*servers(), pod("c-1", "127.0.0.4", revision=CANARY, ready=False)]
    answer = success(
        [line for name, arm in (("s-0", STABLE), ("c-0", CANARY), ("c-1", CANARY)) for line in vector(name, arm)]
    )
    async with answering("127.0.0.9", port, answer):
        found = await seen(session, pods, address=f"http://127.0.0.9:{port}")
    assert found.samples["errors"][CANARY].keys() == {"c-0/1750000000", "c-1/1750000000"}


@pytest.mark.parametrize("address", [None, "http://127.0.0.9:{port}"])
async def test_without_pods_nothing_is_asked(address: str | None, port: int, session: aiohttp.ClientSession) -> None:
    async with answering("127.0.0.9", port, "") as asked:
        found = await seen(session, [], address=address and address.format(port=port))
    assert asked == []
    assert found.problem == f"no metrics of revision {CANARY}, {STABLE} (no pod of it serves)"


# --- restarts


async def test_restarts_are_counted_from_the_pods_themselves(port: int, session: aiohttp.ClientSession) -> None:
    pods = [replace(one, started=NOW - 600, restarts=2) for one in servers()]
    async with (
        answering("127.0.0.2", port, exposition(STABLE)),
        answering("127.0.0.3", port, exposition(CANARY)),
    ):
        found = await seen(session, pods, metrics=[RESTARTS])
    assert found.samples["restarts"][CANARY] == {f"c-0/{NOW - 600:.0f}": Counts(2, 10)}
