"""Custom metrics: pairs of queries, what they may ask, and what their answers count."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.operator.observe.http import answering, pod

from serin_operator.api.spec import Analysis, Metric, MetricType, Queries
from serin_operator.decide.evidence import Counts
from serin_operator.observe.custom import CustomReading, check, fill, names, read_custom
from serin_operator.observe.prometheus import Prometheus, PrometheusError
from serin_operator.observe.snapshot import look

CANARY, STABLE = "b" * 10, "a" * 10
PLACE = ("shop", "iris")
NOW = 1_750_000_100.5
HOST = "127.0.0.9"
REFUNDS, ORDERS = 'refunds_total{revision="$revision"}', 'orders_total{revision="$revision"}'

Vector = Sequence[tuple[Mapping[str, str], str]]


def metric(failures: str = REFUNDS, trials: str = ORDERS, name: str = "refunds") -> Metric:
    return Metric(name, MetricType.CUSTOM, 0.01, queries=Queries(failures, trials))


class Shop:
    """A Prometheus that knows series by (metric, revision), and types by metric. `failing` metrics are errors."""

    def __init__(
        self,
        series: Mapping[tuple[str, str], Vector],
        types: Mapping[str, str] | None = None,
        failing: str = "no metric",
    ) -> None:
        self._series = series
        self._types = types or {}
        self._failing = failing
        self.asked: list[tuple[str, str]] = []  # query and time

    async def query(self, request: web.Request) -> web.Response:
        form = await request.post()
        query = str(form["query"])
        self.asked.append((query, str(form.get("time"))))
        if self._failing in query:
            return web.json_response({"status": "error", "error": "query timed out"}, status=503)
        if query.startswith("count({__name__"):
            known = any(name in query for name, _ in self._series)
            return self._vector([({}, "1")] if known else [])
        found = [vector for (name, arm), vector in self._series.items() if name in query and arm in query]
        return self._vector(found[0] if found else [])

    def _vector(self, vector: Vector) -> web.Response:
        result = [{"metric": labels, "value": [NOW, value]} for labels, value in vector]
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})

    async def metadata(self, request: web.Request) -> web.Response:
        name = request.query["metric"]
        data = {name: [{"type": self._types[name], "help": "", "unit": ""}]} if name in self._types else {}
        return web.json_response({"status": "success", "data": data})


@asynccontextmanager
async def running(shop: Shop, port: int) -> AsyncIterator[str]:
    """Its address."""
    application = web.Application()
    application.router.add_post("/api/v1/query", shop.query)
    application.router.add_get("/api/v1/metadata", shop.metadata)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        await runner.cleanup()


def vector(**values: str) -> Vector:
    """A series for each pod."""
    return [({"__name__": "x", "pod": name.replace("_", "-")}, value) for name, value in values.items()]


GOOD = {
    ("refunds_total", CANARY): vector(c_0="3"),
    ("orders_total", CANARY): vector(c_0="40", c_1="60"),
    ("refunds_total", STABLE): vector(s_0="10"),
    ("orders_total", STABLE): vector(s_0="900"),
}


async def read(
    session: aiohttp.ClientSession, port: int, shop: Shop, *metrics: Metric, arms: Sequence[str] = (CANARY, STABLE)
) -> CustomReading:
    async with running(shop, port) as address:
        return await read_custom(Prometheus(session, address), PLACE, metrics or [metric()], arms, NOW)


async def why(session: aiohttp.ClientSession, port: int, shop: Shop, asked: Metric) -> str:
    """What is wrong with the metric."""
    found = await read(session, port, shop, asked)
    assert found.samples == {}
    assert found.series == frozenset()
    return found.unread[asked.name]


async def test_each_series_of_an_arm_counts_by_itself(port: int, session: aiohttp.ClientSession) -> None:
    shop = Shop(GOOD)
    found = await read(session, port, shop)
    assert found.unread == {}
    canary, stable = found.samples["refunds"][CANARY], found.samples["refunds"][STABLE]
    assert sorted(canary.values(), key=lambda counts: counts.trials) == [Counts(3, 40), Counts(0, 60)]
    assert list(stable.values()) == [Counts(10, 900)]
    assert found.series == canary.keys() | stable.keys()
    assert all(series.startswith("custom/") for series in found.series)
    assert {time for _, time in shop.asked} == {"1750000100.500"}
    assert f'orders_total{{revision="{CANARY}"}}' in {query for query, _ in shop.asked}


async def test_series_keep_their_keys_when_the_order_or_the_values_change(
    port: int, session: aiohttp.ClientSession
) -> None:
    before = await read(session, port, Shop(GOOD))
    later = [({**dict(labels), "__name__": "y"}, "70") for labels, _ in reversed(GOOD["orders_total", CANARY])]
    after = await read(session, port, Shop(GOOD | {("orders_total", CANARY): later}))
    assert before.series == after.series


async def test_an_arm_that_has_counted_nothing_yet_has_no_series(port: int, session: aiohttp.ClientSession) -> None:
    found = await read(session, port, Shop({key: found for key, found in GOOD.items() if key[1] == STABLE}))
    assert found.unread == {}
    assert found.samples["refunds"][CANARY] == {}
    assert len(found.samples["refunds"][STABLE]) == 1


async def test_a_failure_waits_for_its_trial(port: int, session: aiohttp.ClientSession) -> None:
    found = await read(session, port, Shop(GOOD | {("refunds_total", STABLE): vector(s_0="901")}))
    assert list(found.samples["refunds"][STABLE].values()) == [Counts(900, 900)]


@pytest.mark.parametrize(
    ("value", "text"), [("0.5", "0.5"), ("NaN", "nan"), ("+Inf", "inf"), ("-3", "-3"), ("1e300", None), ("7", None)]
)
async def test_what_no_counter_can_be_is_named(
    value: str, text: str | None, port: int, session: aiohttp.ClientSession
) -> None:
    shop = Shop(GOOD | {("orders_total", CANARY): vector(c_0=value)})
    if text is None:
        assert (await read(session, port, shop)).unread == {}
    else:
        problem = await why(session, port, shop, metric())
        assert problem == f'the query of trials gives {text} for {{pod="c-0"}}, which is no count'


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (metric(failures="refunds_total"), "the query of failures has no $revision"),
        (metric(trials="orders_total{revision='$revisions'}"), "the query of trials has no $revision"),
        (metric(failures=f"rate({REFUNDS}[5m])"), "the query of failures uses rate(), which does not count"),
        (metric(failures=f"sum by (pod) (irate ({REFUNDS}[5m]))"), "uses irate()"),
        (metric(trials=f"increase({ORDERS}[5m])"), "the query of trials uses increase()"),
        (metric(trials=f"1+idelta({ORDERS}[5m])"), "uses idelta()"),
        (metric(trials=f"max_over_time({ORDERS}[5m])"), "uses max_over_time()"),
    ],
)
async def test_queries_that_can_not_count_are_refused_unasked(
    asked: Metric, problem: str, port: int, session: aiohttp.ClientSession
) -> None:
    shop = Shop(GOOD)
    assert problem in await why(session, port, shop, asked)
    assert not any("rate" in query or "increase" in query for query, _ in shop.asked)


@pytest.mark.parametrize(
    "trials",
    [
        'orders_total{revision="$revision",path="/rate(5)"}',
        'prorate:orders_total{revision="$revision"}',
        'orders_total{revision="$revision"} # not increase(',
    ],
)
def test_words_that_only_look_like_functions_are_none(trials: str) -> None:
    check(trials)


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ({"orders_total": "counter", "refunds_total": "counter"}, None),
        ({"orders": "counter", "refunds_total": "unknown"}, None),
        ({"orders_total": "histogram"}, None),
        ({"orders_total": "gauge"}, "the query of trials reads orders_total, which is a gauge, not a counter"),
        ({"refunds": "info"}, "the query of failures reads refunds_total, which is a info, not a counter"),
        ({"other": "gauge"}, None),
    ],
)
async def test_a_metric_that_is_known_not_to_count_is_refused(
    types: dict[str, str], problem: str | None, port: int, session: aiohttp.ClientSession
) -> None:
    found = await read(session, port, Shop(GOOD, types))
    assert found.unread == ({} if problem is None else {"refunds": problem})


async def test_a_misspelt_name_is_not_taken_for_no_failures(port: int, session: aiohttp.ClientSession) -> None:
    problem = await why(session, port, Shop(GOOD), metric(failures='refund_total{revision="$revision"}'))
    assert problem.startswith("the query of failures finds nothing, and there is no series of refund_total: check")


async def test_no_failures_of_a_metric_that_exists_are_none(port: int, session: aiohttp.ClientSession) -> None:
    asked = metric(failures='complaints_total{revision="$revision"}')
    found = await read(session, port, Shop(GOOD | {("complaints_total", "another revision"): vector(x="1")}), asked)
    assert list(found.samples["refunds"][STABLE].values()) == [Counts(0, 900)]


async def test_a_sum_over_all_pods_is_refused(port: int, session: aiohttp.ClientSession) -> None:
    shop = Shop(GOOD | {("orders_total", CANARY): [({}, "100")]})
    problem = await why(session, port, shop, metric(trials=f"sum({ORDERS})"))
    assert problem.startswith("the query of trials adds up all pods")


async def test_failures_without_trials_of_the_same_labels_are_a_problem(
    port: int, session: aiohttp.ClientSession
) -> None:
    shop = Shop(GOOD | {("refunds_total", CANARY): vector(c_0="3", c_9="1")})
    assert "gives none for 1 of the series of failures" in await why(session, port, shop, metric())


async def test_two_metrics_under_one_set_of_labels_are_a_problem(port: int, session: aiohttp.ClientSession) -> None:
    twice = [({"__name__": name, "pod": "c-0"}, "5") for name in ("orders_total", "orders_more_total")]
    problem = await why(session, port, Shop(GOOD | {("orders_total", CANARY): twice}), metric())
    assert problem == 'the query of trials gives {pod="c-0"} twice, under two names; keep one'


async def test_what_prometheus_says_is_told_and_other_metrics_count(port: int, session: aiohttp.ClientSession) -> None:
    broken = metric(failures='broken_total{revision="$revision"}', name="broken")
    found = await read(session, port, Shop(GOOD, failing="broken_total"), metric(), broken)
    assert found.samples.keys() == {"refunds"}
    assert found.unread == {"broken": f"the query of failures at http://{HOST}:{port}: query timed out"}


def test_placeholders_are_filled_in_and_nothing_else() -> None:
    query = 'x{a="$revision",b="$name",c=~"$namespace.*",d="$1",e="$names"}'
    assert fill(query, PLACE, CANARY) == f'x{{a="{CANARY}",b="iris",c=~"shop.*",d="$1",e="$names"}}'


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('orders_total{revision="x",path="/a_b"}', ["orders_total"]),
        ("sum by (pod, zone) (a_total) + sum(b_total) by (pod)", ["a_total", "b_total"]),
        ("a / on (pod) group_left (zone) b offset 5m", ["a", "b"]),
        ("a:b:c unless bool d @ 123", ["a:b:c", "d"]),
        ('{__name__="a_total",x="y"} or 0 * b', ["a_total", "b"]),
        ("clamp_max(a, 1e5) + 0x1f + inf", ["a"]),
        ("'in {a string}' == x", ["x"]),
        ("42", []),
    ],
)
def test_names_of_metrics_in_a_query(query: str, found: list[str]) -> None:
    assert names(query) == found


# --- what Prometheus can answer


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"resultType": "scalar", "result": [NOW, "1"]}, "it answers with a scalar, not with an instant vector"),
        ({"resultType": "vector", "result": [{"metric": {}, "histogram": [NOW, {}]}]}, "no instant vector"),
        (None, "no instant vector"),
        ([], "no instant vector"),
    ],
)
async def test_answers_that_are_no_vector_are_errors(
    data: Any, text: str, port: int, session: aiohttp.ClientSession
) -> None:
    async with answering(HOST, port, {"status": "success", "data": data}):
        with pytest.raises(PrometheusError, match=text):
            await Prometheus(session, f"http://{HOST}:{port}").instant("x")


@pytest.mark.parametrize(
    ("answer", "status"), [("not found", 404), ({"status": "error", "error": "unknown path"}, 404)]
)
async def test_a_server_without_metadata_knows_no_types(
    answer: Any, status: int, port: int, session: aiohttp.ClientSession
) -> None:
    async with answering(HOST, port, answer, status=status):
        assert await Prometheus(session, f"http://{HOST}:{port}").types("x") == set()


@pytest.mark.parametrize("answer", [None, {"status": "success", "data": []}, {"status": "success", "data": {"x": [1]}}])
async def test_a_server_that_does_not_tell_types_is_an_error(
    answer: Any, port: int, session: aiohttp.ClientSession
) -> None:
    async with answering(HOST, port, answer):
        with pytest.raises(PrometheusError):
            await Prometheus(session, f"http://{HOST}:{port}").types("x")


# --- in a snapshot


def analysis(*metrics: Metric) -> Analysis:
    return Analysis(30, 0.05, 0.05, None, 0, 0, 0, metrics)


ERRORS = Metric("errors", MetricType.ERRORS, 0.01)
PODS = [pod("s-0", "127.0.0.2", revision=STABLE), pod("c-0", "127.0.0.3", revision=CANARY)]


def own(name: str, arm: str) -> Vector:
    """A model server's own series."""
    request = {"pod": name, "revision": arm, "attempt": "first", "code": "200"}
    return [
        ({"__name__": "process_start_time_seconds", "pod": name}, "1750000000"),
        ({"__name__": "serin_requests_total", **request}, "970"),
    ]


OWN = {("serin_requests_total", "c-0|s-0"): [*own("s-0", STABLE), *own("c-0", CANARY)]}


async def test_a_snapshot_has_them_beside_the_others(port: int, session: aiohttp.ClientSession) -> None:
    async with running(Shop(GOOD | OWN), port) as address:
        found = await look(session, address, PLACE, PODS, analysis(ERRORS, metric()), [CANARY, STABLE], NOW)
    assert (found.problem, found.unread) == (None, ())
    assert found.samples["errors"][CANARY] == {"c-0/1750000000": Counts(0, 970)}
    series = found.samples["custom:refunds"][STABLE]
    assert list(series.values()) == [Counts(10, 900)]
    assert series.keys() < found.unclocked
    assert found.processes == {"s-0/1750000000", "c-0/1750000000"}
    assert found.pods == {"s-0", "c-0"}


async def test_one_that_can_not_be_read_keeps_its_series_and_leaves_the_others(
    port: int, session: aiohttp.ClientSession
) -> None:
    async with running(Shop(GOOD | OWN, failing="orders_total"), port) as address:
        found = await look(session, address, PLACE, PODS, analysis(ERRORS, metric()), [CANARY, STABLE], NOW)
    assert found.problem is None
    assert found.unread == (f"custom metric refunds (the query of trials at {address}: query timed out)",)
    assert found.samples.keys() == {"requests", "errors"}
    assert found.pods == {"s-0", "c-0", "custom"}


async def test_without_a_prometheus_none_can_be_read(port: int, session: aiohttp.ClientSession) -> None:
    text = f'process_start_time_seconds 1.75e+09\nserin_requests_total{{code="200",revision="{STABLE}"}} 5\n'
    async with answering("127.0.0.2", port, text):
        found = await look(session, None, PLACE, PODS[:1], analysis(metric()), [STABLE], NOW)
    assert found.unread == (
        "custom metric refunds (it needs a Prometheus: set spec.analysis.prometheus.address or the chart's "
        "prometheus.address)",
    )
