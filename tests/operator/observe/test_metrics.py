"""Counters from model servers and from Prometheus: what counts, what does not, and what can not be seen."""

from typing import Any

import aiohttp
import pytest
from tests.operator.observe.http import answering, pod

from serin_operator.api.spec import Metric
from serin_operator.decide.evidence import Counts
from serin_operator.observe.prometheus import query, to_points
from serin_operator.observe.samples import Point, samples
from serin_operator.observe.scrape import parse, scrape

ERRORS = Metric("errors", 0.01, 0.0, None)
LATENCY = Metric("latency", 0.05, 0.0, 0.25)
ACCURACY = Metric("accuracy", 0.02, 0.0, None)
ALL = (ERRORS, LATENCY, ACCURACY)
CANARY, STABLE = "b" * 10, "a" * 10

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
serin_feedback_refused_total{model="iris",reason="expired"} 3.0
python_info{implementation="CPython"} 1.0
"""
SERIES = "pod-0/1750000000"


def exposition(revision: str, text: str = EXPOSITION) -> str:
    return text.replace("REV", revision).replace("OTHER", STABLE if revision == CANARY else CANARY)


def test_an_exposition_is_reduced_to_failures_and_trials() -> None:
    process, points = parse("pod-0", exposition(CANARY))
    assert process == SERIES
    assert samples(ALL, points) == {
        "errors": {CANARY: {SERIES: Counts(30, 1000)}},
        "latency@0.25": {CANARY: {SERIES: Counts(100, 1000)}},
        # A pod also counts labels of predictions that the other revision made.
        "accuracy": {CANARY: {SERIES: Counts(10, 100)}, STABLE: {SERIES: Counts(0, 4)}},
    }


def test_what_the_router_sent_again_is_left_out() -> None:
    _, points = parse("pod-0", exposition(CANARY))
    only_retries = [point for point in points if point.labels["attempt"] == "retry"]
    assert len(only_retries) == 3
    assert samples(ALL, only_retries) == {"errors": {}, "latency@0.25": {}, "accuracy": {}}


def test_a_process_that_has_counted_nothing_is_still_a_process() -> None:
    text = 'process_start_time_seconds 1.75e+09\nserin_requests_total{attempt="first",code="200",revision="r"} 0.0\n'
    process, points = parse("pod-0", text)
    assert process == SERIES
    assert samples([ERRORS], points) == {"errors": {"r": {SERIES: Counts(0, 0)}}}


def test_another_start_is_another_series() -> None:
    later = exposition(CANARY).replace("1.75000000047e+09", "1.75000009e+09")
    assert parse("pod-0", later)[0] == "pod-0/1750000090"


def test_buckets_and_count_of_different_instants_make_no_negative_failures() -> None:
    labels = {"attempt": "first", "revision": "r"}
    points = [
        Point("s", "serin_request_duration_seconds_bucket", labels | {"le": "0.25"}, 12.0),
        Point("s", "serin_request_duration_seconds_bucket", labels | {"le": "+Inf"}, 10.0),
    ]
    assert samples([LATENCY], points) == {"latency@0.25": {"r": {"s": Counts(0, 10)}}}


@pytest.mark.parametrize("slower_than", [0.001, 0.0025, 0.3, 30.0])
def test_a_bound_is_found_however_it_is_written(slower_than: float) -> None:
    labels = {"attempt": "first", "revision": "r"}
    points = [
        Point("s", "serin_request_duration_seconds_bucket", labels | {"le": str(slower_than)}, 9.0),
        Point("s", "serin_request_duration_seconds_bucket", labels | {"le": "+Inf"}, 10.0),
    ]
    (counts,) = samples([Metric("latency", 0.05, 0.0, slower_than)], points).values()
    assert counts == {"r": {"s": Counts(1, 10)}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not metrics</html>",
        "process_start_time_seconds\n",
        "process_start_time_seconds soon\n",
        'serin_requests_total{code="200"} 1\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200" 1\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200",revision="r"} NaN\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200",revision="r"} +Inf\n',
        'process_start_time_seconds 1.0\nserin_requests_total{code="200",revision="r"} -1\n',
    ],
)
def test_what_is_no_exposition_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own words
        parse("pod-0", text)


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
        found = await scrape(session, pods, [ERRORS], [CANARY, STABLE])
    assert asked == ["GET /metrics"]
    assert (found.problem, found.unread) == (None, ())
    assert found.pods == {"s-0", "c-0", "c-1"}
    assert found.processes == {"s-0/1750000000", "c-0/1750000000"}
    assert found.samples == {
        "errors": {STABLE: {"s-0/1750000000": Counts(30, 1000)}, CANARY: {"c-0/1750000000": Counts(30, 1000)}}
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
        found = await scrape(session, servers(), [ERRORS], [CANARY, STABLE])
    assert found.problem and found.problem.startswith(f"no metrics of revision {CANARY} (c-0: ")
    assert found.unread == ("c-0",)


async def test_one_pod_of_an_arm_that_can_not_be_read_is_named(port: int, session: aiohttp.ClientSession) -> None:
    pods = [*servers(), pod("c-1", "127.0.0.4", revision=CANARY)]
    async with (
        answering("127.0.0.2", port, exposition(STABLE)),
        answering("127.0.0.3", port, exposition(CANARY)),
    ):
        found = await scrape(session, pods, [ERRORS], [CANARY, STABLE])
    assert (found.problem, found.unread) == (None, ("c-1",))


async def test_an_arm_without_a_serving_pod_is_a_problem(port: int, session: aiohttp.ClientSession) -> None:
    async with answering("127.0.0.2", port, exposition(STABLE)):
        found = await scrape(session, servers()[:1], [ERRORS], [CANARY, STABLE])
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


def test_an_instant_vector_becomes_the_same_counts() -> None:
    points, processes = to_points([*vector("s-0", STABLE), *vector("c-0", CANARY)])
    assert processes == {"s-0/1750000000", "c-0/1750000000"}
    assert samples([ERRORS], points)["errors"][CANARY] == {"c-0/1750000000": Counts(30, 1000)}


def test_a_pod_that_two_jobs_scrape_counts_once() -> None:
    points, processes = to_points([*vector("c-0", CANARY), *vector("c-0", CANARY, job="again")])
    assert processes == {"c-0/1750000000"}
    assert samples([ERRORS], points) == {"errors": {CANARY: {"c-0/1750000000": Counts(30, 1000)}}}


def test_a_pod_without_a_start_time_is_left_out() -> None:
    points, processes = to_points(vector("c-0", CANARY)[1:])
    assert (points, processes) == ([], frozenset())


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-3"])
def test_values_that_no_counter_has_are_errors(value: str) -> None:
    series = vector("c-0", CANARY)
    series[1]["value"][1] = value
    with pytest.raises(ValueError, match="counter"):
        to_points(series)


async def test_prometheus_is_asked_once_for_all_pods(port: int, session: aiohttp.ClientSession) -> None:
    pods = [*servers(), pod("router", "127.0.0.5", component="router")]
    answer = success([*vector("s-0", STABLE), *vector("c-0", CANARY)])
    async with answering("127.0.0.9", port, answer) as asked:
        found = await query(session, f"http://127.0.0.9:{port}/", "shop", pods, [ERRORS], [CANARY, STABLE])
    (request,) = asked
    assert request.startswith("POST /api/v1/query query={__name__=~")
    assert 'namespace="shop",pod=~"c-0|s-0"' in request
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
        found = await query(session, f"http://127.0.0.9:{port}", "shop", servers(), [ERRORS], [CANARY, STABLE])
    assert found.problem and found.problem.startswith("Prometheus at http://127.0.0.9:")
    assert found.pods == {"s-0", "c-0"}


async def test_prometheus_that_knows_one_arm_only_is_a_problem(port: int, session: aiohttp.ClientSession) -> None:
    async with answering("127.0.0.9", port, success(vector("s-0", STABLE))):
        found = await query(session, f"http://127.0.0.9:{port}", "shop", servers(), [ERRORS], [CANARY, STABLE])
    assert found.problem and found.problem.endswith(f"has no metrics of revision {CANARY}")
    assert found.unread == ("c-0",)


async def test_without_pods_prometheus_is_not_asked(session: aiohttp.ClientSession) -> None:
    found = await query(session, "http://127.0.0.9:1", "shop", [], [ERRORS], [CANARY, STABLE])
    assert found.problem == "no model server pod exists"
